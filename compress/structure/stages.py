"""Where a network's stages end, found by running it, not by reading its modules' names.

A stage ends at a module whose output everything that follows depends on, and through which everything before it acts:
all paths of the autograd graph from the output to the input pass through it. Outputs of one size belong together, so
that stages end before the map is made smaller, as the published taps do (ResNet's layer1 to layer4, the last block of
each stage of Swin); a network of one size (ViT, Mixer) is divided evenly by its layers. How that is done in general is
proposed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node

from compress.contracts.stages import Stage
from compress.errors import RecipeError

EXAMPLES = 2
CLASS_TOKENS = (1, 2)  # one, or one more for distillation (DeiT)


@dataclass(frozen=True)
class _Record:
    """One call of one module."""

    name: str
    module: nn.Module
    node: Node
    shape: torch.Size
    depth: int  # layers with weights so far
    layer: nn.Module | None  # the last of them


@dataclass
class _End:
    """What may be a stage's end: the last output before the next layer with weights."""

    last: _Record
    names: list[str] = field(default_factory=list)  # modules that have this very output


def find_stages(network: nn.Module, inputs: Sequence[Tensor], count: int) -> tuple[Stage, ...]:
    """The ends of `count` stages, in order; the same one several times where the network has fewer.

    Args:
        network: is run once in eval mode, and is the same afterwards.
        inputs: what it takes, (B, ...) each.
        count: at least 1.

    Returns:
        Not the output itself, unless the network is a single layer.

    Raises:
        RecipeError: it has no layers, or none through which everything passes.
    """
    records = _run(network, tuple(tensor[:EXAMPLES] for tensor in inputs))
    ends = _ends(records)
    laid = [_laid_out(end, records) for end in ends]
    # Behind the mean over positions there is nothing to tell stages apart by.
    mapped = [place for place, stage in enumerate(laid) if math.prod(stage.grid) > 1]
    kept = mapped or list(range(len(laid)))
    depths = [ends[place].last.depth for place in kept]
    grids = [laid[place].grid for place in kept]
    chosen = _spread(depths, grids, count)
    named = [replace(laid[place], module=_name(ends, place)) for place in kept]
    return tuple(named[place] for place in chosen)


def feature(output: Tensor, stage: Stage) -> Tensor:
    """A stage's output as (B, channels, *grid)."""
    if not stage.tokens:
        return output
    turned = output.movedim(stage.channels, 1)
    if turned.ndim == 2 + len(stage.grid) and not stage.extra:
        return turned
    return turned[:, :, stage.extra :].reshape(*turned.shape[:2], *stage.grid)


def _run(network: nn.Module, inputs: tuple[Tensor, ...]) -> list[_Record]:
    """Every call of a module in the order of their ends; those that no stage ends at have the depth -1."""
    records: list[_Record] = []
    layers: list[nn.Module] = []

    def recorder(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, given: Any, answer: Any) -> None:
            if any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
                layers.append(module)
            found = _first(answer)
            if found is not None and found.grad_fn is not None:
                last = layers[-1] if layers else None
                records.append(_Record(name, module, found.grad_fn, found.shape, len(layers), last))

        return record

    hooks = [module.register_forward_hook(recorder(name)) for name, module in network.named_modules() if name]
    leaves = tuple(
        tensor.detach().clone().requires_grad_() if tensor.is_floating_point() else tensor for tensor in inputs
    )
    try:
        with _undisturbed(network), torch.enable_grad(), torch.autocast(inputs[0].device.type, enabled=False):
            answer = _first(network(*leaves))
    finally:
        for hook in hooks:
            hook.remove()
    if answer is None or answer.grad_fn is None or not layers or not records:
        raise RecipeError(f"{type(network).__name__} has no layers, so no stages", fix="name the modules to tap")
    inner = _cuts(records, answer.grad_fn, leaves, of_output=False)
    return inner if _ends(inner) else _cuts(records, answer.grad_fn, leaves, of_output=True)


def _cuts(records: list[_Record], output: Node, leaves: tuple[Tensor, ...], *, of_output: bool) -> list[_Record]:
    """All records; those through which not all paths from the output to the inputs pass get the depth -1.

    Args:
        of_output: whether the output itself counts.
    """
    order = _from_the_output(output)
    given = {id(leaf) for leaf in leaves}
    sources = {node for node in order if id(getattr(node, "variable", None)) in given}
    down = _paths_down(order, sources)
    if (
        not down[output] and records[0].node in down
    ):  # nothing flows back into the inputs: token indices, or a front-end that rounds
        down = _paths_down(order, {records[0].node})
    up = dict.fromkeys(order, 0)
    up[output] = 1
    for node in order:
        for following in _next(node):
            up[following] += up[node]
    total = down[output]
    return [
        record
        if (of_output or record.node is not output)
        and total
        and up.get(record.node, 0) * down.get(record.node, 0) == total
        else replace(record, depth=-1)
        for record in records
    ]


def _next(node: Node) -> list[Node]:
    return [following for following, _ in node.next_functions if following is not None]


