"""Layers on a GAP9-class chip: eight RISC-V cores with an int8 convolution engine, fed from a second-level memory.

    cycles = MACs / rate(kind)  +  bytes / bytes per cycle  +  cycles per layer

No runner emulates such a chip. Four networks were published at two clocks, and their cycles are the same at both, so
clock scales time. Four networks do not tell more constants than these; tools/fit_riscv_cluster.py fits them.
"""

from dataclasses import dataclass

from profiles.fuse import Kernel
from profiles.target import Hardware


@dataclass(frozen=True)
class Constants:
    """Rates in multiply-accumulates and bytes per cycle."""

    dense: float  # of the engine: any convolution or matrix product that is not depthwise
    depthwise: float  # it fills a sixteenth of the engine
    float_mac: float  # of all cores where a layer is not int8; assumed, no published network has such a layer
    bytes_per_cycle: float
    layer_cycles: float


def kernel_ms(kernel: Kernel, hardware: Hardware, constants: Constants) -> tuple[float, str]:
    """Milliseconds of one kernel and what takes the most of them: compute, memory or launch."""
    rate = constants.depthwise if kernel.kind == "depthwise" else constants.dense
    if kernel.precision != "int8":
        rate = min(rate, constants.float_mac)
    per_ms = hardware.clock_mhz * 1e3  # cycles
    moved = kernel.activation_bytes + kernel.weight_bytes
    parts = {
        "compute": kernel.macs / rate / per_ms,
        "memory": kernel.repeats * moved / constants.bytes_per_cycle / per_ms,
        "launch": kernel.repeats * constants.layer_cycles / per_ms,
    }
    return sum(parts.values()), max(parts, key=lambda name: parts[name])
