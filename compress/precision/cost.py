"""What a student costs on its target in a given assignment of precisions, without writing it to a file first.

A converted student is read as `profiles` reads torch modules, and its quantize/dequantize calls, which that reader
takes for views, become what the ONNX reader makes of Q/DQ nodes. So whole assignments are costed in milliseconds, with
fusing and the conversions at the borders of float layers counted; the exported file is costed again when the run is
verified.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.fx import GraphModule, Node

import profiles
from compress.precision.layers import Layer, every_module, layers
from compress.qat import prepare as qat
from compress.qat.prepared import Prepared
from profiles.cost import Cost, Precision
from profiles.graph import HEAVY, Edge, Graph, Op
from profiles.target import Target

PICOSECONDS = 1e9  # in a millisecond
FLOATS: Mapping[str, tuple[Precision, ...]] = {"nvidia-gpu": ("fp16", "fp32"), "x86-cpu": ("fp32",)}
"""Family -> the float precisions that compete with int8 there. Microcontrollers run integers: none."""
_ROUNDING = {"quantize_per_tensor": "quantize", "dequantize_per_tensor": "dequantize"}
# Rules of fusing and latency models know operators by their names in ONNX.
_IN_ONNX = {
    "quantize_per_tensor": "QuantizeLinear", "dequantize_per_tensor": "DequantizeLinear",
    "convolution": "Conv", "addmm": "Gemm", "mm": "MatMul", "bmm": "MatMul", "baddbmm": "MatMul",
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "cat": "Concat",
    "relu": "Relu", "hardtanh": "Clip", "clamp": "Clip", "clamp_min": "Clip",
    "max_pool2d_with_indices": "MaxPool", "max_pool1d_with_indices": "MaxPool", "max_pool3d_with_indices": "MaxPool",
    "permute": "Transpose", "pixel_shuffle": "DepthToSpace", "pixel_unshuffle": "SpaceToDepth",
}  # fmt: skip
TABLES = frozenset({"embedding"})
"""Lookups: they compute nothing, but have weights that precisions store differently."""
_TORCH_TYPES = {"fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class LayerCosts:
    """One layer in the precisions that its target has.

    Attributes:
        latency_ms: precision -> time of the kernels that the layer is the core of; absent where they are not known.
        weight_bytes: precision -> bytes of its weights and biases.
    """

    layer: Layer
    latency_ms: Mapping[str, float]
    weight_bytes: Mapping[str, int]


class Pricer:
    """Costs of one student's assignments on one target, kept.

    Args:
        student: the float student.
        example: a few raw inputs of the training split.
        target: what it runs on.
        quantizer: file of compress/qat.
        float_modules: what always stays in float.
    """

    def __init__(
        self,
        student: nn.Module,
        example: tuple[Tensor, ...],
        target: Target,
        quantizer: str,
        float_modules: tuple[str, ...] = ("frontend",),
    ) -> None:
        self._student, self._example, self._target, self._quantizer = student, example, target, quantizer
        self._float_modules = float_modules
        self._known: dict[tuple[tuple[str, ...], str], Cost] = {}
        self._floats: Graph | None = None
        self._integers: Prepared | None = (
            None  # every layer quantised: capturing a student takes longer than costing it
        )

    def assignment(self, modules: tuple[str, ...] = (), float_precision: Precision = "fp32") -> Cost:
        """int8 with `modules` in float; what is float runs in `float_precision`."""
        key = (tuple(sorted(modules)), float_precision)
        if key not in self._known:
            graph = self._graph(self._prepared(modules))
            if float_precision in _TORCH_TYPES:
                graph = narrowed(graph, _TORCH_TYPES[float_precision])
            self._known[key] = profiles.profile(graph, target=self._target)
        return self._known[key]

    def floating(self, precision: Precision) -> Cost:
        """The whole student in one float precision."""
        key = (("",), f"all {precision}")
        if key not in self._known:
            if self._floats is None:
                self._floats = self._graph(self._prepared(every_module(self._prepared(()))))
            self._known[key] = profiles.profile(self._floats, target=self._target, precision=precision)
        return self._known[key]

    def by_layer(self) -> tuple[LayerCosts, ...]:
        """Every layer in int8 and in the target's float precisions, from whole networks in each."""
        whole = {"int8": self.assignment()} | {
            precision: self.floating(precision) for precision in FLOATS.get(self._target.family, ())
        }
        return tuple(_layer_costs(layer, whole) for layer in layers(self._prepared(())))

    def _prepared(self, modules: tuple[str, ...]) -> Prepared:
        if not modules and self._integers is not None:
            return self._integers
        prepared = qat.prepare(
            self._student, self._example, self._quantizer, float_modules=(*self._float_modules, *modules)
        )
        qat.calibrate(prepared, [self._example])
        if not modules:
            self._integers = prepared
        return prepared

    def _graph(self, prepared: Prepared) -> Graph:
        converted = qat.convert(prepared)
        assert isinstance(converted, GraphModule)
        return graph_of(converted, self._example)


