"""What a verbose TensorRT build log says about the kernels that a graph became.

With detailed profiling verbosity the log lists every kernel with the type of its inputs and, in `Metadata`, the ONNX
nodes that it came from. Measured with TensorRT-RTX 1.7.1: convolutions are `correlation`, matrix products `gemm`,
transposed convolutions `deconv`; `kgen` are generated kernels, where a product that nobody has an int8 kernel for ends
up as well.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

HEAVY = ("correlation", "gemm", "deconv")
ATTENTION = "_gemm_mha"  # both products of attention and the softmax between them: a `kgen` kernel of the library's own

# Steps that a generated kernel's name is put together from, where it computes nothing but other scales and layouts.
CONVERSIONS = frozenset({"Cast", "Mul", "Div", "Min", "Max", "Roun", "Conc", "Resh", "Tran", "Move", "Repl", "Slic"})

_STEP = re.compile(r"[A-Z][a-z0-9]*")
_KERNEL = re.compile(r"^(?:VERBOSE )?Name: (?P<name>[^,]*), LayerType: (?P<type>[^,]*), Inputs: (?P<rest>.*)$")
_TENSOR = re.compile(r"Name: (?P<name>[^,]*), Dimensions: \[(?P<dims>[^\]]*)\].*?Datatype: (?P<type>\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TIME = re.compile(r"\b\d+(?:\.\d+)?(?:e[-+]?\d+)? ?(?=(?:seconds|milliseconds|ms)\b)")


@dataclass(frozen=True)
class Tensor:
    """One input, constant or output of a kernel; a dimension of -1 is dynamic."""

    name: str
    dims: tuple[int, ...]
    type: str  # Int8, Float, Half, ...


@dataclass(frozen=True)
class Kernel:
    """One kernel of the plan."""

    name: str
    type: str  # correlation, gemm, deconv, kgen, ...
    nodes: tuple[str, ...]  # ONNX nodes that it computes
    inputs: tuple[Tensor, ...] = ()
    constants: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()

    @property
    def input_type(self) -> str:
        """Of its first input: Int8, Float, Half, ...; '' where it has none."""
        return self.inputs[0].type if self.inputs else ""

    @property
    def heavy(self) -> bool:
        """Whether it is a convolution or matrix product of the library, or its fused attention."""
        return self.type in HEAVY or self.name.startswith(ATTENTION)

    @property
    def requantises(self) -> bool:
        """Whether it only brings int8 tensors to other scales or another layout, and rounds while it does."""
        tensors = (*self.inputs, *self.outputs)
        steps = _STEP.findall(self.name.removeprefix("__myl_").partition("_")[0])
        return (
            self.type == "kgen"
            and bool(self.inputs)
            and all(tensor.type == "Int8" for tensor in tensors)
            and "Roun" in steps
            and set(steps) <= CONVERSIONS
        )


@dataclass(frozen=True)
class Int8Share:
    """How many of a graph's weighted nodes really run in int8.

    Attributes:
        share: nodes in int8 / weighted nodes; 0 where there are none.
        int8: names of the nodes that run in int8.
        float: names of those that do not.
        missed: names of those that are quantised in the graph and run in float all the same.
    """

    share: float
    int8: tuple[str, ...]
    float: tuple[str, ...]
    missed: tuple[str, ...]


def kernels(log: str) -> list[Kernel]:
    """The kernels of a build log, in execution order; empty where the log has no such section."""
    found = []
    for line in log.splitlines():
        match = _KERNEL.match(line)
        if match is None:
            continue
        rest = match["rest"]
        inputs, _, rest = rest.partition("Constants: [")
        constants, _, rest = rest.partition("Outputs: [")
        outputs, _, rest = rest.partition("TacticName: ")
        _, _, metadata = rest.rpartition("Metadata: ")
        found.append(
            Kernel(
                name=match["name"],
                type=match["type"],
                nodes=tuple(_NODE.findall(metadata)),
                inputs=_tensors(inputs),
                constants=_tensors(constants),
                outputs=_tensors(outputs),
            )
        )
    return found


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(match["name"], tuple(int(size) for size in match["dims"].split(",") if size.strip()), match["type"])
        for match in _TENSOR.finditer(text)
    )


def types_of(found: Iterable[Kernel]) -> dict[str, str]:
    """ONNX node -> type of the first input of the heavy kernel that computes it; nodes in no heavy kernel are absent.

    A fused bias or activation may lie in a kernel behind; the heavy kernel is what a weighted node is judged by.
    """
    return {node: kernel.input_type for kernel in found if kernel.heavy for node in kernel.nodes}


def int8_share(found: Iterable[Kernel], weighted: Iterable[str], quantised: Iterable[str]) -> Int8Share:
    """Share of the graph's weighted nodes that a heavy int8 kernel computes.

    Args:
        found: kernels of the log.
        weighted: names of the graph's Conv, ConvTranspose, Gemm and MatMul nodes.
        quantised: those of them whose data and weights both come from DequantizeLinear.
    """
    covered = {node for kernel in found if kernel.heavy and kernel.input_type == "Int8" for node in kernel.nodes}
    names = list(weighted)
    inside = tuple(name for name in names if name in covered)
    outside = tuple(name for name in names if name not in covered)
    meant = set(quantised)
    return Int8Share(
        share=len(inside) / len(names) if names else 0.0,
        int8=inside,
        float=outside,
        missed=tuple(name for name in outside if name in meant),
    )


def without_times(log: str) -> str:
    """The log with every duration replaced by 0, so that two equal builds leave equal logs."""
    return _TIME.sub("0 ", log)
