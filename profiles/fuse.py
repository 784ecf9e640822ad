"""Group operators into the kernels that a device's runtime runs.

What is fused here is what the runtimes of the three families do with a clean inference graph: batch normalisation goes
into the weights before it; activations and other pointwise operators run at the end of the kernel that makes their
input; so does the addition of a skip branch on GPUs and x86 (TensorRT and onnxruntime have such kernels, generated C
for a Cortex-M adds in a second pass); Q/DQ pairs become the number format of an edge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from profiles.cost import Precision
from profiles.graph import BITS, FLOATS, HEAVY, Edge, Graph, Kind, Op, Weight

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

    @property
    def activation_bytes(self) -> int:
        """Read and written."""
        return self.read_bytes + self.written_bytes

    @property
    def in_place(self) -> bool:
        """Whether it may write over an input that nobody needs any more."""
        return self.kind == "pointwise"


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph as its runtime would run it."""

    kernels: tuple[Kernel, ...]
    sizes: Mapping[str, int]  # bytes of each buffer
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


_FUSED_SKIP = frozenset({"nvidia-gpu", "x86-cpu"})
_LAYOUTS = frozenset({"transpose", "permute", "t", "select", "unbind", "split", "slice", "split_with_sizes", "gather"})
_FOLDS_INTO = frozenset({"conv", "conv_transpose", "gemm"})


def fuse(graph: Graph, family: str, precision: Precision | None = None) -> Plan:
    """Group a graph's operators into kernels.

    Args:
        family: nvidia-gpu, cortex-m or x86-cpu.
        precision: run everything that can be in this precision; None runs each operator in what the graph says.
    """
    return _Fusing(graph, family, precision).plan()


class _Group:
    """A kernel while operators are still added to it."""

    __slots__ = ("core", "elements", "ends_at", "folded", "ops", "reads")

    def __init__(self, op: Op) -> None:
        self.core = op
        self.ops = [op]
        self.reads = list(op.inputs)
        self.ends_at = op.outputs
        self.elements = 0
        self.folded: list[Op] = []  # batch normalisations


