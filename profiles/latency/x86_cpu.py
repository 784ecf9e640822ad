"""Kernels on x86 cores under onnxruntime: work, traffic and a call, added per kernel.

One core overlaps little between the three, so they are added rather than compared.
"""

from dataclasses import dataclass

from profiles.fuse import Kernel
from profiles.target import Hardware


@dataclass(frozen=True)
class Constants:
    """Efficiencies and shares of the peaks; times in microseconds."""

    dense: float
    gemm: float
    matmul: float
    grouped: float
    depthwise: float
    recurrent: float
    fft: float
    int8_gain: float  # share of the rate of int8 instructions over fp32 that a network sees
    half_depth: float  # K at which a kernel reaches half of its efficiency
    bandwidth: float
    launch_us: float  # per kernel
    fixed_us: float  # per inference


def kernel_ms(kernel: Kernel, hardware: Hardware, constants: Constants) -> tuple[float, str]:
    """Milliseconds of one kernel on one core, and what takes the most of them."""
    compute = 0.0
    if kernel.macs:
        share = {
            "dense": constants.dense,
            "gemm": constants.gemm,
            "matmul": constants.matmul,
            "grouped": constants.grouped,
            "depthwise": constants.depthwise,
            "recurrent": constants.recurrent,
            "fft": constants.fft,
        }.get(kernel.kind, constants.matmul)
        if kernel.kind not in ("depthwise", "fft"):
            share *= kernel.depth / (kernel.depth + constants.half_depth)
        peak = hardware.tops["fp32"]
        if kernel.precision == "int8" and "int8" in hardware.tops:
            peak = max(peak, hardware.tops["int8"] * constants.int8_gain)
        compute = 2e-9 * kernel.macs / (peak * share)
    memory = (kernel.activation_bytes + kernel.weight_bytes) / (hardware.bandwidth_gbs * constants.bandwidth * 1e6)
    call = constants.launch_us / 1e3
    parts = {"compute": compute, "memory": memory, "launch": call}
    return compute + memory + call, max(parts, key=lambda name: parts[name])
