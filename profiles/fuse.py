"""The kernels that a device's runtime runs for a graph, with their work and their traffic.

`profiles.grouping` says which operators run together; here are the numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from profiles.cost import Precision
from profiles.graph import BITS, FLOATS, HEAVY, Edge, Graph, Kind, Op, Weight
from profiles.grouping import MICROCONTROLLERS, Group, Grouping, group, prepared

KernelKind = Literal[
    "dense",
    "depthwise",
    "grouped",
    "gemm",
    "matmul",
    "recurrent",
    "fft",
    "pointwise",
    "pool",
    "reduce",
    "norm",
    "softmax",
    "resize",
    "copy",
    "other",
]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch (or one function call) of the runtime."""

    name: str
    kind: KernelKind
    operators: tuple[str, ...]  # fused into it, in order
    macs: int
    depth: int  # K: multiply-accumulates per output element
    channels: int  # of the output; 0 where the kind has none
    elements: int  # of all outputs
    weights: tuple[Weight, ...]
    reads: tuple[str, ...]  # buffers
    writes: tuple[str, ...]
    read_bytes: int
    written_bytes: int
    weight_bytes: int
    precision: Precision
    vector_elements: int  # elements that pointwise operators fused into it touch
    groups: int = 1  # of a convolution
    window: tuple[int, ...] = ()  # extent per axis of a convolution's kernel or a pool's window; () where unknown
    strides: tuple[int, ...] = ()  # steps per axis of that window; () where unknown
    shape: tuple[int, ...] = ()  # of the first output
    source: tuple[int, ...] = ()  # shape of the first input
    repeats: int = 1  # runs in one forward pass; macs is of all of them, bytes and elements are of one
    coded: bool = False  # its operands come as int8 codes, whatever it computes in
    elementwise: bool = True  # whether nothing that was fused into it moves values to other places
    padding: float = 1.0  # multiply-accumulates that run, channels padded for int8, over those that count

    @property
    def activation_bytes(self) -> int:
        """Read and written."""
        return self.read_bytes + self.written_bytes

    @property
    def once(self) -> "Kernel":
        """One of its runs, where it runs several times."""
        return self if self.repeats == 1 else replace(self, macs=self.macs // self.repeats, repeats=1)

    @property
    def in_place(self) -> bool:
        """Whether it may write over an input that nobody needs any more."""
        return self.kind == "pointwise" and self.elementwise


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph as its runtime would run it."""

    kernels: tuple[Kernel, ...]
    sizes: Mapping[str, int]  # bytes of each buffer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def fuse(graph: Graph, family: str, precision: Precision | None = None) -> Plan:
    """Group a graph's operators into kernels.

    Args:
        family: nvidia-gpu, cortex-m or x86-cpu.
        precision: run everything that can be in this precision; None runs each operator in what the graph says.
    """
    graph = prepared(graph, family)
    return Fused(graph, group(graph, family, precision), family, precision).plan()


class Fused:
    """A graph with its grouping: what each kernel is made of."""

    def __init__(self, graph: Graph, grouping: Grouping, family: str, precision: Precision | None) -> None:
        self.graph = graph
        self.grouping = grouping
        self.family = family
        self.precision = precision

    def plan(self) -> Plan:
        """All kernels, and the sizes of their buffers."""
        grouping = self.grouping
        kernels = tuple(self.kernel(item) for item in grouping.groups)
        outputs = tuple(dict.fromkeys(grouping.buffer(name) for name in self.graph.outputs))
        inputs = tuple(dict.fromkeys(grouping.buffer(name) for name in self.graph.inputs))
        names = {name for kernel in kernels for name in (*kernel.reads, *kernel.writes)}
        sizes = {name: self.bytes(name) for name in (*names, *inputs, *outputs)}
        return Plan(kernels, sizes, inputs, outputs)

    def kernel(self, item: Group) -> Kernel:
        """One kernel."""
        graph_ops, edges, grouping = self.graph.ops, self.graph.edges, self.grouping
        core = graph_ops[item.core]
        precision = self.runs_in(item)
        weights = folded_weights(graph_ops, item)
        return Kernel(
            name=core.name,
            kind=kernel_kind(core),
            operators=tuple([graph_ops[index].operator for index in item.ops]),
            macs=sum([graph_ops[index].macs for index in item.counted]),
            depth=core.depth,
            channels=core.channels,
            elements=sum([edges[name].elements for name in item.ends_at]),
            weights=weights,
            reads=tuple(dict.fromkeys([grouping.buffer(name) for name in item.reads])),
            writes=tuple(dict.fromkeys([grouping.buffer(name) for name in item.ends_at])),
            read_bytes=self._read_bytes(core, item),
            written_bytes=sum([self.bytes(grouping.shown(name)) for name in item.ends_at]),
            weight_bytes=sum([weight_bytes(weight, precision, self.precision) for weight in weights]),
            precision=precision,
            vector_elements=sum([edges[graph_ops[index].outputs[0]].elements for index in item.vector]),
            groups=core.groups,
            window=core.window,
            strides=core.strides,
            shape=edges[item.ends_at[0]].shape if item.ends_at else (),
            source=edges[core.inputs[0]].shape if core.inputs else (),
            repeats=core.repeats,
            coded=core.int8,
            elementwise="copy" not in [graph_ops[index].kind for index in item.ops],
            padding=int8_padding(core) if precision == "int8" and self.family == "nvidia-gpu" else 1.0,
        )

    def bytes(self, name: str) -> int:
        """Bytes of one buffer."""
        edge = self.graph.edges[name]
        if name in self.grouping.coded:
            return edge.elements
        return edge_bytes(edge, None if name in self.grouping.float_edges else self.precision)

    def _read_bytes(self, core: Op, item: Group) -> int:
        shown = self.grouping.shown
        if core.kind != "copy":
            return sum([self.bytes(name) for name in item.reads])
        # A slice or a gather reads what it writes, not the whole source.
        made = sum(self.bytes(shown(name)) for name in core.outputs)
        return sum(min(self.bytes(name), made) for name in item.reads)

    def runs_in(self, item: Group) -> Precision:
        """The number format that a kernel computes in."""
        core, asked = self.graph.ops[item.core], self.precision
        if item.core in self.grouping.float_ops:
            return "fp32"
        if (
            asked == "int8"
            and self.family not in MICROCONTROLLERS
            and core.kind in ("recurrent", "fft", "norm", "softmax")
        ):
            return "fp32" if self.family == "x86-cpu" else "fp16"
        if asked is not None:
            return asked
        if self.family == "nvidia-gpu" and core.kind in _FLOAT_ON_GPUS:
            return _BY_TYPE.get(self.graph.edges[item.ends_at[0]].dtype, "fp32")
        if core.int8:
            return "int8" if self.family != "x86-cpu" or self._has_an_integer_kernel(item) else "fp32"
        if core.kind not in HEAVY and any(self.graph.ops[index].kind == "quantize" for index in item.ops):
            return "int8"
        return self._float_type(item) if item.ends_at else "fp32"

    def _float_type(self, item: Group) -> Precision:
        """The float format that a kernel computes in: of its result, or of what it rounds to codes at its end."""
        made = self.graph.edges[item.ends_at[0]].dtype
        if made not in FLOATS and self.graph.ops[item.core].outputs:
            made = self.graph.edges[self.graph.ops[item.core].outputs[0]].dtype
        return _BY_TYPE.get(made, "fp32")

    def _has_an_integer_kernel(self, item: Group) -> bool:
        """onnxruntime computes a convolution in integers where its result is rounded at once; else in floats.

        Only an activation may stand between: one that the range of unsigned codes does anyway. Signed codes, which
        TensorRT wants, keep it, and so does an addition: such layers run in floats between conversions. A product
        without a float bias has a kernel that takes codes and gives numbers (MatMulIntegerToFloat).
        """
        ops = self.graph.ops
        core = ops[item.core]
        if core.kind not in ("conv", "conv_transpose", "gemm") or core.operator.startswith("Q"):
            return True
        rounding = next((place for place, index in enumerate(item.ops) if ops[index].kind == "quantize"), -1)
        if rounding >= 0:
            between = [ops[index].operator for index in item.ops[1:rounding] if ops[index].kind == "pointwise"]
            code = self.graph.edges[ops[item.ops[rounding]].outputs[0]].dtype
            clipped = not between or (code == "uint8" and set(between) <= _CLIPS)
            return core.kind != "conv_transpose" and clipped
        floats = any(weight.bias and weight.dtype == "float32" for weight in core.weights)
        return core.kind == "gemm" and not floats


_CLIPS = frozenset({"Relu", "Clip"})  # what rounding to codes from zero up does as well
# TensorRT turns codes into numbers before these, and has no kernel for codes.
_FLOAT_ON_GPUS: frozenset[Kind] = frozenset({"conv_transpose", "recurrent", "fft", "norm", "softmax"})
_BY_TYPE: Mapping[str, Precision] = {"float16": "fp16", "bfloat16": "bf16"}
STEM_CHANNELS, DEPTHWISE_CHANNELS = 4, 64  # what TensorRT pads input channels of int8 convolutions to


def int8_padding(core: Op) -> float:
    """Multiply-accumulates of an int8 kernel on an NVIDIA GPU over those that count: channels come in packs.

    Four input channels of a dense convolution are one pack (3 become 4, 17 become 20); a depthwise one is run by the
    kernels of grouped convolutions on packs of 64 (16 become 64).
    """
    if core.kind != "conv" or not core.depth:
        return 1.0
    if core.groups == 1:
        inputs = core.depth // (prod(core.window) or 1) if core.window else 0
        return -(-inputs // STEM_CHANNELS) * STEM_CHANNELS / inputs if inputs else 1.0
    if core.groups == core.channels:
        return -(-core.channels // DEPTHWISE_CHANNELS) * DEPTHWISE_CHANNELS / core.channels
    return 1.0


def edge_bytes(edge: Edge, precision: Precision | None) -> int:
    """Bytes of one tensor when the network runs in `precision`; None takes the types of the graph."""
    if precision is None or edge.dtype not in FLOATS:
        return (edge.elements * BITS.get(edge.dtype, 32) + 7) // 8
    return edge.elements * PRECISION_BYTES[precision]


def weight_bytes(weight: Weight, runs_in: Precision, asked: Precision | None) -> int:
    """Bytes of one stored tensor. Biases of int8 layers are 32-bit accumulators' offsets."""
    if asked is None or weight.dtype not in FLOATS:
        return (weight.elements * BITS.get(weight.dtype, 32) + 7) // 8
    if weight.bias and runs_in == "int8":
        return weight.elements * 4
    return weight.elements * PRECISION_BYTES[runs_in]


PRECISION_BYTES: Mapping[Precision, int] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


def folded_weights(ops: Sequence[Op], item: Group) -> tuple[Weight, ...]:
    """A kernel's stored tensors once batch normalisation has become a scale of the weights and a bias."""
    found: dict[str, Weight] = {}
    for index in item.ops:
        op = ops[index]
        if not op.weights:
            continue
        if index == item.folded:
            if not any(weight.bias for weight in found.values()):
                name = f"{ops[item.core].name}.folded_bias"
                found[name] = Weight(name, _channels(op), "float32", bias=True)
        elif op.kind == "batchnorm":  # nothing to fold it into: one scale and one offset per channel
            found[op.name] = Weight(op.name, 2 * _channels(op), "float32", bias=True)
        else:
            for weight in op.weights:
                found[weight.name] = weight
    return tuple(found.values())


def _channels(norm: Op) -> int:
    return max(weight.elements for weight in norm.weights)


_KERNEL_KINDS: Mapping[Kind, KernelKind] = {
    "batchnorm": "pointwise",
    "fft": "fft",
    "gemm": "gemm",
    "matmul": "matmul",
    "recurrent": "recurrent",
    "norm": "norm",
    "softmax": "softmax",
    "pointwise": "pointwise",
    "quantize": "pointwise",
    "pool": "pool",
    "reduce": "reduce",
    "resize": "resize",
    "copy": "copy",
}


def kernel_kind(core: Op) -> KernelKind:
    """What a latency model calls a kernel with this operator at its core."""
    if core.kind in ("conv", "conv_transpose"):
        if core.groups == 1:
            return "dense"
        return "depthwise" if core.groups == core.channels else "grouped"
    return _KERNEL_KINDS.get(core.kind, "other")
