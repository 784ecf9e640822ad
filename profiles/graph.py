"""A network as operators and edges, without the format it came from.

Both readers (`read_onnx`, `read_torch`) make this; folding, fusion, liveness and prediction read only this.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import log2, prod
from typing import Literal

Kind = Literal[
    "conv",
    "conv_transpose",
    "gemm",  # activations times weights
    "matmul",  # activations times activations
    "recurrent",
    "fft",
    "batchnorm",
    "norm",  # over the features: layer, group, instance, RMS
    "softmax",
    "pointwise",
    "pool",
    "reduce",
    "resize",
    "copy",  # moves data without arithmetic: transpose, slice, pad, concatenate, gather
    "view",  # the same bytes under another shape
    "quantize",
    "dequantize",
    "other",
]
HEAVY: frozenset[Kind] = frozenset({"conv", "conv_transpose", "gemm", "matmul", "recurrent", "fft"})

BITS: Mapping[str, int] = {
    "float64": 64, "int64": 64, "uint64": 64, "complex64": 64, "complex128": 128,
    "float32": 32, "int32": 32, "uint32": 32,
    "float16": 16, "bfloat16": 16, "int16": 16, "uint16": 16,
    "int8": 8, "uint8": 8, "bool": 8, "float8": 8,
    "int4": 4, "uint4": 4, "float4": 4, "int2": 2, "uint2": 2,
}  # fmt: skip
FLOATS = frozenset({"float64", "float32", "float16", "bfloat16", "float8", "float4"})


@dataclass(frozen=True, slots=True)
class Edge:
    """One tensor that flows between operators."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # a key of BITS
    elements: int


@dataclass(frozen=True, slots=True)
class Weight:
    """One constant tensor that the device has to store."""

    name: str  # equal names are one tensor
    elements: int
    dtype: str  # as stored
    bias: bool = False  # stays in 32 bits when the weights are int8


@dataclass(frozen=True, slots=True)
class Op:
    """One operator of the network."""

    name: str
    operator: str  # as the format calls it
    kind: Kind
    inputs: tuple[str, ...]  # edges; weights are not among them
    outputs: tuple[str, ...]
    macs: int = 0
    weights: tuple[Weight, ...] = ()
    depth: int = 0  # K: multiply-accumulates per output element
    groups: int = 1
    channels: int = 0  # of the output, where the kind has them
    int8: bool = False  # both operands come from int8 codes
    repeats: int = 1  # runs in one forward pass (loops); `macs` is of all of them, edges are of one
    window: tuple[int, ...] = ()  # extent per axis of a convolution's kernel or a pool's window; () where unknown
    strides: tuple[int, ...] = ()  # steps per axis of that window; () where unknown


class _Referable:
    __slots__ = ("__weakref__",)  # dataclasses have their own way to it from Python 3.11 on


@dataclass(frozen=True, slots=True)
class Graph(_Referable):
    """Operators in an order that can be executed."""

    ops: tuple[Op, ...]
    edges: Mapping[str, Edge]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    batch: int
    uncounted: Mapping[str, int] = field(default_factory=dict)  # operator -> times met without a counter
    notes: tuple[str, ...] = ()
    idle: tuple[Weight, ...] = ()  # stored, but read by no operator here: of a branch that is not counted


@dataclass(frozen=True, slots=True)
class Span:
    """The operators that ran inside of one module, and what went into it and came out."""

    first: int
    end: int  # one behind the last
    into: str  # edge
    out: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What a graph holds and does before any runtime fuses it."""

    macs: int
    params: int  # stored numbers; of a batch norm its scale and offset, into which its statistics go
    weight_bytes_by_dtype: Mapping[str, int]
    activation_bytes: int  # read and written by every operator that moves data, in the types of the graph


def totals(graph: Graph) -> Totals:
    """Counts of a whole graph. A tensor that several operators read is stored once."""
    stored: dict[str, Weight] = {}
    moved = macs = 0
    for op in graph.ops:
        macs += op.macs
        for item in op.weights[:2] if op.kind == "batchnorm" else op.weights:
            stored.setdefault(item.name, item)
        if op.kind != "view":
            moved += op.repeats * sum(_bytes(graph.edges[name]) for name in (*op.inputs, *op.outputs))
    for item in graph.idle:
        stored.setdefault(item.name, item)
    params = sum(item.elements for item in stored.values())
    return Totals(macs, params, bytes_by_dtype(stored.values()), moved)


def bytes_by_dtype(weights: Iterable[Weight]) -> dict[str, int]:
    """Bytes of stored tensors by the type they are stored in; equal names are one tensor, four-bit codes are packed."""
    found: dict[str, int] = {}
    for item in {item.name: item for item in weights}.values():
        found[item.dtype] = found.get(item.dtype, 0) + (item.elements * BITS.get(item.dtype, 32) + 7) // 8
    return found


def _bytes(item: Edge) -> int:
    return (item.elements * BITS.get(item.dtype, 32) + 7) // 8


def edge(name: str, shape: Iterable[int], dtype: str) -> Edge:
    """An edge with its number of elements worked out."""
    dims = tuple(shape)
    return Edge(name, dims, dtype, prod(dims))


def operators(text: str) -> frozenset[str]:
    """The set of names in a text."""
    return frozenset(text.split())


def conv_macs(output: int, channels_in: int, groups: int, kernel: Iterable[int]) -> tuple[int, int]:
    """Multiply-accumulates of a convolution and its depth K.

    Args:
        output: elements of the output, batch included. For a transposed convolution: elements of the input.
        channels_in: of the whole input. For a transposed convolution: of the output.
    """
    depth = channels_in // groups * prod(kernel)
    return output * depth, depth


def recurrent_macs(gates: int, steps: int, batch: int, inputs: int, hidden: int, directions: int = 1) -> int:
    """Multiply-accumulates of one recurrent layer: per step, `gates` products with the input and with the state."""
    return directions * steps * batch * gates * hidden * (inputs + hidden)


def fft_macs(transforms: int, length: int, real: bool) -> int:
    """Multiply-accumulates that Fourier transforms are counted as.

    A complex transform of N points counts 5 N log2 N floating-point operations and a real one half of that, the
    convention of FFTW's benchmark (M. Frigo, S. G. Johnson, "The Design and Implementation of FFTW3", Proc. IEEE 93(2),
    2005, section V); two operations are one multiply-accumulate.
    """
    if length < 2:
        return 0
    flops = 5.0 * length * log2(length) * (0.5 if real else 1.0)
    return transforms * round(flops / 2)
