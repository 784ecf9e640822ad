"""Layers on a Cortex-M in generated int8 C: instructions per multiply-accumulate and per element, times cycles.

Instruction counts are those of an emulated core and exact for the networks they were counted on; cycles per
instruction and per output are fitted on published results, and depend on the part's memories: they are a range.
"""

import sys
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # JetPack 6 has Python 3.10
    import tomli as tomllib

from profiles.errors import ProfileError
from profiles.fuse import Kernel
from profiles.target import Hardware

TABLE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Cycles:
    """How instructions of int8 networks become cycles on one core, from published results.

    Attributes:
        per_instruction: cycles.
        per_output: cycles for every output of a layer of int8 multiply-accumulates, beside its instructions: moving a
            sum through requantisation waits for each step, where products stream.
        low, high: factors on the cycles that contain 90 % of the published results.
        source: where these are from.
    """

    per_instruction: float
    per_output: float
    low: float
    high: float
    source: str

    def of(self, instructions: float, outputs: float) -> float:
        """Cycles of a layer: `outputs` of int8 multiply-accumulates, 0 for any other layer."""
        return instructions * self.per_instruction + outputs * self.per_output


@lru_cache(maxsize=1)
def _cores() -> dict[str, dict[str, Any]]:
    return tomllib.loads(TABLE.read_text(encoding="utf-8"))


def cycles(core: str) -> Cycles:
    """How instructions become cycles on cortex-m3, cortex-m4, cortex-m7, cortex-m33 or cortex-m55.

    Raises:
        ProfileError: there is no such core.
    """
    cores = _cores()
    if core not in cores:
        raise ProfileError(
            f"no cycles per instruction are known for {core!r}; there are {', '.join(cores)}",
            fix="set hardware.core in the target's file to one of these",
        )
    table = cores[core]
    low, high = table["cycles_range"]
    return Cycles(table["cycles_per_instruction"], table["cycles_per_output"], low, high, table["cycles_source"])


@dataclass(frozen=True)
class Constants:
    """Instructions per multiply-accumulate by kind, and what comes beside them."""

    dense: float
    grouped: float
    depthwise: float
    gemm: float
    matmul: float
    recurrent: float
    fft: float
    float_mac: float  # at least this per multiply-accumulate of a convolution that runs in floats
    float_depthwise: float  # the same for one that keeps channels apart
    float_gemm: float  # the same for products and recurrent layers
    element: float  # per output element of a layer with multiply-accumulates: requantisation, activation, storing
    position: float  # per output position of a convolution: finding the input's window
    gathered_byte: float  # per byte of input windows that overlap: each is copied before it is multiplied
    function: float  # per element of pointwise operators in floats: logarithm, normalisation
    pooled_byte: float  # per byte that a pool or a reduction reads
    touched_byte: float  # per byte that any other kernel reads and writes
    call: float  # per kernel
    depth_step: float  # int8 products are made this many at a time; what is left of a filter costs as much
    channel_step: float  # the same for the channels of a depthwise convolution
    cycles_per_instruction: float
    cycles_per_output: float  # see Cycles


def constants(core: str) -> Constants:
    """The constants of one core, as the table has them.

    Raises:
        ProfileError: there is no such core.
    """
    cycles(core)
    return Constants(**{f.name: _cores()[core][f.name] for f in fields(Constants)})


def interval(core: str) -> tuple[float, float]:
    """Factors on the median that a core's constants predict, which hold 90 % of cases.

    Raises:
        ProfileError: there is no such core.
    """
    cycles(core)
    low, high = _cores()[core]["interval"]
    return low, high


_FLOAT_PRODUCTS = frozenset({"gemm", "matmul", "recurrent"})
_CONVOLUTIONS = frozenset({"dense", "grouped", "depthwise"})


def instructions(kernel: Kernel, constants: Constants) -> float:
    """Instructions of one kernel: linear in every constant but the steps."""
    per_mac = {
        "dense": constants.dense,
        "grouped": constants.grouped,
        "depthwise": constants.depthwise,
        "gemm": constants.gemm,
        "matmul": constants.matmul,
        "recurrent": constants.recurrent,
        "fft": constants.fft,
    }.get(kernel.kind, 0.0)
    integer = kernel.precision == "int8"
    if kernel.macs and not integer and kernel.kind != "fft":
        in_floats = {"depthwise": constants.float_depthwise, **dict.fromkeys(_FLOAT_PRODUCTS, constants.float_gemm)}
        per_mac = max(per_mac, in_floats.get(kernel.kind, constants.float_mac))
    functions = 0.0 if integer else constants.function * kernel.vector_elements
    if kernel.macs:
        made = kernel.macs * (_rounding(kernel, constants) if integer else _filter_bank(kernel))
        around = constants.element * kernel.elements + functions
        if integer:
            around += constants.gathered_byte * _gathered(kernel) + constants.position * _positions(kernel)
        return constants.call + made * per_mac + around
    if kernel.kind in ("pool", "reduce"):
        return constants.call + constants.pooled_byte * kernel.read_bytes + functions
    return constants.call + constants.touched_byte * kernel.activation_bytes + functions


def _rounding(kernel: Kernel, constants: Constants) -> float:
    """Multiply-accumulates that are made over those that are needed, >= 1."""
    size, step = (
        (kernel.channels, constants.channel_step)
        if kernel.kind == "depthwise"
        else (kernel.depth, constants.depth_step)
    )
    if step <= 1 or size <= 0:
        return 1.0
    return float(-(-size // step)) * step / size


def _filter_bank(kernel: Kernel) -> float:
    """Share of a product in floats that is made.

    A depth of 2^k + 1 is a spectrum: the C stores only the bands of such a matrix that are not zero, and with triangles
    that overlap by half each bin is in two of them.
    """
    bins = kernel.depth - 1
    if kernel.kind not in _FLOAT_PRODUCTS or bins < 16 or bins & (bins - 1):
        return 1.0
    return min(1.0, 2.0 / max(1, kernel.channels))


def _positions(kernel: Kernel) -> float:
    """Output positions of a convolution."""
    return kernel.elements / kernel.channels if kernel.kind in _CONVOLUTIONS and kernel.channels else 0.0


def _gathered(kernel: Kernel) -> float:
    """Bytes of all input windows of a convolution where they overlap; 0 where the input is read in place."""
    if kernel.kind != "dense" or not kernel.channels:
        return 0.0
    windows = kernel.elements / kernel.channels * kernel.depth
    return windows if windows > 1.01 * kernel.read_bytes else 0.0


def kernel_ms(kernel: Kernel, hardware: Hardware, constants: Constants) -> tuple[float, str]:
    """Milliseconds of one kernel at the middle of the range of cycles per instruction, and what bounds it."""
    total = instructions(kernel, constants) * constants.cycles_per_instruction
    if kernel.macs and kernel.precision == "int8":
        total += constants.cycles_per_output * kernel.elements
    return total / (hardware.clock_mhz * 1e3), "compute" if kernel.macs else "memory"