class _Fusing:
    def __init__(self, graph: Graph, family: str, precision: Precision | None) -> None:
        self.graph = graph
        self.family = family
        self.precision = precision
        self.buffer: dict[str, str] = {}  # edge -> the edge whose bytes it is
        self.made_by: dict[str, int] = {}  # buffer -> index of its kernel
        self.groups: list[_Group] = []
        readers: dict[str, int] = {}
        for op in graph.ops:
            for name in op.inputs:
                readers[name] = readers.get(name, 0) + 1
        for name in graph.outputs:
            readers[name] = readers.get(name, 0) + 1
        self.readers = readers
        self.front_end = _front_end(graph) if precision == "int8" else frozenset()
        self.float_edges = {name for op in graph.ops if op.name in self.front_end for name in op.inputs}

    def plan(self) -> Plan:
        for op in self.graph.ops:
            if op.kind in ("view", "dequantize") or self._is_merged_copy(op):
                self._alias(op)
            elif not self._join(op):
                self._start(op)
        if self.family == "nvidia-gpu":
            self._merge_attention()
        self.kept = {self._root(name) for name in self.graph.outputs}
        kernels = tuple(self._kernel(group) for group in self.groups)
        names = {name for kernel in kernels for name in (*kernel.reads, *kernel.writes)}
        inputs = tuple(dict.fromkeys(self._root(name) for name in self.graph.inputs))
        sizes = {name: self._bytes(name) for name in (*names, *inputs, *self.kept)}
        return Plan(kernels, sizes, inputs, tuple(self.kept))

    def _root(self, name: str) -> str:
        while (root := self.buffer.get(name, name)) != name:
            name = root
        return name

    def _alias(self, op: Op) -> None:
        if not op.inputs:
            return
        source = op.inputs[0]
        for name in op.outputs:
            self.buffer[name] = source
        # The readers of the view read the buffer; the view itself does not.
        passed = sum(self.readers.get(name, 0) for name in op.outputs)
        root = self._root(source)
        self.readers[root] = self.readers.get(root, 0) - 1 + passed

    def _is_merged_copy(self, op: Op) -> bool:
        """Whether a GPU runtime writes a product's result in the new layout at once instead of copying it."""
        if self.family != "nvidia-gpu" or op.operator.lower() not in _LAYOUTS or not op.inputs:
            return False
        index = self.made_by.get(self._root(op.inputs[0]), -1)
        return index >= 0 and self.groups[index].core.kind in ("gemm", "matmul")

    def _merge_attention(self) -> None:
        """Product, softmax, product: one kernel, and the scores never leave the chip."""
        merged: set[int] = set()
        for group in self.groups:
            if group.core.kind != "matmul" or len(group.reads) < 2:
                continue
            softmax = next((i for name in group.reads if self._made(i := self._maker(name), "softmax")), -1)
            if softmax < 0 or self.readers.get(self._root(self.groups[softmax].ends_at[0]), 0) != 1:
                continue
            scores = self._maker(self.groups[softmax].reads[0])
            if not self._made(scores, "matmul") or self.readers.get(self._root(self.groups[scores].ends_at[0]), 0) != 1:
                continue
            first, middle = self.groups[scores], self.groups[softmax]
            inner = {self._root(name) for part in (first, middle) for name in part.ends_at}
            group.reads = [*first.reads, *middle.reads, *group.reads]
            group.reads = [name for name in group.reads if self._root(name) not in inner]
            group.ops = [*first.ops, *middle.ops, *group.ops]
            group.core = replace(group.core, macs=group.core.macs + first.core.macs)
            merged |= {scores, softmax}
        self.groups = [group for index, group in enumerate(self.groups) if index not in merged]

    def _maker(self, name: str) -> int:
        return self.made_by.get(self._root(name), -1)

    def _made(self, index: int, kind: Kind) -> bool:
        return index >= 0 and self.groups[index].core.kind == kind

    def _start(self, op: Op) -> None:
        group = _Group(op)
        if op.kind == "fft" and op.inputs:
            self._take_window(group)
        self.groups.append(group)
        for name in op.outputs:
            self.made_by[name] = len(self.groups) - 1

    def _take_window(self, group: _Group) -> None:
        """A transform multiplies by its window while it reads the signal."""
        index = self._maker(group.core.inputs[0])
        last = len(self.groups) - 1
        if index != last or not self._made(index, "pointwise"):
            return
        window = self.groups[index]
        if self.readers.get(self._root(window.ends_at[0]), 0) == 1:
            self.groups.pop()
            group.ops = [*window.ops, *group.ops]
            group.reads = list(window.reads)

    def _join(self, op: Op) -> bool:
        """Run `op` at the end of the kernel that makes its input, where a runtime does."""
        if op.kind in ("copy", "reduce"):
            return self._join_transform(op)
        if op.kind not in ("pointwise", "batchnorm", "quantize") or not op.inputs or len(op.outputs) != 1:
            return False
        roots = [self._root(name) for name in op.inputs]
        makers = [(self.made_by.get(root, -1), root) for root in roots]
        index, root = max(makers)
        if index < 0 or self.readers.get(root, 0) != 1 or roots.count(root) != 1:
            return False
        group = self.groups[index]
        if root not in group.ends_at or len(group.ends_at) != 1:
            return False
        kind = group.core.kind
        if kind not in HEAVY and kind not in ("pointwise", "batchnorm", "norm", "pool", "reduce", "softmax", "resize"):
            return False
        others = [name for name in op.inputs if self._root(name) != root]
        if others and self.family not in _FUSED_SKIP and kind != "pointwise":
            return False
        if kind not in HEAVY and kind != "pointwise" and kind != "batchnorm" and op.kind != "quantize":
            return False
        out = self.graph.edges[op.outputs[0]]
        if out.elements != self.graph.edges[root].elements and kind != "pointwise":
            return False  # it broadcasts, which is not an epilogue
        if op.kind == "batchnorm" and kind in _FOLDS_INTO and len(group.ops) == 1:
            group.folded.append(op)
        elif op.kind != "quantize":
            group.elements += out.elements
        group.ops.append(op)
        group.reads.extend(others)
        group.ends_at = op.outputs
        for name in op.outputs:
            self.made_by[name] = index
        return True

    def _join_transform(self, op: Op) -> bool:
        """Generated C works on one frame's spectrum where it stands: powers, sums and layouts cost no second pass."""
        if self.family != "cortex-m" or len(op.inputs) != 1 or len(op.outputs) != 1:
            return False
        root = self._root(op.inputs[0])
        index = self.made_by.get(root, -1)
        if not self._made(index, "fft") or self.readers.get(root, 0) != 1:
            return False
        group = self.groups[index]
        group.ops.append(op)
        group.ends_at = op.outputs
        self.made_by[op.outputs[0]] = index
        return True

    def _kernel(self, group: _Group) -> Kernel:
        core, edges = group.core, self.graph.edges
        int8 = core.int8 or any(op.kind == "quantize" for op in group.ops)
        precision = self._precision(core, group.ends_at, int8)
        inner = {name for op in group.ops for name in op.outputs} - set(group.ends_at)
        reads = tuple(dict.fromkeys(self._root(name) for name in group.reads if name not in inner))
        writes = tuple(dict.fromkeys(self._root(name) for name in group.ends_at))
        weights = _folded_weights(group)
        return Kernel(
            name=core.name,
            kind=_kernel_kind(core),
            operators=tuple(op.operator for op in group.ops),
            macs=core.macs,
            depth=core.depth,
            channels=core.channels,
            elements=sum(edges[name].elements for name in group.ends_at),
            weights=weights,
            reads=reads,
            writes=writes,
            read_bytes=sum(self._read_bytes(core, name) for name in reads),
            written_bytes=sum(self._bytes(name) for name in writes),
            weight_bytes=sum(weight_bytes(item, precision, self.precision) for item in weights),
            precision=precision,
            vector_elements=group.elements,
            groups=core.groups,
            window=core.window,
            strides=core.strides,
            shape=edges[group.ends_at[0]].shape if group.ends_at else (),
            source=edges[core.inputs[0]].shape if core.inputs else (),
        )

    def _read_bytes(self, core: Op, name: str) -> int:
        whole = self._bytes(name)
        if core.kind != "copy":
            return whole
        # A slice or a gather reads what it writes, not the whole source.
        return min(whole, sum(self._bytes(self._root(out)) for out in core.outputs))

    def _precision(self, core: Op, ends_at: tuple[str, ...], int8: bool) -> Precision:
        if core.name in self.front_end:
            return "fp32"
        if (
            self.precision == "int8"
            and self.family != "cortex-m"
            and core.kind in ("recurrent", "fft", "norm", "softmax")
        ):
            return "fp32" if self.family == "x86-cpu" else "fp16"
        if self.precision is not None:
            return self.precision
        if core.int8 or (int8 and core.kind not in HEAVY):
            return "int8"
        dtype = self.graph.edges[ends_at[0]].dtype if ends_at else "float32"
        by_type: Mapping[str, Precision] = {"float16": "fp16", "bfloat16": "bf16", "int8": "fp32", "uint8": "fp32"}
        return by_type.get(dtype, "fp32")

    def _bytes(self, name: str) -> int:
        return edge_bytes(self.graph.edges[name], None if name in self.float_edges else self.precision)


