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

_KERNEL = re.compile(r"^(?:VERBOSE )?Name: (?P<name>[^,]*), LayerType: (?P<type>[^,]*), Inputs: (?P<rest>.*)$")
_TYPE = re.compile(r"Datatype: (\w+)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_TIME = re.compile(r"\b\d+(?:\.\d+)?(?:e[-+]?\d+)? ?(?=(?:seconds|milliseconds|ms)\b)")


@dataclass(frozen=True)
class Kernel:
    """One kernel of the plan."""

    name: str
    type: str  # correlation, gemm, deconv, kgen, ...
    input_type: str  # of its first input: Int8, Float, Half, ...; '' where it has none
    nodes: tuple[str, ...]  # ONNX nodes that it computes

    @property
    def heavy(self) -> bool:
        """Whether it is a convolution or matrix product of the library."""
        return self.type in HEAVY


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
        inputs, _, _ = rest.partition("Constants: [")
        first = _TYPE.search(inputs)
        _, _, metadata = rest.rpartition("Metadata: ")
        found.append(
            Kernel(
                name=match["name"],
                type=match["type"],
                input_type=first[1] if first else "",
                nodes=tuple(_NODE.findall(metadata)),
            )
        )
    return found


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
