"""The walk over an ONNX graph: every operator once, in an order that can run, with its shapes, numbers and counts.

Functions of the model are walked where they are called. Control flow is counted with a bound that a note states: of an
If the more expensive branch, a Loop as often as it is known to run (else once), a Scan once per element of its
sequence.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from profiles import onnx_counters, onnx_shapes, onnx_values
from profiles.errors import ProfileError
from profiles.graph import Edge, Kind, Op, Weight
from profiles.onnx_file import check_tensor
from profiles.onnx_kinds import QUANTIZERS, SHAPES, plain_kind
from profiles.onnx_nodes import (
    FEW,
    MICROSOFT,
    STANDARD,
    Contradiction,
    Node,
    Shape,
    Value,
    check_rank,
    check_text,
    dtype_of,
    subgraphs,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto

INDEX = 64  # elements; longer integer tensors are data, not indices and shapes
LARGEST = 1 << 34  # elements of one tensor; above it the model is refused
UNROLLED = 2048  # operators; a loop that has more over all its rounds is walked once
EXPANDED = 50_000  # operators that calls of functions and rounds of loops may add
DEEPEST = 32  # graphs inside of each other

_Function = tuple[str, str, str]  # domain, name, overload
_NARROW = frozenset({"int8", "uint8", "int4", "uint4", "int2", "uint2", "float8", "float4"})


@dataclass
class Sink:
    """What the walk found."""

    ops: list[Op] = field(default_factory=list)
    edges: dict[str, Edge] = field(default_factory=dict)
    uncounted: Counter[str] = field(default_factory=Counter)
    idle: list[Weight] = field(default_factory=list)  # stored, and read by no operator that is counted
    notes: list[str] = field(default_factory=list)

    def add(self, other: "Sink") -> None:
        """Take over what another walk found."""
        self.ops += other.ops
        self.edges |= other.edges
        self.uncounted += other.uncounted
        self.idle += other.idle
        self.notes += other.notes


class Scope:
    """The names that one graph sees."""

    __slots__ = ("bound", "declared", "depth", "parent", "prefix", "renamed", "values")

    def __init__(self, parent: "Scope | None" = None, prefix: str = "", depth: int = 0) -> None:
        self.parent = parent
        self.prefix = prefix  # of the names of its tensors and operators
        self.depth = depth
        self.values: dict[str, Value | None] = {}
        self.renamed: dict[str, str] = {}  # results that carry the name they have outside
        self.declared: dict[str, ValueInfoProto] = {}
        self.bound: Mapping[str, AttributeProto] | None = None  # attributes of the function that this is the body of

    def find(self, name: str) -> Value | None:
        """The tensor of that name here or further out.

        Raises:
            KeyError: there is none.
        """
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.parent
        raise KeyError(name)

    def sees(self, name: str) -> bool:
        """Whether there is a tensor of that name here or further out."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return True
            scope = scope.parent
        return False