_LOGARITHMS = frozenset({"log", "log2", "log10", "log1p"})


def _front_end(graph: Graph) -> frozenset[str]:
    """Operators of a spectral front-end: what a logarithm with a layer behind it is computed from.

    Powers of a spectrum span many decades, so nobody quantises them; codes begin behind the logarithm.
    """
    logarithms = [index for index, op in enumerate(graph.ops) if op.operator.lower() in _LOGARITHMS]
    if not logarithms:
        return frozenset()
    behind: set[str] = set()  # edges that a logarithm leads to
    followed = False
    for op in graph.ops[logarithms[0] :]:
        if op.operator.lower() in _LOGARITHMS or not behind.isdisjoint(op.inputs):
            followed = followed or (op.kind in HEAVY and not behind.isdisjoint(op.inputs))
            behind.update(op.outputs)
    if not followed:  # the logarithm of a softmax at the end
        return frozenset()
    found: set[str] = set()
    wanted: set[str] = set()
    for op in reversed(graph.ops[: logarithms[-1] + 1]):
        if op.operator.lower() in _LOGARITHMS or not wanted.isdisjoint(op.outputs):
            found.add(op.name)
            wanted.update(op.inputs)
    return frozenset(found)


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


def _folded_weights(group: _Group) -> tuple[Weight, ...]:
    """The group's stored tensors once batch normalisation has become a scale of the weights and a bias."""
    found: dict[str, Weight] = {}
    for op in group.ops:
        if op in group.folded:
            channels = max((item.elements for item in op.weights), default=0)
            if not any(item.bias for item in found.values()):
                name = f"{group.core.name}.folded_bias"
                found[name] = Weight(name, channels, "float32", bias=True)
        elif op.kind == "batchnorm":  # nothing to fold it into: one scale and one offset per channel
            channels = max((item.elements for item in op.weights), default=0)
            found[op.name] = Weight(op.name, 2 * channels, "float32", bias=True)
        else:
            found.update((item.name, item) for item in op.weights)
    return tuple(found.values())


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


def _kernel_kind(core: Op) -> KernelKind:
    if core.kind in ("conv", "conv_transpose"):
        if core.groups == 1:
            return "dense"
        return "depthwise" if core.groups == core.channels else "grouped"
    return _KERNEL_KINDS.get(core.kind, "other")
