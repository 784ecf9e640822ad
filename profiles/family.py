"""Graphs of one structure whose sizes follow a few numbers: learned from some of them, made for any others at once.

A search costs many networks that differ in widths, in blocks left out and in kernels, and tracing each takes many times
what costing its graph takes. Here a handful are traced. Every dimension of every tensor is then a constant plus
multiples of a few of the numbers, or it is not, and then there is no family. What was learned must give back graphs
that it was not learned from, exactly: equal in every field and name.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from profiles.graph import Edge, Graph, Op, Span, Weight

SAMPLES = 8  # graphs that a family is learned from
HELD_OUT = 2  # further ones that it must give back
MOST_TERMS = 4  # numbers that one dimension may be a sum of

Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Affine:
    """constant + sum(factor * number)."""

    constant: int
    terms: tuple[tuple[int, str], ...]  # (factor, number)

    def __call__(self, sizes: Sizes) -> int:
        value = self.constant
        for factor, name in self.terms:
            value += factor * sizes[name]
        return value


@dataclass(frozen=True)
class Part:
    """One operator as a function of the numbers; a field without a function is as in `op`.

    Attributes:
        op: of the first sample.
        depth, groups, channels: those of the operator.
        macs: which edge's elements times the depth are the multiply-accumulates; "" where they do not change.
        weights: for each stored tensor, its elements: a function, or the edge dimension and the depth it is a product
            of, as ("edge", dimension); None where they do not change.
        layer: the module whose weight this operator convolves with, "" for none.
    """

    op: Op
    depth: Affine | None
    groups: Affine | None
    channels: Affine | None
    macs: str
    weights: tuple[Affine | tuple[str, int] | None, ...]
    layer: str


class Family:
    """See the head of this file.

    Attributes:
        spans: where in the graphs the modules are that can be left out.
    """

    def __init__(
        self,
        graph: Graph,
        shapes: Mapping[str, tuple[int | Affine, ...]],
        parts: Sequence[Part],
        spans: Mapping[str, Span],
    ) -> None:
        self._graph = graph
        self._shapes = shapes
        self._parts = parts
        self.spans = spans

    def graph(self, sizes: Sizes, absent: Sequence[str] = (), windows: Sizes | None = None) -> Graph:
        """The graph of the network with these numbers.

        Args:
            sizes: every number, by name.
            absent: modules, of `spans`, that let through what goes into them.
            windows: extent that a convolution's window is cut to, by module: longer axes are.
        """
        gone = [self.spans[name] for name in absent]
        through = {span.out: span.into for span in gone}
        skipped = {index for span in gone for index in range(span.first, span.end)}
        names: dict[str, str] = {}
        edges: dict[str, Edge] = {}

        def kept(name: str) -> Edge:
            """An edge under its name in this graph; edges are numbered as they appear."""
            while name in through:
                name = through[name]
            known = names.get(name)
            if known is not None:
                return edges[known]
            there = self._graph.edges[name]
            shape = tuple([size if isinstance(size, int) else size(sizes) for size in self._shapes[name]])
            number = names[name] = f"t{len(edges)}"
            made = edges[number] = Edge(number, shape, there.dtype, prod(shape))
            return made

        inputs = tuple([kept(name).name for name in self._graph.inputs])
        ops: list[Op] = []
        uncounted: Counter[str] = Counter()
        for index, part in enumerate(self._parts):
            if index in skipped:
                continue
            op = part.op
            taken = [kept(name) for name in op.inputs]
            made = [kept(name) for name in op.outputs]
            depth = op.depth if part.depth is None else part.depth(sizes)
            window = op.window
            if windows and part.layer in windows:
                window = tuple([min(size, windows[part.layer]) for size in op.window])
                depth = depth // prod(op.window) * prod(window)
            macs = kept(part.macs).elements * depth if part.macs else op.macs
            weights = []
            for weight, rule in zip(op.weights, part.weights, strict=True):
                if rule is None:
                    weights.append(weight)
                    continue
                elements = rule(sizes) if isinstance(rule, Affine) else kept(rule[0]).shape[rule[1]] * depth
                weights.append(Weight(weight.name, elements, weight.dtype, weight.bias))
            if op.kind == "other":
                uncounted[op.operator] += 1
            ops.append(
                Op(
                    f"{op.operator}_{len(ops)}",
                    op.operator,
                    op.kind,
                    tuple(dict.fromkeys([item.name for item in taken])),
                    tuple([item.name for item in made]),
                    macs,
                    tuple(weights),
                    depth,
                    op.groups if part.groups is None else part.groups(sizes),
                    op.channels if part.channels is None else part.channels(sizes),
                    op.int8,
                    op.repeats,
                    window,
                    op.strides,
                )
            )
        outputs = tuple(dict.fromkeys([kept(name).name for name in self._graph.outputs]))
        return Graph(tuple(ops), edges, inputs, outputs, self._graph.batch, dict(uncounted))


def learned(read: Callable[[Sizes], tuple[Graph, Mapping[str, Span]]], draw: Callable[[], Sizes]) -> Family | None:
    """Learn a family, or find that there is none.

    Args:
        read: numbers -> the graph of the network with them, and where modules are that can be left out.
        draw: random numbers; every call gives the same names. What never changes is taken for a constant.

    Returns:
        None where the structure changes with the numbers, or a size is no sum of at most `MOST_TERMS` multiples.
    """
    sizes = _apart(draw)
    graphs: list[Graph] = []
    spans: Mapping[str, Span] = {}
    for one in sizes:
        graph, spans_here = read(one)
        if graphs and (not _alike(graphs[0], graph) or spans_here != spans):
            return None
        graphs.append(graph)
        spans = spans_here
    found = _fitted(sizes, graphs, spans)
    if found is None or any(found.graph(one) != graph for one, graph in zip(sizes, graphs, strict=True)):
        return None
    for _ in range(HELD_OUT):
        one = draw()
        if found.graph(one) != read(one)[0]:
            return None
    return found


def _apart(draw: Callable[[], Sizes]) -> list[Sizes]:
    """Samples in which no two numbers go together: more than `SAMPLES` where few values are on offer."""
    sizes = [draw() for _ in range(SAMPLES)]
    while len(sizes) < 4 * SAMPLES:
        steps = {name: [one[name] - sizes[0][name] for one in sizes] for name in sizes[0]}
        moving = [tuple(np.sign(step[next(i for i, s in enumerate(step) if s)]) * np.array(step) / max(map(abs, step)))
                  for step in steps.values() if any(step)]  # fmt: skip
        if len(set(moving)) == len(moving):
            break
        sizes.append(draw())
    return sizes


def _alike(one: Graph, other: Graph) -> bool:
    """Whether two graphs differ in sizes only."""

    def bare(graph: Graph) -> tuple[object, ...]:
        ops = [
            (op.operator, op.kind, op.inputs, op.outputs, op.int8, op.repeats, op.window, op.strides, weights)
            for op in graph.ops
            for weights in [tuple((weight.name, weight.dtype, weight.bias) for weight in op.weights)]
        ]
        edges = [(name, edge.dtype, len(edge.shape)) for name, edge in graph.edges.items()]
        return ops, edges, graph.inputs, graph.outputs, graph.batch, graph.notes, graph.idle, graph.uncounted

    return bare(one) == bare(other)


class _Fit:
    """Finds which numbers a size follows."""

    def __init__(self, sizes: Sequence[Sizes]) -> None:
        self.names = list(sizes[0])
        table = np.array([[one[name] for name in self.names] for one in sizes], np.float64)
        self.base = table[0]
        self.steps = table - table[0]
        self.known: dict[tuple[int, ...], Affine | None] = {}

    def of(self, values: tuple[int, ...]) -> Affine | None:
        """The function that gives these values at the samples, of as few numbers as possible; None for no such."""
        if values not in self.known:
            self.known[values] = self._of(values)
        return self.known[values]

    def _of(self, values: tuple[int, ...]) -> Affine | None:
        target = np.array(values, np.float64) - values[0]
        chosen: list[int] = []
        left = target
        norms = np.linalg.norm(self.steps, axis=0)
        while np.abs(left).max() > 1e-6:
            if len(chosen) == MOST_TERMS or not self.names:
                return None
            along = np.abs(left @ self.steps) / np.where(norms > 0, norms, np.inf)
            along[chosen] = -1.0
            chosen.append(int(along.argmax()))
            factors = np.rint(np.linalg.lstsq(self.steps[:, chosen], target, rcond=None)[0])
            left = self._left(target, chosen, factors)
            if np.abs(left).max() > 1e-6:  # not yet whole: go on with what is best unrounded
                exact = np.linalg.lstsq(self.steps[:, chosen], target, rcond=None)[0]
                left = self._left(target, chosen, exact)
                if np.abs(left).max() <= 1e-6:
                    return None
        if not chosen:
            return Affine(values[0], ())
        terms = [(int(factor), self.names[place]) for factor, place in zip(factors, chosen, strict=True) if factor]
        constant = values[0] - sum(
            int(factor) * int(self.base[place]) for factor, place in zip(factors, chosen, strict=True)
        )
        return Affine(constant, tuple(terms))

    def _left(
        self, target: NDArray[np.float64], chosen: list[int], factors: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        found: NDArray[np.float64] = target - self.steps[:, chosen] @ factors
        return found


def _fitted(sizes: Sequence[Sizes], graphs: Sequence[Graph], spans: Mapping[str, Span]) -> Family | None:
    fit = _Fit(sizes)
    shapes: dict[str, tuple[int | Affine, ...]] = {}
    for name in graphs[0].edges:
        dims: list[int | Affine] = []
        for values in zip(*[graph.edges[name].shape for graph in graphs], strict=True):
            found = fit.of(values)
            if found is None:
                return None
            dims.append(found if found.terms else found.constant)
        shapes[name] = tuple(dims)
    parts: list[Part] = []
    for index, op in enumerate(graphs[0].ops):
        made = _part(fit, [graph.ops[index] for graph in graphs], graphs, op)
        if made is None:
            return None
        parts.append(made)
    return Family(graphs[0], shapes, parts, spans)


def _part(fit: _Fit, ops: Sequence[Op], graphs: Sequence[Graph], op: Op) -> Part | None:
    fields: list[Affine | None] = []
    for values in ([o.depth for o in ops], [o.groups for o in ops], [o.channels for o in ops]):
        found = fit.of(tuple(values))
        if found is None:
            return None
        fields.append(found if found.terms else None)
    convolves = op.kind in ("conv", "conv_transpose")
    counted = ""
    if op.macs:
        edges = [
            name
            for name in (*op.outputs, *op.inputs)
            if all(g.edges[name].elements * o.depth == o.macs for g, o in zip(graphs, ops, strict=True))
        ]
        if not edges and len({o.macs for o in ops}) > 1:
            return None
        counted = edges[0] if edges else ""
        if convolves and not counted:
            return None
    weights: list[Affine | tuple[str, int] | None] = []
    for place in range(len(op.weights)):
        elements = tuple(o.weights[place].elements for o in ops)
        products = [
            (name, dim)
            for name in (*op.outputs, *op.inputs)
            for dim in range(len(graphs[0].edges[name].shape))
            if all(
                g.edges[name].shape[dim] * o.depth == count for g, o, count in zip(graphs, ops, elements, strict=True)
            )
        ]
        biased = op.weights[place].bias
        if convolves and not biased and products:
            weights.append(products[0])  # also where it never changed: a smaller window will change it
            continue
        affine = fit.of(elements)
        if affine is not None:
            weights.append(affine if affine.terms else None)
        elif products:
            weights.append(products[0])
        else:
            return None
    layer = ""
    if convolves and op.weights and op.weights[0].name.endswith(".weight"):
        layer = op.weights[0].name.removesuffix(".weight")
    return Part(op, fields[0], fields[1], fields[2], counted, tuple(weights), layer)
