"""One prepared student in which every rounding can be left out, layer by layer, without capturing it again.

Which roundings an assignment has is asked of the runtime's own rules, on the same captured graph: an edge is rounded
where the rules, told that some modules stay in float, still mark it. Ranges stay those of the student in which every
layer is quantised. A change of one layer recomputes only what follows it.
"""

import copy
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg
from torchao.quantization.pt2e import FakeQuantizeBase
from torchao.quantization.pt2e.quantizer.quantizer import Q_ANNOTATION_KEY

from compress.qat.bias_grid import BiasToGrid
from compress.qat.prepared import Prepared
from compress.qat.quantizer import BATCH_NORM, PlacementQuantizer, rules
from compress.qat.rounding import OBSERVED


@dataclass(frozen=True)
class Marks:
    """What the rules round, by the names of nodes.

    Attributes:
        edges: (producer, reader).
        outputs: producers whose result is rounded for all readers.
    """

    edges: frozenset[tuple[str, str]]
    outputs: frozenset[str]

    def __sub__(self, other: "Marks") -> "Marks":
        return Marks(self.edges - other.edges, self.outputs - other.outputs)


@dataclass(frozen=True)
class _Edge:
    """A value on its way through fake quantisers.

    Attributes:
        source: what computed it.
        stages: the fake quantisers in between, by module name, with the mark that each stands for: None for the
            source's output, else its reader.
    """

    source: Node
    stages: tuple[tuple[str, str | None], ...]


Rounding = Mapping[Node, Mapping[Node, tuple[str, ...]]]
"""Reader -> argument node -> fake quantisers that the value passes; empty where it stays as it is."""


class Switches:
    """See the module's docstring. The prepared student is copied.

    Args:
        prepared: with ranges.
        float_modules: what it was prepared with.
    """

    def __init__(self, prepared: Prepared, float_modules: tuple[str, ...] = ("frontend",)) -> None:
        self.float_modules = float_modules
        self.graph: GraphModule = copy.deepcopy(prepared).eval().graph
        self._quantizer = prepared.quantizer
        self._fake: dict[str, nn.Module] = {
            name: module for name, module in self.graph.named_modules() if isinstance(module, FakeQuantizeBase)
        }
        self._steps = [node for node in self.graph.graph.nodes if not self._rounds(node)]
        self._grids = {node: _layer_of(node) for node in self._steps if self._on_grid(node)}
        self._edges = {node: {a: self._edge(node, a) for a in node.all_input_nodes} for node in self._steps}
        self._bare = self._stripped(copy.deepcopy(prepared).graph)

    def marks(self, modules: Iterable[str]) -> Marks:
        """What the rules round when `modules` stay in float, beside those that always do."""
        graph = self._bare
        for node in graph.graph.nodes:
            node.meta.pop(Q_ANNOTATION_KEY, None)
        floats = (*self.float_modules, *modules)
        PlacementQuantizer(rules(self._quantizer), OBSERVED, floats).annotate(graph)
        edges, outputs = set(), set()
        for node in graph.graph.nodes:
            annotation = node.meta.get(Q_ANNOTATION_KEY)
            if annotation is None:
                continue
            edges |= {(source.name, node.name) for source in annotation.input_qspec_map}
            if annotation.output_qspec is not None:
                outputs.add(node.name)
        return Marks(frozenset(edges), frozenset(outputs))

    def rounding(self, marks: Marks) -> Rounding:
        """The fake quantisers that are on for these marks."""
        found = {
            node: {a: self._on(edge, node, marks) for a, edge in edges.items()} for node, edges in self._edges.items()
        }
        for node, layer in self._grids.items():  # the bias of an integer layer alone is put on a grid
            whole = all(found[layer][argument] for argument in layer.all_input_nodes[:2])
            found[node] = dict.fromkeys(node.all_input_nodes, (str(node.target),) if whole else ())
        return found

    def _on_grid(self, node: Node) -> bool:
        return node.op == "call_module" and isinstance(self.graph.get_submodule(str(node.target)), BiasToGrid)

    def _rounds(self, node: Node) -> bool:
        return node.op == "call_module" and str(node.target) in self._fake

    def _edge(self, reader: Node, argument: Node) -> _Edge:
        chain = []
        node = argument
        while self._rounds(node):
            chain.append(str(node.target))
            node = node.all_input_nodes[0]
        # One fake quantiser stands for either mark; of several, the first is the source's own, the others the reader's.
        stages = [(name, reader.name) for name in reversed(chain)]
        if len(stages) > 1:
            stages[0] = (stages[0][0], "")
        return _Edge(node, tuple((name, None if mark == "" else mark) for name, mark in stages))

    def _on(self, edge: _Edge, reader: Node, marks: Marks) -> tuple[str, ...]:
        own, all_readers = (edge.source.name, reader.name) in marks.edges, edge.source.name in marks.outputs
        if len(edge.stages) == 1:
            return (edge.stages[0][0],) if own or all_readers else ()
        return tuple(name for name, mark in edge.stages if (all_readers if mark is None else own))

    def _stripped(self, bare: GraphModule) -> GraphModule:
        """The captured student without its fake quantisers, with the same names."""
        for node in list(bare.graph.nodes):
            if node.op == "call_module" and (self._rounds(node) or self._on_grid(node)):
                node.replace_all_uses_with(node.all_input_nodes[0])
                bare.graph.erase_node(node)
        bare.recompile()
        return bare


