"""Packed projections as linear layers of their own: what one layer computes for query, key and value, in three.

TensorRT-RTX 1.7 compiles an int8 linear layer whose output is cut into pieces outside its int8 kernels; layers of their
own run in int8 and are fused again where that is faster. Only the form changes: each piece is the layer's own rows of
weight and bias, and the pieces' activations get a scale each.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, map_arg

aten = torch.ops.aten
LINEAR = aten.linear.default
FACTORS = frozenset({aten.view.default, aten.reshape.default, aten.unflatten.int})
SAME = frozenset({aten.contiguous.default, aten.clone.default, aten.alias.default})
LISTS = frozenset({aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.unbind.int})


@dataclass(frozen=True)
class _Piece:
    """One cut of the packed axis: `node` is indices start..stop - 1 of it, the axis itself gone where `single`."""

    node: Node
    start: int
    stop: int
    single: bool


@dataclass(frozen=True)
class _Packed:
    """A linear layer's output on its way to the pieces.

    Attributes:
        chain: the nodes between the layer and the cuts, in order.
        factors: sizes into which the output's last axis is written.
        factor: which of them is cut.
        axis: where it stands behind the chain.
        pieces: in order of their indices; together the whole axis.
    """

    chain: tuple[Node, ...]
    factors: tuple[int, ...]
    factor: int
    axis: int
    pieces: tuple[_Piece, ...]


def split(graph: GraphModule) -> None:
    """Replace every linear layer that is read in pieces of its output by one layer for each piece, in place.

    The pieces may be cut at once (chunk, split, slices) or behind a reshape to (.., 3, heads, width), with or without
    axes permuted, as attention does. The weights become parameters of the same module, `weight_0`, `weight_1` and so
    on; module paths stay. A layer stays as it is where something else reads its output or its weight, where pieces
    overlap or leave rows unread, or where nothing is cut.
    """
    for node in list(graph.graph.nodes):
        if node.op == "call_function" and node.target is LINEAR:
            found = _packed(node)
            if found is not None and _own_parameters(graph, node):
                _replace(graph, node, found)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _own_parameters(graph: GraphModule, node: Node) -> bool:
    """Weight and bias are parameters that nothing else reads."""
    parameters = dict(graph.named_parameters(remove_duplicate=False))
    reads = [argument for argument in node.args[1:] if argument is not None]
    names = [str(source.target) for source in reads if isinstance(source, Node) and source.op == "get_attr"]
    if len(names) != len(reads) or any(name not in parameters for name in names):
        return False
    mine = [parameters[name] for name in names]
    holders = {name for name, value in parameters.items() if any(value is own for own in mine)}
    readers = {
        user
        for other in graph.graph.nodes
        if other.op == "get_attr" and str(other.target) in holders
        for user in other.users
    }
    return readers == {node}


def _packed(node: Node) -> _Packed | None:
    """How the pieces of `node` are cut; None where its output is read otherwise."""
    last = node.meta["val"].dim() - 1
    rows = node.meta["val"].shape[-1]
    chain: list[Node] = []
    factors: tuple[int, ...] = (rows,)
    where: list[int] = [last]  # axis of each factor
    end = node
    while len(end.users) == 1:
        (reader,) = end.users
        if reader.target in FACTORS and len(factors) == 1 and where == [last]:
            shape = reader.meta["val"].shape
            kept = [*node.meta["val"].shape[:-1]]
            tail = shape[last:]
            if [*shape[:last]] != kept or not all(isinstance(size, int) for size in tail) or len(tail) < 2:
                break
            factors, where = tuple(tail), list(range(last, len(shape)))
        elif reader.target not in SAME:
            moved = _moved(reader, where, end.meta["val"].dim())
            if moved is None:
                break
            where = moved
        chain.append(reader)
        end = reader
    return _cut(tuple(chain), factors, where, end)


def _moved(reader: Node, where: Sequence[int], rank: int) -> list[int] | None:
    """Where the factors stand behind an operator that moves whole axes."""
    if reader.target is aten.permute.default:
        order = [int(axis) % rank for axis in reader.args[1]]  # type: ignore[union-attr, arg-type]
        return [order.index(axis) for axis in where]
    if reader.target is aten.transpose.int:
        one, other = (int(axis) % rank for axis in reader.args[1:3])  # type: ignore[arg-type]
        return [other if axis == one else one if axis == other else axis for axis in where]
    if reader.target is aten.unsqueeze.default:
        new = int(reader.args[1]) % (rank + 1)  # type: ignore[arg-type]
        return [axis + (axis >= new) for axis in where]
    if reader.target is aten.squeeze.dim:
        gone = int(reader.args[1]) % rank  # type: ignore[arg-type]
        return None if gone in where else [axis - (axis > gone) for axis in where]
    return None


def _cut(chain: tuple[Node, ...], factors: tuple[int, ...], where: Sequence[int], end: Node) -> _Packed | None:
    """The pieces that the readers of `end` take, where they share one axis and take all of it once."""
    pieces: list[_Piece] = []
    axes = set()
    for reader in end.users:
        taken = _taken(reader, end)
        if taken is None:
            return None
        axes.add(taken[0])
        pieces += taken[1]
    pieces.sort(key=lambda piece: piece.start)
    if len(axes) != 1 or len(pieces) < 2 or not axes <= set(where):
        return None
    (axis,) = axes
    factor = list(where).index(axis)
    ends = [0, *(piece.stop for piece in pieces)]
    if [piece.start for piece in pieces] != ends[:-1] or ends[-1] != factors[factor]:
        return None
    return _Packed(chain, factors, factor, axis, tuple(pieces))


def _taken(reader: Node, source: Node) -> tuple[int, list[_Piece]] | None:
    """(axis, pieces) that a reader cuts from `source`."""
    shape = source.meta["val"].shape
    if reader.target is aten.slice.Tensor and (len(reader.args) < 5 or reader.args[4] == 1):
        _, axis, start, stop = (*reader.args, *(0, None, None)[len(reader.args) - 1 :])[:4]
        axis = int(axis) % len(shape)  # type: ignore[arg-type]
        if not isinstance(shape[axis], int) or isinstance(start, Node) or isinstance(stop, Node):
            return None
        start, stop, _ = slice(start, stop).indices(shape[axis])
        return axis, [_Piece(reader, start, stop, single=False)]
    if reader.target is aten.select.int and isinstance(reader.args[2], int):
        axis = int(reader.args[1]) % len(shape)  # type: ignore[arg-type]
        if not isinstance(shape[axis], int):
            return None
        index = reader.args[2] % shape[axis]
        return axis, [_Piece(reader, index, index + 1, single=True)]
    if reader.target in LISTS and all(user.target is operator.getitem for user in reader.users):
        single = reader.target is aten.unbind.int
        position = 1 if single else 2
        axis = int(reader.args[position]) if len(reader.args) > position else 0  # type: ignore[arg-type]
        axis %= len(shape)
        sizes = [1 if single else part.shape[axis] for part in reader.meta["val"]]
        if not all(isinstance(size, int) for size in sizes):
            return None
        starts = [sum(sizes[:index]) for index in range(len(sizes))]
        pieces = []
        for user in reader.users:
            index = int(user.args[1]) % len(sizes)  # type: ignore[arg-type]
            pieces.append(_Piece(user, starts[index], starts[index] + sizes[index], single))
        return axis, pieces
    return None


def _replace(graph: GraphModule, node: Node, found: _Packed) -> None:
    parameters = [argument for argument in node.args[1:] if isinstance(argument, Node)]
    rows = torch.arange(node.meta["val"].shape[-1]).view(found.factors)
    for index, piece in enumerate(found.pieces):
        mine = rows.narrow(found.factor, piece.start, piece.stop - piece.start).flatten()
        with graph.graph.inserting_before(node):
            own = [_part(graph, source, mine, index) for source in parameters]
            value = _call(graph, LINEAR, (node.args[0], *own), node)
            for step in found.chain:
                value = _step(graph, step, value, found, piece)
            if piece.single:
                value = _call(graph, aten.select.int, (value, found.axis, 0), piece.node)
        piece.node.replace_all_uses_with(value)
    for spare in _behind(node):
        graph.graph.erase_node(spare)
    for source in parameters:
        if not source.users:
            graph.graph.erase_node(source)
        owner, _, name = str(source.target).rpartition(".")
        delattr(graph.get_submodule(owner), name)


def _step(graph: GraphModule, step: Node, value: Node, found: _Packed, piece: _Piece) -> Node:
    """One node of the chain, on a piece."""
    arguments: tuple[Any, ...] = (value, *step.args[1:])
    if step.target in FACTORS:
        sizes = list(found.factors)
        sizes[found.factor] = piece.stop - piece.start
        arguments = (value, value.meta["val"].dim() - 1, sizes)
        return _call(graph, aten.unflatten.int, arguments, step)
    assert callable(step.target)
    return _call(graph, step.target, arguments, step, dict(step.kwargs))


def _behind(node: Node) -> list[Node]:
    """`node` and what it alone leads to, readers first."""
    found: list[Node] = []
    waiting = [node]
    while waiting:
        found.append(waiting.pop())
        waiting += [user for user in found[-1].users if user not in found]
    return sorted(found, reverse=True)


def _part(graph: GraphModule, source: Node, rows: Tensor, index: int) -> Node:
    """Some rows of a parameter, as a parameter of the same module."""
    owner, _, name = str(source.target).rpartition(".")
    module = graph.get_submodule(owner)
    whole = module.get_parameter(name)
    part = nn.Parameter(whole.detach()[rows].clone(), requires_grad=whole.requires_grad)
    module.register_parameter(f"{name}_{index}", part)
    made = graph.graph.get_attr(f"{source.target}_{index}")
    made.meta = dict(source.meta)
    made.meta["val"] = source.meta["val"].new_empty(part.shape)
    return made


def _call(
    graph: GraphModule, target: Callable[..., Any], arguments: Any, like: Node, named: dict[str, Any] | None = None
) -> Node:
    """A node with the module path of `like`, and what it computes."""
    made = graph.graph.call_function(target, arguments, named or {})
    made.meta = {key: value for key, value in like.meta.items() if key in ("nn_module_stack", "stack_trace")}
    values = map_arg((arguments, named or {}), lambda argument: argument.meta["val"])
    with like.meta["val"].fake_mode:
        made.meta["val"] = target(*values[0], **values[1])
    return made


__all__ = ["split"]