def _from_the_output(output: Node) -> list[Node]:
    """All nodes, each before those that it was computed from."""
    waiting = {output: 0}
    stack = [output]
    while stack:
        for following in _next(stack.pop()):
            if following not in waiting:
                waiting[following] = 0
                stack.append(following)
            waiting[following] += 1
    order, ready = [], [output]
    while ready:
        node = ready.pop()
        order.append(node)
        for following in _next(node):
            waiting[following] -= 1
            if not waiting[following]:
                ready.append(following)
    return order


def _paths_down(order: list[Node], sources: set[Node]) -> dict[Node, int]:
    """Number of paths from each node to a source."""
    down: dict[Node, int] = {}
    for node in reversed(order):
        down[node] = 1 if node in sources else sum(down[following] for following in _next(node))
    return down


def _ends(records: list[_Record]) -> list[_End]:
    """For each layer on the way the last output of its shape: behind its normalisation and activation."""
    ends: list[_End] = []
    for record in records:
        if record.depth < 1:
            continue
        present = ends[-1] if ends else None
        if present is None or record.depth != present.last.depth:
            ends.append(_End(record, [record.name]))
        elif record.node is present.last.node:
            present.names.append(record.name)
        elif record.shape == present.last.shape and _continues(record, present):
            ends[-1] = _End(record, [record.name])
    return ends


def _continues(record: _Record, present: _End) -> bool:
    """An activation, the normalisation of a bare layer, or what is left of the module around: not the norm that follows
    a block, which belongs to what comes next."""
    free = not any(True for _ in record.module.parameters())
    around = any(name.startswith(record.name + ".") for name in present.names)
    return free or around or present.last.module is present.last.layer


def _laid_out(end: _End, records: list[_Record]) -> Stage:
    """Axes of the output, by the last layer in front of it."""
    shape, layer = end.last.shape, end.last.layer
    name = end.last.name
    if len(shape) == 2:
        return Stage(name, 1, ())
    convolved = layer is not None and type(layer).__name__.startswith("Conv")
    width = getattr(layer, "out_features", None)
    if convolved or (width == shape[1] and width != shape[-1]):
        return Stage(name, 1, tuple(shape[2:]))
    if len(shape) > 3:
        return Stage(name, len(shape) - 1, tuple(shape[1:-1]))
    for record in reversed(records[: records.index(end.last)] if end.last in records else records):
        grid = tuple(record.shape[2:])
        if len(grid) == 2:
            for extra in (0, *CLASS_TOKENS):
                if math.prod(grid) + extra == shape[1]:
                    return Stage(name, 2, grid, extra)
    return Stage(name, 2, (shape[1],))


def _name(ends: list[_End], place: int) -> str:
    """The outermost module with this output that is not a part of the way to another end."""
    others = [name for number, end in enumerate(ends) if number != place for name in end.names]
    own = [name for name in ends[place].names if not any(other.startswith(name + ".") for other in others)]
    return min(own or ends[place].names, key=lambda name: (name.count("."), len(name)))


def _spread(depths: list[int], grids: list[tuple[int, ...]], count: int) -> list[int]:
    """Which of the possible ends are taken, `count` positions in ascending order."""
    if len(depths) <= count:
        return [math.ceil(number * len(depths) / count) - 1 for number in range(1, count + 1)]
    groups: list[list[int]] = []
    for place, grid in enumerate(grids):
        if not groups or grids[groups[-1][-1]] != grid:
            groups.append([])
        groups[-1].append(place)
    if len(groups) >= count:
        return [group[-1] for group in groups[-count:]]
    before = [0, *(depths[group[-1]] for group in groups[:-1])]
    lengths = [depths[group[-1]] - start for group, start in zip(groups, before, strict=True)]
    shares = _shares(lengths, [len(group) for group in groups], count)
    chosen = []
    for group, start, length, share in zip(groups, before, lengths, shares, strict=True):
        first = 0
        for number in range(1, share + 1):
            wanted, last = start + number * length / share, len(group) - (share - number)
            nearest = min(range(first, last), key=lambda n: (abs(depths[group[n]] - wanted), -n))
            chosen.append(group[nearest])
            first = nearest + 1
    return chosen


def _shares(lengths: list[int], most: list[int], count: int) -> list[int]:
    """How many ends each group of one size gets: one at least, the rest where the most layers are per end."""
    shares = [1] * len(lengths)
    while sum(shares) < count:
        open_ = [place for place, share in enumerate(shares) if share < most[place]]
        shares[max(open_, key=lambda place: (lengths[place] / shares[place], place))] += 1
    return shares


def _first(answer: Any) -> Tensor | None:
    if isinstance(answer, Tensor):
        return answer
    values: Sequence[Any] = tuple(answer.values()) if isinstance(answer, dict) else ()
    if isinstance(answer, tuple | list):
        values = answer
    return next((value for value in values if isinstance(value, Tensor)), None)


@contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    """In eval mode, with gradients for every parameter; both are put back."""
    modes = [(module, module.training) for module in network.modules()]
    fixed = [p for p in network.parameters() if p.is_floating_point() and not p.requires_grad]
    network.eval()
    for parameter in fixed:
        parameter.requires_grad_()
    try:
        yield
    finally:
        for parameter in fixed:
            parameter.requires_grad_(False)
        for module, training in modes:
            module.training = training