class Run:
    """One batch through the student with every value kept, so that variants recompute what differs alone.

    Args:
        switches: the student.
        inputs: (B, ...) each.
        rounding: of this run; variants are told theirs.
    """

    def __init__(self, switches: Switches, inputs: tuple[Tensor, ...], rounding: Rounding) -> None:
        self._switches = switches
        self._rounding = rounding
        self._values: dict[Node, Any] = {}
        self._rounded: dict[tuple[Node, tuple[str, ...]], Any] = {}
        waiting = iter(inputs)
        with torch.no_grad():
            for node in switches._steps:
                if node.op == "placeholder":
                    self._values[node] = next(waiting)
                else:
                    self._values[node] = self._computed(node, rounding[node], self._values, self._rounded)

    @property
    def output(self) -> Tensor:
        """The student's first output, (B, ...)."""
        return _first(self._values[self._switches._steps[-1]])

    @property
    def bytes(self) -> int:
        """What the kept activations take."""
        kept = [*self._values.items(), *((node, value) for (node, _), value in self._rounded.items())]
        return sum(value.nbytes for node, value in kept if node.op != "get_attr" and isinstance(value, Tensor))

    def variant(self, rounding: Rounding) -> Tensor:
        """The first output under another rounding, (B, ...)."""
        values: dict[Node, Any] = {}
        rounded: dict[tuple[Node, tuple[str, ...]], Any] = {}
        with torch.no_grad():
            for node in self._switches._steps:
                edges = self._switches._edges[node]
                if rounding[node] != self._rounding[node] or any(edge.source in values for edge in edges.values()):
                    values[node] = self._computed(node, rounding[node], values, rounded)
        last = self._switches._steps[-1]
        return _first(values.get(last, self._values[last]))

    def _computed(
        self,
        node: Node,
        rounding: Mapping[Node, tuple[str, ...]],
        values: dict[Node, Any],
        rounded: dict[tuple[Node, tuple[str, ...]], Any],
    ) -> Any:
        graph = self._switches.graph
        edges = self._switches._edges[node]

        def given(argument: Node) -> Any:
            source, stages = edges[argument].source, () if node in self._switches._grids else rounding[argument]
            changed = source in values
            value = values[source] if changed else self._values[source]
            if not stages:
                return value
            key = (source, stages)
            kept = rounded if changed else self._rounded
            if key not in kept:
                for name in stages:
                    value = self._switches._fake[name](value)
                kept[key] = value
            return kept[key]

        if node.op == "get_attr":
            return operator.attrgetter(str(node.target))(graph)
        args, kwargs = map_arg(node.args, given), map_arg(node.kwargs, given)
        if node.op == "output":
            return args[0]
        if node in self._switches._grids and not all(rounding.values()):
            return args[0]
        if node.op == "call_module":
            return graph.get_submodule(str(node.target))(*args, **kwargs)
        assert node.op == "call_function"
        assert callable(node.target)
        return node.target(*args, **kwargs)


def _layer_of(grid: Node) -> Node:
    """The convolution or linear layer whose bias, or whose batch norm's shift, this node rounds."""
    reader = next(iter(grid.users))
    return reader.all_input_nodes[0] if reader.target is BATCH_NORM else reader


def _first(output: Any) -> Tensor:
    while isinstance(output, list | tuple):
        output = output[0]
    assert isinstance(output, Tensor)
    return output
