"""Kernels on an NVIDIA GPU under TensorRT: work, traffic and a launch, added per kernel.

    t = 2 MACs / (peak * efficiency(kind, K) * occupancy)  +  bytes / (bandwidth * share)  +  launch

The sum over the kernels plus a fixed time per inference is the latency. A roofline (S. Williams, A. Waterman,
D. Patterson, CACM 52(4), 2009) takes the largest of the three. On published TensorRT latencies the sum predicts unseen
families of networks better (Jetson: median error 15 % against 25 %): at batch 1 a kernel is too short to overlap them.
The constants are fitted by tools/fit_latency.py.
"""

from dataclasses import dataclass
from math import ceil

from profiles.cost import Precision
from profiles.fuse import Kernel
from profiles.target import Hardware

TILE_ROWS, TILE_COLUMNS = 64, 64  # output elements of one thread block of a tensor-core kernel

HEAVY = frozenset({"dense", "gemm", "grouped", "depthwise", "recurrent", "fft"})


@dataclass(frozen=True)
class Constants:
    """Fitted per device family; shares and efficiencies are in (0, 1], times in microseconds."""

    dense: float
    gemm: float
    matmul: float
    grouped: float
    depthwise: float
    half_depth: float  # K at which a kernel reaches half of its efficiency
    bandwidth: float  # share of the peak that a kernel gets
    cache_speedup: float  # on traffic that stays in the last-level cache
    launch_us: float  # of a convolution or matrix product, at a GPU clock of 1 GHz
    light_launch_us: float  # of any other kernel; less, because the runtime merges many of them
    fixed_us: float  # per inference


def kernel_ms(kernel: Kernel, hardware: Hardware, constants: Constants) -> tuple[float, str]:
    """Milliseconds of one kernel and what takes the most of them: compute, memory or launch."""
    compute = 0.0
    if kernel.macs:
        compute = (
            2e-9
            * kernel.macs
            / (peak_tops(kernel, hardware) * _efficiency(kernel, constants) * occupancy(kernel, hardware))
        )
    moved = kernel.activation_bytes
    rate = hardware.bandwidth_gbs * constants.bandwidth * 1e6  # bytes per millisecond
    speedup = constants.cache_speedup if moved <= hardware.cache_kib * 1024 else 1.0
    memory = kernel.weight_bytes / rate + moved / (rate * speedup)
    launch = (constants.launch_us if kernel.kind in HEAVY else constants.light_launch_us) / hardware.clock_mhz
    parts = {"compute": compute, "memory": memory, "launch": launch}
    return compute + memory + launch, max(parts, key=lambda name: parts[name])


def peak_tops(kernel: Kernel, hardware: Hardware) -> float:
    """Tera-operations per second of the units that run this kernel."""
    tops = hardware.tops
    if kernel.kind in ("depthwise", "recurrent", "fft"):  # no tensor cores; two half-precision lanes per core
        return tops["fp32"] * (1.0 if kernel.precision == "fp32" else 2.0)
    order: dict[Precision, tuple[str, ...]] = {
        "int8": ("int8", "fp16", "fp32"),
        "fp16": ("fp16", "fp32"),
        "bf16": ("bf16", "fp16", "fp32"),
        "fp32": ("tf32", "fp32"),  # TensorRT runs FP32 graphs in TF32 where the GPU has it, unless told otherwise
    }
    return next(tops[name] for name in order[kernel.precision] if name in tops)


def _efficiency(kernel: Kernel, constants: Constants) -> float:
    share = {
        "dense": constants.dense,
        "gemm": constants.gemm,
        "matmul": constants.matmul,
        "grouped": constants.grouped,
        "depthwise": constants.depthwise,
    }.get(kernel.kind, constants.matmul)
    if kernel.kind == "depthwise":
        return share
    return share * kernel.depth / (kernel.depth + constants.half_depth)


def occupancy(kernel: Kernel, hardware: Hardware) -> float:
    """Share of the processors that work: the last wave of thread blocks is not full."""
    if not kernel.channels or kernel.kind in ("depthwise", "recurrent", "fft"):
        return 1.0
    rows = ceil(kernel.elements / kernel.channels / TILE_ROWS)
    blocks = rows * ceil(kernel.channels / TILE_COLUMNS)
    # TensorRT splits K where there are few blocks, so a small kernel still reaches a quarter of the processors.
    return max(blocks / (ceil(blocks / hardware.units) * hardware.units), 0.25)