class Walk:
    """One reading of one model.

    Args:
        functions: the model's own, which may call each other but not themselves.
        symbols: sizes of named dimensions.
        folder: of the file; external data must lie inside. None: not from a file.
        skipped: stored tensors whose values were not read.
    """

    def __init__(
        self,
        functions: "Sequence[FunctionProto]" = (),
        symbols: Mapping[str, int] | None = None,
        folder: Path | None = None,
        skipped: frozenset[str] = frozenset(),
    ) -> None:
        self.functions = {_key(item): item for item in functions}
        self.symbols = symbols or {}
        self.folder = folder
        self.skipped = skipped
        self.sink = Sink()
        self._op_names: set[str] = set()
        self._left = EXPANDED
        self._repeats = 1
        self._copies = 1  # rounds of unrolled loops around the walk
        self._bounded: list[str] = []
        self._unknown: list[str] = []
        self._empty: list[str] = []
        for item in functions:
            check_text((item.name, item.domain, item.overload, *item.input, *item.output))
        if self.functions:
            _check_calls(self.functions)

    def graph(self, graph: "GraphProto", scope: Scope) -> list[Value | None]:
        """Walk a graph whose inputs are in the scope already; its outputs.

        Raises:
            ProfileError: the graph is damaged, or its shapes contradict each other.
        """
        check_text(item.name for item in (*graph.initializer, *graph.input, *graph.output, *graph.value_info))
        for tensor in graph.initializer:
            self._define(scope, tensor.name, self._stored(tensor, scope.prefix + tensor.name))
        for sparse in graph.sparse_initializer:
            name = sparse.values.name
            check_text([name])
            value = self._stored(sparse.values, scope.prefix + name)
            value.shape, value.data = tuple(sparse.dims), None
            self._define(scope, name, value)
        scope.declared = {item.name: item for item in graph.value_info}
        self.nodes([Node(proto, scope.bound) for proto in graph.node], graph.node, scope)
        return [self._output(item.name, scope) for item in graph.output]

    def _output(self, name: str, scope: Scope) -> Value | None:
        try:
            return scope.find(name)
        except KeyError:
            raise ProfileError(f"output {name!r} is made by no operator", fix="export the model again") from None

    def nodes(self, nodes: Sequence[Node], protos: "Sequence[NodeProto]", scope: Scope) -> None:
        """Walk operators, in the file's order where that can run."""
        made: set[str] = set()
        for node in nodes:
            if any(name and name not in made and not scope.sees(name) for name in node.inputs):
                nodes = _sorted(nodes, protos, scope)
                break
            made.update(node.outputs)
        for index, node in enumerate(nodes):
            operator = node.operator
            node.name = self._op_name(scope.prefix + (node.name or f"{operator}_{index}"), index)
            try:
                self._node(node, scope)
            except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
                if isinstance(error, UnicodeDecodeError):
                    raise
                raise ProfileError(
                    f"operator {node.name!r} ({operator}): {str(error).splitlines()[0] if str(error) else 'damaged'}",
                    fix="check the file with onnx.checker.check_model(path, full_check=True); a model that was "
                    "exported for one batch size can be read for that one alone",
                ) from error

    def _op_name(self, name: str, index: int) -> str:
        while name in self._op_names:
            name = f"{name}_{index}"
        self._op_names.add(name)
        return name

    def notes(self) -> tuple[str, ...]:
        """What whoever reads the counts has to know."""
        notes = list(dict.fromkeys(self.sink.notes))
        if self._bounded:
            notes.append(f"sizes that depend on values are counted at their largest: {_listed(self._bounded)}")
        if self._unknown:
            notes.append(
                f"the shapes behind {_listed(self._unknown)} are not known, and what they feed is counted without them"
            )
        if self._empty:
            notes.append(f"stored tensors without values are counted from their shapes: {_listed(self._empty)}")
        return tuple(notes)

    # -- values ----------------------------------------------------------------------------------------------------

    def _define(self, scope: Scope, name: str, value: Value | None) -> None:
        if name in scope.values:
            raise ProfileError(f"two tensors are called {name!r}", fix="export the model again")
        scope.values[name] = value

    def _stored(self, tensor: "TensorProto", name: str) -> Value:
        if not check_tensor(tensor, self.folder, bool(self.skipped) and tensor.name in self.skipped):
            self._empty.append(tensor.name)
        dtype = dtype_of(tensor.data_type)
        shape = tuple(tensor.dims)
        check_rank(shape, name)
        elements = prod(shape)
        value = Value(name, shape, dtype, (Weight(name, elements, dtype),))
        # Of floats, only what can be a scale of a resize or a bound of a range is worth decoding.
        if elements <= (16 if dtype.startswith("float") else FEW):
            value.data = onnx_values.stored(tensor, dtype)
        return value

    def flowing(self, name: str, shape: Shape | None, dtype: str) -> Value:
        """A tensor that flows, with its edge where its shape is known.

        Raises:
            ProfileError: it is larger than any device.
        """
        value = Value(name, shape, dtype)
        if shape is not None:
            self._edge(value)
        return value

    def _edge(self, value: Value) -> None:
        shape = value.shape
        assert shape is not None
        elements = prod(shape)
        if elements > LARGEST:
            raise ProfileError(
                f"tensor {value.name!r} has the shape {shape}, which no device here can hold",
                fix="check the model and the batch size",
            )
        if elements <= 0 and any(size < 0 for size in shape):
            raise Contradiction(f"makes a tensor of the shape {shape}")
        if value.name in self.sink.edges:
            raise ProfileError(f"two tensors are called {value.name!r}", fix="export the model again")
        self.sink.edges[value.name] = Edge(value.name, shape, value.dtype, elements)

    def _results(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value]:
        """The operator's outputs, not yet in the graph's edges. Unnamed ones have the name ""."""
        found = onnx_shapes.shapes(node, ins)
        first = ins[0] if ins else None
        results = []
        for index, name in enumerate(node.outputs):
            shape = found[index] if found is not None and index < len(found) else None
            dtype = onnx_shapes.dtype(node, ins, index) or (first.dtype if first is not None else "float32")
            if shape is None and name in scope.declared:
                shape, dtype = self.declared(scope.declared[name], dtype)
            if shape is not None and len(shape) > 8:
                check_rank(shape, name)
            results.append(Value(scope.renamed.get(name) or scope.prefix + name if name else "", shape, dtype))
        return results

    def declared(self, info: "ValueInfoProto", dtype: str) -> tuple[Shape | None, str]:
        """The shape and type that a file states for a tensor, as far as its dimensions are known."""
        kind = info.type.tensor_type
        if not kind.HasField("shape"):
            return None, dtype
        sizes = [self.symbols.get(dim.dim_param, -1) if dim.dim_param else dim.dim_value for dim in kind.shape.dim]
        known = kind.elem_type != 0 and dtype_of(kind.elem_type)
        unset = any(not dim.dim_param and not dim.HasField("dim_value") for dim in kind.shape.dim)
        return None if unset or any(size < 0 for size in sizes) else tuple(sizes), known or dtype

    def _bind(self, node: Node, results: Sequence[Value | None], scope: Scope) -> None:
        for name, value in zip(node.outputs, results, strict=False):
            if name:
                self._define(scope, name, value)

    # -- operators -------------------------------------------------------------------------------------------------

    def _node(self, node: Node, scope: Scope) -> None:
        ins: list[Value | None] = []
        for name in node.inputs:
            try:
                ins.append(scope.find(name) if name else None)
            except KeyError:
                raise Contradiction(f"reads {name!r}, which no operator makes") from None
        if self.functions:
            function = self._function(node)
            if function is not None:
                self._bind(node, self._call(function, node, ins, scope), scope)
                return
        if node.domain in STANDARD:
            handler = _HANDLERS.get(node.operator)
            if handler is not None:
                self._bind(node, handler(self, node, ins, scope), scope)
                return
        self._bind(node, self._plain(node, ins, scope), scope)

    def _plain(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value]:
        operator = node.operator
        known_domain = node.domain in STANDARD or node.domain in MICROSOFT
        results = self._results(node, ins, scope)
        given = [item for item in ins if item is not None]
        made = [value for value in results if value.name]
        if not made:
            return results
        onnx_values.evaluate(node, ins, results)
        if operator in onnx_shapes.BOUNDED and results[0].data is None and given and given[0].sources is None:
            self._bounded.append(f"{operator} {node.name!r}")
        if known_domain and (operator in SHAPES or all(item.sources is not None for item in given)):
            self._fold(node, ins, results)
            return results
        quantizer = operator in QUANTIZERS if known_domain else operator.endswith(("QuantizeLinear", "quantizeLinear"))
        if quantizer and ins and ins[0] is not None:
            self._quantizer(node, ins[0], results)
            return results
        if operator != "TopK" and all(_is_index(item) for item in made if item.dtype == "int64"):
            flowing = [item for item in given if item.sources is None]
            if all(item.dtype == "int64" and item.shape is not None for item in made) and all(map(_is_index, flowing)):
                self._fold(node, (), results)  # arithmetic on integer scalars and short vectors: indices and shapes
                return results
        for value in made:
            if value.shape is not None:
                self._edge(value)
        if any(value.shape is None for value in made) and all(item.shape is not None for item in given):
            self._unknown.append(f"{operator} {node.name!r}")
        op = onnx_counters.count(node, ins, results)
        if op is None:
            kind: Kind = plain_kind(operator) if known_domain else "other"
            if kind == "other":
                self.sink.uncounted[node.qualified] += 1
            edges_in = tuple(item.name for item in given if item.sources is None and item.shape is not None)
            edges_out = tuple(value.name for value in made if value.shape is not None)
            stored = onnx_counters.weights_of(given)
            int8 = operator.startswith("QLinear")
            window, steps = onnx_counters.windows(node) if kind == "pool" else ((), ())
            op = Op(
                node.name, operator, kind, edges_in, edges_out, weights=stored, int8=int8, window=window, strides=steps
            )
            if kind in ("view", "copy") or operator == "MaxPool":
                op = self._spread_codes(op, given, made)
        self.emit(op)
        return results

    def emit(self, op: Op) -> None:
        """Add an operator, as often as the loops around it run it.

        One that makes nothing of a known shape has no bytes and no time to cost: it is listed as uncounted, and what
        it stores stays with the graph.
        """
        if not op.outputs:
            if op.kind != "other":  # those are listed already
                self.sink.uncounted[op.operator] += 1
            self.sink.idle += op.weights
            return
        if self._repeats != 1:
            op = replace(op, macs=op.macs * self._repeats, repeats=self._repeats)
        self.sink.ops.append(op)

    def _fold(self, node: Node, ins: Sequence[Value | None], results: Sequence[Value]) -> None:
        """The results are known when the model is loaded; they stand for the stored tensors they come from."""
        given = [item for item in ins if item is not None]
        codes = any(item.codes for item in given)
        sources: tuple[Weight, ...] = ()
        if node.operator in QUANTIZERS and given:
            sources = given[0].sources or ()  # not its scales and zero points
            codes = (results[0].dtype if node.operator == "QuantizeLinear" else given[0].dtype) in _NARROW
            if node.operator == "QuantizeLinear":
                sources = tuple(Weight(item.name, item.elements, results[0].dtype, item.bias) for item in sources)
        elif node.operator not in SHAPES:
            sources = tuple(dict.fromkeys(weight for item in given for weight in item.sources or ()))
        for value in results:
            value.sources, value.codes = sources, codes

    def _quantizer(self, node: Node, source: Value, results: Sequence[Value]) -> None:
        result = results[0]
        for value in results:
            if value.shape is None and value is result:
                value.shape = source.shape
            if value.name and value.shape is not None:
                self._edge(value)
        edges_in = (source.name,) if source.sources is None and source.shape is not None else ()
        made = tuple(value.name for value in results if value.name and value.shape is not None)
        undo = node.operator.lower().endswith("dequantizelinear")
        self.emit(Op(node.name, node.operator, "dequantize" if undo else "quantize", edges_in, made))
        result.codes = undo and source.dtype in _NARROW

    def _spread_codes(self, op: Op, given: Sequence[Value], made: Sequence[Value]) -> Op:
        """Operators that only move values keep their codes (Q commutes with them): the runtime moves one byte each."""
        flowing = [item for item in given if item.sources is None and item.shape is not None]
        if not flowing or not all(item.codes for item in flowing):
            return op
        for value in made:
            value.codes = True
            known = self.sink.edges.get(value.name)
            if known is not None:
                self.sink.edges[value.name] = replace(known, dtype="int8")
        return replace(op, int8=True)

    # -- functions and graphs inside of graphs ---------------------------------------------------------------------

    def _function(self, node: Node) -> "FunctionProto | None":
        domain = "" if node.domain == "ai.onnx" else node.domain
        found = self.functions.get((domain, node.operator, node.overload))
        return found if found is not None else self.functions.get((domain, node.operator, ""))

    def _call(
        self, function: "FunctionProto", node: Node, ins: Sequence[Value | None], scope: Scope
    ) -> list[Value | None]:
        inner = self._inner(None, node, scope)
        inner.bound = {**{item.name: item for item in function.attribute_proto}, **node.attributes}
        for name, value in zip(function.input, [*ins, *[None] * len(function.input)], strict=False):
            self._define(inner, name, value)
        inner.renamed = _outside_names(function.output, node, scope)
        inner.declared = {item.name: item for item in function.value_info}
        self._spend(len(function.node))
        self.nodes([Node(proto, inner.bound) for proto in function.node], function.node, inner)
        return [self._output(name, inner) for name in function.output]

    def _inner(self, parent: Scope | None, node: Node, scope: Scope, part: str = "") -> Scope:
        if scope.depth >= DEEPEST:
            raise ProfileError(
                f"operator {node.name!r} is inside of {scope.depth} graphs and functions", fix="export the model again"
            )
        inner = Scope(parent, f"{node.name}{part}/", scope.depth + 1)
        if parent is not None:
            inner.bound = parent.bound
        return inner

    def _spend(self, operators: int) -> None:
        self._left -= operators
        if self._left < 0:
            raise ProfileError(
                f"functions and loops make more than {EXPANDED} operators of this model",
                fix="export it without functions and with fewer rounds",
            )

    def _body(
        self,
        graph: "GraphProto",
        node: Node,
        given: Sequence[Value | None],
        scope: Scope,
        part: str = "",
        named: bool = True,
    ) -> list[Value | None]:
        """Walk a graph among an operator's attributes."""
        inner = self._inner(scope, node, scope, part)
        if len(given) != len(graph.input):
            raise Contradiction(f"its graph takes {len(graph.input)} inputs and gets {len(given)}")
        for item, value in zip(graph.input, given, strict=True):
            self._define(inner, item.name, value)
        if named:
            inner.renamed = _outside_names([item.name for item in graph.output], node, scope)
        self._spend(len(graph.node))
        return self.graph(graph, inner)

    def _if(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        condition = ins[0] if ins else None
        branches = (node.graph("then_branch"), node.graph("else_branch"))
        if condition is not None and condition.data is not None and condition.data.size == 1:
            return self._body(branches[0 if condition.data.reshape(()) else 1], node, (), scope)
        outer, walked = self.sink, []
        try:
            for branch in branches:
                self.sink = Sink()
                results = self._body(branch, node, (), scope)
                walked.append((self.sink, results))
        finally:
            self.sink = outer
        macs = [sum(op.macs for op in sink.ops) for sink, _ in walked]
        chosen = max((0, 1), key=lambda index: (macs[index], len(walked[index][0].ops), -index))
        sink, results = walked[chosen]
        outer.add(sink)
        outer.idle += [weight for op in walked[1 - chosen][0].ops for weight in op.weights]
        outer.idle += walked[1 - chosen][0].idle
        names = ("then", "else")
        outer.notes.append(
            f"If {node.name!r}: counted the {names[chosen]} branch, {macs[chosen]} MACs; the other has "
            f"{macs[1 - chosen]}"
        )
        return results

    def _loop(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        body = node.graph("body")
        states = list(ins[2:])
        rounds = _scalar(ins[0]) if ins else None
        if len(ins) > 1 and ins[1] is not None and ins[1].data is not None and not ins[1].data.all():
            rounds = 0
        if len(body.output) != len(node.outputs) + 1 or len(states) > len(node.outputs):
            raise Contradiction(f"its graph makes {len(body.output)} outputs for {len(node.outputs)}")
        rounds = None if rounds is None else max(rounds, 0)
        if rounds is not None and self._copies * rounds * max(_size(body), 1) <= UNROLLED:
            return self._unrolled(node, body, states, rounds, scope)
        times = 1 if rounds is None else rounds
        before = self._repeats
        self._repeats *= times
        try:
            given = [_constant(node.name + "/i", "int64"), _constant(node.name + "/c", "bool", 1), *states]
            results = self._body(body, node, given, scope, named=False)[1:]
        finally:
            self._repeats = before
        said = "a number of times that is not known: counted once" if rounds is None else f"{rounds} times"
        self.sink.notes.append(f"Loop {node.name!r} runs {said}")
        if any(_shape(a) != _shape(b) for a, b in zip(states, results, strict=False)):
            self.sink.notes.append(
                f"Loop {node.name!r} carries tensors that grow: counted with the sizes they begin with"
            )
        scans = [
            self._stacked(f"{scope.prefix}{name}", [value], times) if name else None
            for name, value in zip(node.outputs[len(states) :], results[len(states) :], strict=True)
        ]
        return [*results[: len(states)], *scans]

    def _unrolled(
        self, node: Node, body: "GraphProto", states: list[Value | None], rounds: int, scope: Scope
    ) -> list[Value | None]:
        import numpy as np

        scans: list[list[Value | None]] = [[] for _ in node.outputs[len(states) :]]
        condition: Value | None = _constant(node.name + "/c", "bool", 1)
        copies = self._copies
        for index in range(rounds):
            self._copies = copies * rounds
            number = _constant(f"{node.name}/{index}/i", "int64")
            number.data = np.array(index)
            results = self._body(body, node, [number, condition, *states], scope, f"/{index}", named=False)
            condition = results[0]
            states = results[1 : 1 + len(states)]
            for scan, value in zip(scans, results[1 + len(states) :], strict=True):
                scan.append(value)
            if condition is not None and condition.data is not None and not condition.data.all():
                break
            if condition is not None and condition.sources is None:
                self.sink.notes.append(f"Loop {node.name!r} may stop early: counted {rounds} times, which is the most")
        self._copies = copies
        stacked = [
            self._stacked(scope.prefix + name, scan, 1) if name else None
            for name, scan in zip(node.outputs[len(states) :], scans, strict=True)
        ]
        return [*states, *stacked]

    def _stacked(self, name: str, parts: Sequence[Value | None], times: int, axis: int = 0) -> Value:
        """What a loop collects: its rounds' results one behind the other."""
        first = next((part for part in parts if part is not None), None)
        shape = None
        if first is not None and first.shape is not None:
            place = onnx_shapes.axis_of(axis, len(first.shape) + 1)
            shape = (*first.shape[:place], len(parts) * times, *first.shape[place:])
        dtype = first.dtype if first is not None else "float32"
        if all(part is not None and part.sources is not None for part in parts):  # known when the model is loaded
            sources = (weight for part in parts if part is not None for weight in part.sources or ())
            return Value(name, shape, dtype, tuple(dict.fromkeys(sources)))
        value = self.flowing(name, shape, dtype)
        edges = tuple(
            part.name for part in parts if part is not None and part.sources is None and part.shape is not None
        )
        self.emit(Op(self._op_name(f"{name}/stack", 0), "Concat", "copy", edges, (name,) if shape is not None else ()))
        return value

    def _scan(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        body, count = node.graph("body"), node.integer("num_scan_inputs", 0)
        if count < 1 or count > len(ins) or len(body.output) != len(node.outputs):
            raise Contradiction(f"{count} sequences among {len(ins)} inputs")
        if len(ins) == len(body.input) + 1:  # opset 8: over a batch of sequences with lengths of their own
            self.sink.uncounted["Scan"] += 1
            return [Value(scope.prefix + name, None, "float32") for name in node.outputs]
        states, sequences = list(ins[:-count]), ins[-count:]
        axes = node.integers("scan_input_axes") or (0,) * count
        length: int | None = None
        slices: list[Value | None] = []
        for index, (sequence, axis) in enumerate(zip(sequences, axes, strict=True)):
            if sequence is None or sequence.shape is None:
                slices.append(Value(f"{node.name}/slice_{index}", None, "float32"))
                continue
            place = onnx_shapes.axis_of(axis, len(sequence.shape))
            if length not in (None, sequence.shape[place]):
                raise Contradiction(f"sequences of {length} and {sequence.shape[place]} elements")
            length = sequence.shape[place]
            slices.append((sequence, place))  # type: ignore[arg-type]
        before = self._repeats
        self._repeats *= 1 if length is None else length
        try:
            given = [
                self._slice(node, index, *item) if isinstance(item, tuple) else item
                for index, item in enumerate(slices)
            ]
            results = self._body(body, node, [*states, *given], scope, named=False)
        finally:
            self._repeats = before
        said = "a number of times that is not known: counted once" if length is None else f"{length} times"
        self.sink.notes.append(f"Scan {node.name!r} runs {said}")
        placed = node.integers("scan_output_axes") or (0,) * len(node.outputs)
        scans = [
            self._stacked(scope.prefix + name, [value], 1 if length is None else length, axis) if name else None
            for name, value, axis in zip(node.outputs[len(states) :], results[len(states) :], placed, strict=False)
        ]
        return [*results[: len(states)], *scans]

    def _slice(self, node: Node, index: int, sequence: Value, axis: int) -> Value:
        assert sequence.shape is not None
        name = f"{node.name}/slice_{index}"
        shape = (*sequence.shape[:axis], *sequence.shape[axis + 1 :])
        if sequence.sources is not None:
            return Value(name, shape, sequence.dtype, sequence.sources)
        value = self.flowing(name, shape, sequence.dtype)
        self.emit(Op(self._op_name(f"{name}/op", 0), "Slice", "copy", (sequence.name,), (name,)))
        return value

    # -- sequences and optional values -----------------------------------------------------------------------------

    def _sequence_construct(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        return [_sequence(scope.prefix + node.outputs[0], [item for item in ins if item is not None])]

    def _sequence_empty(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        return [_sequence(scope.prefix + node.outputs[0], [])]

    def _sequence_insert(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        items, item = list(_items(ins)), ins[1]
        assert item is not None
        place = _scalar(ins[2]) if len(ins) > 2 else len(items)
        items.insert(len(items) if place is None else place, item)
        return [_sequence(scope.prefix + node.outputs[0], items)]

    def _sequence_erase(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        items = list(_items(ins))
        place = _scalar(ins[1]) if len(ins) > 1 else -1
        if items:
            items.pop(-1 if place is None else place)
        return [_sequence(scope.prefix + node.outputs[0], items)]

    def _sequence_at(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        items, place = _items(ins), _scalar(ins[1])
        if place is not None and items:
            return [items[place]]
        name = scope.prefix + node.outputs[0]
        shapes = {item.shape for item in items}
        shape = shapes.pop() if len(shapes) == 1 else None
        value = self.flowing(name, shape, items[0].dtype if items else "float32")
        edges = tuple(item.name for item in items[:1] if item.sources is None and item.shape is not None)
        self.emit(Op(node.name, node.operator, "copy", edges, (name,) if shape is not None else ()))
        if shape is None:
            self._unknown.append(f"{node.operator} {node.name!r}")
        return [value]

    def _sequence_length(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        import numpy as np

        value = _constant(scope.prefix + node.outputs[0], "int64")
        value.data = np.array(len(_items(ins)))
        return [value]

    def _split_to_sequence(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        source = ins[0]
        assert source is not None
        name = scope.prefix + node.outputs[0]
        if source.shape is None:
            return [Value(name, None, source.dtype)]
        axis = onnx_shapes.axis_of(node.integer("axis", 0), len(source.shape))
        given = onnx_shapes.numbers(ins, 1)
        size, keep = source.shape[axis], 1
        if given is None:
            if len(ins) > 1 and ins[1] is not None:
                self._unknown.append(f"{node.operator} {node.name!r}")
                return [Value(name, None, source.dtype)]
            parts, keep = [1] * min(size, FEW + 1), node.integer("keepdims", 1)
        elif ins[1] is not None and ins[1].shape == ():
            if given[0] < 1:
                raise Contradiction(f"parts of {given[0]}")
            whole = min(size // given[0], FEW + 1)
            parts = [given[0]] * whole + ([size % given[0]] if size % given[0] else [])
        else:
            parts = given
        if len(parts) > FEW:
            raise Contradiction(f"{len(parts)} parts")
        rest = source.shape[axis + 1 :]
        shapes = [(*source.shape[:axis], *((part,) if keep else ()), *rest) for part in parts]
        if source.sources is not None:
            return [
                _sequence(name, [Value(f"{name}/{i}", s, source.dtype, source.sources) for i, s in enumerate(shapes)])
            ]
        items = [self.flowing(f"{name}/{index}", shape, source.dtype) for index, shape in enumerate(shapes)]
        self.emit(Op(node.name, node.operator, "copy", (source.name,), tuple(item.name for item in items)))
        return [_sequence(name, items)]

    def _concat_from_sequence(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        items = _items(ins)
        name = scope.prefix + node.outputs[0]
        shapes = [item.shape for item in items if item.shape is not None]
        shape: Shape | None = None
        if items and len(shapes) == len(items):
            if node.integer("new_axis", 0):
                place = onnx_shapes.axis_of(node.integer("axis", 0), len(shapes[0]) + 1)
                shape = (*shapes[0][:place], len(items), *shapes[0][place:])
            else:
                place = onnx_shapes.axis_of(node.integer("axis", 0), len(shapes[0]))
                shape = (*shapes[0][:place], sum(item[place] for item in shapes), *shapes[0][place + 1 :])
        else:
            self._unknown.append(f"{node.operator} {node.name!r}")
        value = self.flowing(scope.renamed.get(node.outputs[0], name), shape, items[0].dtype if items else "float32")
        edges = tuple(item.name for item in items if item.sources is None and item.shape is not None)
        self.emit(Op(node.name, node.operator, "copy", edges, (value.name,) if shape is not None else ()))
        return [value]

    def _sequence_map(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        body, items = node.graph("body"), _items(ins)
        if not items:
            self.sink.notes.append(f"SequenceMap {node.name!r} runs a number of times that is not known: not counted")
            return [Value(scope.prefix + name, None, "float32") for name in node.outputs]
        results: list[list[Value]] = [[] for _ in node.outputs]
        for index in range(len(items)):
            given = [
                item.items[index] if item is not None and item.items is not None and index < len(item.items) else item
                for item in ins
            ]
            made = self._body(body, node, given, scope, f"/{index}", named=False)
            for collected, value in zip(results, made, strict=False):
                if value is not None:
                    collected.append(value)
        self.sink.notes.append(f"SequenceMap {node.name!r} runs {len(items)} times")
        return [_sequence(scope.prefix + name, found) for name, found in zip(node.outputs, results, strict=True)]

    def _optional(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        return [ins[0] if ins else None]

    def _optional_has(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        there = bool(ins) and ins[0] is not None
        return [_constant(scope.prefix + node.outputs[0], "bool", int(there))]

    def _constant_node(self, node: Node, ins: Sequence[Value | None], scope: Scope) -> list[Value | None]:
        name = scope.prefix + node.outputs[0]
        tensor = node.tensor("value")
        if tensor is not None:
            value = self._stored(tensor, name)
            value.sources = (Weight(name, prod(tensor.dims), value.dtype),)
            return [value]
        if "sparse_value" in node.attributes:
            sparse = node.attributes["sparse_value"].sparse_tensor
            value = self._stored(sparse.values, name)
            value.shape, value.data = tuple(sparse.dims), None
            return [value]
        data = onnx_values.constant(node)
        if data is None:
            return [Value(name, (), "string", ())]
        dtype = "int64" if data.dtype.kind == "i" else "float32"
        value = Value(name, data.shape, dtype, (Weight(name, data.size, dtype),))
        value.data = data if data.size <= FEW else None
        return [value]


_Handler = Callable[[Walk, Node, Sequence[Value | None], Scope], list[Value | None]]
_HANDLERS: Mapping[str, _Handler] = {
    "ConcatFromSequence": Walk._concat_from_sequence,
    "Constant": Walk._constant_node,
    "If": Walk._if,
    "Loop": Walk._loop,
    "Optional": Walk._optional,
    "OptionalGetElement": Walk._optional,
    "OptionalHasElement": Walk._optional_has,
    "Scan": Walk._scan,
    "SequenceAt": Walk._sequence_at,
    "SequenceConstruct": Walk._sequence_construct,
    "SequenceEmpty": Walk._sequence_empty,
    "SequenceErase": Walk._sequence_erase,
    "SequenceInsert": Walk._sequence_insert,
    "SequenceLength": Walk._sequence_length,
    "SequenceMap": Walk._sequence_map,
    "SplitToSequence": Walk._split_to_sequence,
}


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"


def _key(function: "FunctionProto") -> _Function:
    return ("" if function.domain == "ai.onnx" else function.domain, function.name, function.overload)


def _is_index(value: Value) -> bool:
    return value.shape is not None and value.dtype in ("int64", "int32", "bool") and prod(value.shape) <= INDEX


def _scalar(value: Value | None) -> int | None:
    return int(value.data.reshape(-1)[0]) if value is not None and value.data is not None and value.data.size else None


def _shape(value: Value | None) -> Shape | None:
    return None if value is None else value.shape


def _constant(name: str, dtype: str, data: int | None = None) -> Value:
    """A scalar that is not stored."""
    import numpy as np

    value = Value(name, (), dtype, ())
    value.data = None if data is None else np.array(data)
    return value


def _sequence(name: str, items: Sequence[Value]) -> Value:
    value = Value(name, None, items[0].dtype if items else "float32")
    value.items = tuple(items)
    return value


def _items(ins: Sequence[Value | None]) -> tuple[Value, ...]:
    first = ins[0]
    return first.items if first is not None and first.items is not None else ()


def _outside_names(inside: Sequence[str], node: Node, scope: Scope) -> dict[str, str]:
    """Names that a body's results get: those of the operator's outputs."""
    return {
        name: scope.renamed.get(outer) or scope.prefix + outer
        for name, outer in zip(inside, node.outputs, strict=False)
        if outer
    }


def _size(graph: "GraphProto") -> int:
    """Operators of a graph and of the graphs in it."""
    return sum(1 + sum(map(_size, subgraphs(node))) for node in graph.node)


def _sorted(nodes: Sequence[Node], protos: "Sequence[NodeProto]", scope: Scope) -> list[Node]:
    """The operators in an order that can run.

    Raises:
        ProfileError: there is none, because operators wait for each other; or an input is made by nothing.
    """
    maker: dict[str, int] = {}
    for index, node in enumerate(nodes):
        for name in node.outputs:
            if name:
                maker.setdefault(name, index)
    waits = [0] * len(nodes)
    readers: list[list[int]] = [[] for _ in nodes]
    for index, (node, proto) in enumerate(zip(nodes, protos, strict=True)):
        for name in {*node.inputs, *_captured(proto)}:
            source = maker.get(name)
            if source is not None:
                waits[index] += 1
                readers[source].append(index)
            elif name in node.inputs and name and not scope.sees(name):
                raise ProfileError(
                    f"operator {node.name or node.operator!r} reads {name!r}, which no operator makes",
                    fix="export the model again",
                )
    ready = [index for index, count in enumerate(waits) if not count]
    order: list[int] = []
    for index in ready:  # it grows while it is walked
        order.append(index)
        for reader in readers[index]:
            waits[reader] -= 1
            if not waits[reader]:
                ready.append(reader)
    if len(order) < len(nodes):
        stuck = next(index for index, count in enumerate(waits) if count)
        raise ProfileError(
            f"the graph has a cycle: operator {nodes[stuck].name or nodes[stuck].operator!r} waits for its own result",
            fix="export the model again",
        )
    return [nodes[index] for index in order]


def _captured(proto: "NodeProto", depth: int = 0) -> "Iterator[str]":
    """Names that the graphs among an operator's attributes read; some of them are their own."""
    if depth > DEEPEST:
        return
    for graph in subgraphs(proto):
        for node in graph.node:
            yield from node.input
            yield from _captured(node, depth + 1)
        for item in graph.output:
            yield item.name


def _check_calls(functions: "Mapping[_Function, FunctionProto]") -> None:
    """Refuse functions that call themselves, directly or in a circle, or that make too many operators of a call."""
    sizes: dict[_Function, int] = {}
    open_calls: dict[_Function, None] = {}

    def size_of_nodes(nodes: "Sequence[NodeProto]", depth: int) -> int:
        total = 0
        for node in nodes:
            key = ("" if node.domain == "ai.onnx" else node.domain, node.op_type, node.overload)
            key = key if key in functions else (key[0], key[1], "")
            total += size(key, depth + 1) if key in functions else 1
            total += sum(size_of_nodes(graph.node, depth + 1) for graph in subgraphs(node))
        return total

    def size(key: _Function, depth: int) -> int:
        known = sizes.get(key)
        if known is not None:
            return known
        if key in open_calls or depth > 2 * DEEPEST:
            raise ProfileError(f"function {key[1]!r} calls itself", fix="export the model without functions")
        open_calls[key] = None
        found = size_of_nodes(functions[key].node, depth)
        del open_calls[key]
        if found > EXPANDED:
            raise ProfileError(
                f"one call of function {key[1]!r} makes {found} operators", fix="export the model without functions"
            )
        sizes[key] = found
        return found

    for key in functions:
        size(key, 0)


def numbers_of(array: "NDArray[Any]") -> "NDArray[Any] | None":
    """An example's values, where they are integers and few enough to be sizes."""
    return array if array.dtype.kind in "iub" and array.size <= FEW else None
