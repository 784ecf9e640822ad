"""Layers on a Cortex-M in generated int8 C: instructions per multiply-accumulate and per element, times cycles.

Instruction counts are those of an emulated core and exact for the networks they were counted on; cycles per
instruction depend on the part's memories and are a range.
"""

from dataclasses import dataclass

from profiles.fuse import Kernel
from profiles.target import Hardware


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
    float_mac: float  # at least this per multiply-accumulate where a layer runs in floats
    element: float  # per output element of a layer with multiply-accumulates: requantisation, activation, storing
    pooled_byte: float  # per byte that a pool or a reduction reads
    touched_byte: float  # per byte that any other kernel reads and writes
    call: float  # per kernel
    cycles_per_instruction: float
    cycles_per_instruction_range: tuple[float, float]


def instructions(kernel: Kernel, constants: Constants) -> float:
    """Instructions of one kernel."""
    per_mac = {
        "dense": constants.dense,
        "grouped": constants.grouped,
        "depthwise": constants.depthwise,
        "gemm": constants.gemm,
        "matmul": constants.matmul,
        "recurrent": constants.recurrent,
        "fft": constants.fft,
    }.get(kernel.kind, 0.0)
    if kernel.macs and kernel.precision != "int8" and kernel.kind != "fft":
        per_mac = max(per_mac, constants.float_mac)
    if kernel.macs:
        return constants.call + kernel.macs * per_mac + constants.element * kernel.elements
    if kernel.kind in ("pool", "reduce"):
        return constants.call + constants.pooled_byte * kernel.read_bytes
    return constants.call + constants.touched_byte * kernel.activation_bytes


def kernel_ms(kernel: Kernel, hardware: Hardware, constants: Constants) -> tuple[float, str]:
    """Milliseconds of one kernel at the middle of the range of cycles per instruction, and what bounds it."""
    cycles = instructions(kernel, constants) * constants.cycles_per_instruction
    return cycles / (hardware.clock_mhz * 1e3), "compute" if kernel.macs else "memory"