def graph_of(converted: GraphModule, example: tuple[Tensor, ...]) -> Graph:
    """The graph of a converted student at batch 1, as its ONNX file would be read.

    Args:
        converted: what `qat.convert` returned.
        example: inputs, (B, ...) each.

    Returns:
        Operators with weights, and products, are called as their nodes in the captured student are.
    """
    graph = profiles.read(converted, 1, tuple(example))
    names = _names(converted, graph)
    made: dict[str, Op] = {}
    ops = []
    for op in graph.ops:
        if op.operator in _ROUNDING:
            op = replace(op, kind=_ROUNDING[op.operator])  # type: ignore[arg-type]
        elif op.kind == "pool":
            op = replace(op, outputs=op.outputs[:1])  # a max-pool gives the places of its results too
        elif op.operator == "mean" and _leaves_channels(graph.edges[op.inputs[0]], graph.edges[op.outputs[0]]):
            op = replace(op, operator="GlobalAveragePool", kind="pool")
        elif op.kind in HEAVY:
            weights = tuple(item for item in op.weights if not item.name.startswith(("_scale_", "_zero_point_")))
            coded = all(_from_codes(made, name) for name in op.inputs)
            stored = [item for item in weights if not item.bias]
            whole = coded and all(item.dtype in ("int8", "uint8") for item in stored)
            op = replace(op, name=names.get(op.name, op.name), weights=weights, int8=whole)
        elif op.operator in TABLES:
            op = replace(op, name=names.get(op.name, op.name))
        op = replace(op, operator=_IN_ONNX.get(op.operator, op.operator))
        ops.append(op)
        made |= {name: op for name in op.outputs}
    return replace(graph, ops=tuple(ops))


def narrowed(graph: Graph, dtype: str) -> Graph:
    """The same graph with "float32" tensors and weights in a narrower type; biases of int8 layers stay.

    Args:
        dtype: "float16" or "bfloat16".
    """

    def edge(item: Edge) -> Edge:
        return replace(item, dtype=dtype) if item.dtype == "float32" else item

    def op(item: Op) -> Op:
        if item.int8 or not item.weights:
            return item
        return replace(
            item,
            weights=tuple(
                replace(weight, dtype=dtype) if weight.dtype == "float32" else weight for weight in item.weights
            ),
        )

    return replace(
        graph, ops=tuple(op(item) for item in graph.ops), edges={name: edge(item) for name, item in graph.edges.items()}
    )


def _leaves_channels(source: Edge, made: Edge) -> bool:
    """Whether every dimension behind (batch, channel) was averaged away."""
    return len(source.shape) > 2 and made.elements == source.shape[0] * source.shape[1]


def _from_codes(made: Mapping[str, Op], name: str) -> bool:
    """Whether a tensor comes from codes, moved at most."""
    while name in made:
        op = made[name]
        if op.kind == "dequantize":
            return True
        if op.kind != "view" or len(op.inputs) != 1:
            return False
        name = op.inputs[0]
    return False


def _names(converted: GraphModule, graph: Graph) -> dict[str, str]:
    """Heavy operator -> the captured node that it comes from: by its weight, products of two tensors by their order."""
    by_weight: dict[str, str] = {}
    products: list[str] = []
    for node in converted.graph.nodes:
        if node.op != "call_function" or not str(node.target).startswith("aten."):
            continue
        lookup = str(node.target).split(".")[1] in TABLES  # its weights are its first argument
        sources = node.all_input_nodes[:1] if lookup else node.all_input_nodes[1:]
        stored = [name for source in sources if (name := _stored(source)) is not None]
        if stored:
            for name in stored:
                by_weight.setdefault(name, node.name)
        elif str(node.target).split(".")[1] in ("matmul", "bmm", "mm"):
            products.append(node.name)
    names = {}
    unnamed = []
    for op in graph.ops:
        if op.kind in HEAVY or op.operator in TABLES:
            found = next((by_weight[item.name] for item in op.weights if item.name in by_weight), None)
            if found is not None:
                names[op.name] = found
            elif op.kind == "matmul":
                unnamed.append(op.name)
    if len(unnamed) == len(products):  # attention may be two products of one node: then none is named
        names |= dict(zip(unnamed, products, strict=True))
    return names


def _stored(node: Node) -> str | None:
    while node.op == "call_function" and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return str(node.target) if node.op == "get_attr" else None


def _layer_costs(layer: Layer, whole: Mapping[str, Cost]) -> LayerCosts:
    kernels = {name: [item for item in cost.layers if item.name in layer.nodes] for name, cost in whole.items()}
    return LayerCosts(
        layer,
        {name: sum(item.latency_ms for item in mine) for name, mine in kernels.items() if mine},
        {name: sum(item.weight_bytes for item in mine) for name, mine in kernels.items() if mine},
    )


__all__ = ["FLOATS", "PICOSECONDS", "LayerCosts", "Pricer", "graph_of", "narrowed"]
