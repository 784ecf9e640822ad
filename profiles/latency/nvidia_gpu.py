"""Kernels on an NVIDIA GPU under TensorRT: work and traffic that overlap in part, and a launch, added per kernel.

    compute = 2 MACs / (peak * efficiency(kind, K) * occupancy)
    memory  = bytes / (bandwidth * share)
    t       = max(compute, memory) + (1 - overlap) * min(compute, memory) + launch

The sum over the kernels plus a fixed time per inference is the latency. An overlap of 1 is the roofline (S. Williams,
A. Waterman, D. Patterson, CACM 52(4), 2009), 0 the plain sum: short kernels at batch 1 overlap little, large batches
almost fully. The constants are fitted by tools/fit_latency.py.
"""

from dataclasses import dataclass
from math import ceil

from profiles.cost import Precision
from profiles.fuse import Kernel
from profiles.target import Hardware

TILE = 64 * 64  # output elements of one thread block of a tensor-core kernel
COLUMNS = 32  # narrowest tile: fewer output channels take as long
SPLIT = 0.25  # TensorRT splits K where there are few blocks, so a small kernel still reaches this share of the GPU

HEAVY = frozenset({"dense", "gemm", "matmul", "grouped", "depthwise", "recurrent", "fft"})
_CORES = frozenset({"depthwise", "recurrent", "fft"})  # no tensor cores
_TILED = frozenset({"dense", "gemm"})


@dataclass(frozen=True)
class Constants:
    """Fitted per device family; shares and efficiencies are in (0, 1], times in microseconds."""

    dense: float
    gemm: float
    attention: float  # product, softmax and product in one kernel
    matmul: float
    grouped: float
    depthwise: float
    half_depth: float  # K at which a convolution or matrix product reaches half of its efficiency
    bandwidth: float  # share of the peak that a kernel gets
    cache_speedup: float  # on traffic that stays in the last-level cache
    overlap: float  # share of the shorter of compute and memory that hides behind the longer
    launch_us: float  # of a convolution or matrix product, at a GPU clock of 1 GHz
    light_launch_us: float  # of any other kernel; less, because the runtime merges many of them
    fixed_us: float  # per inference


def kernel_ms(kernel: Kernel, hardware: Hardware, constants: Constants) -> tuple[float, str]:
    """Milliseconds of one kernel and what takes the most of them: compute, memory or launch."""
    compute = 0.0
    if kernel.macs:
        share = efficiency(kernel, constants) * occupancy(kernel, hardware)
        compute = 2e-9 * kernel.macs * widened(kernel) / (peak_tops(kernel, hardware) * share)
    moved = kernel.activation_bytes
    rate = hardware.bandwidth_gbs * constants.bandwidth * 1e6  # bytes per millisecond
    speedup = constants.cache_speedup if moved <= hardware.cache_kib * 1024 else 1.0
    memory = kernel.weight_bytes / rate + moved / (rate * speedup)
    launch = (constants.launch_us if kernel.kind in HEAVY else constants.light_launch_us) / hardware.clock_mhz
    body = compute + memory - constants.overlap * min(compute, memory)
    if launch >= compute and launch >= memory:
        return body + launch, "launch"
    return body + launch, "compute" if compute >= memory else "memory"


def peak_tops(kernel: Kernel, hardware: Hardware) -> float:
    """Tera-operations per second of the units that run this kernel."""
    tops = hardware.tops
    if kernel.kind in _CORES:  # two half-precision lanes per core
        return tops["fp32"] * (1.0 if kernel.precision == "fp32" else 2.0)
    return next(tops[name] for name in _UNITS[kernel.precision] if name in tops)


_UNITS: dict[Precision, tuple[str, ...]] = {
    "int8": ("int8", "fp16", "fp32"),
    "fp16": ("fp16", "fp32"),
    "bf16": ("bf16", "fp16", "fp32"),
    "fp32": ("tf32", "fp32"),  # TensorRT runs FP32 graphs in TF32 where the GPU has it, unless told otherwise
}


def kind_of(kernel: Kernel) -> str:
    """The efficiency that holds for a kernel: the name of a field of `Constants`."""
    if kernel.kind == "matmul" and any("softmax" in name.lower() for name in kernel.operators):
        return "attention"
    return kernel.kind if kernel.kind in ("dense", "gemm", "grouped", "depthwise") else "matmul"


def is_deep(kernel: Kernel) -> bool:
    """Whether its efficiency grows with K: not where K is the window alone, or softmax stands between two products."""
    return kind_of(kernel) not in ("depthwise", "attention")


def efficiency(kernel: Kernel, constants: Constants) -> float:
    """Share of the peak that a kernel of this kind and depth reaches on a full GPU."""
    share: float = getattr(constants, kind_of(kernel))
    depth = max(kernel.depth, 1)
    return share * depth / (depth + constants.half_depth) if is_deep(kernel) else share


def widened(kernel: Kernel) -> float:
    """Multiply-accumulates that run over those that count: narrow outputs fill a tile, int8 pads its inputs."""
    if kernel.kind not in _TILED or not kernel.channels:
        return kernel.padding
    return kernel.padding * _columns(kernel) / kernel.channels


def _columns(kernel: Kernel) -> int:
    return ceil(kernel.channels / COLUMNS) * COLUMNS if kernel.kind in _TILED else kernel.channels


def occupancy(kernel: Kernel, hardware: Hardware) -> float:
    """Share of the processors that work: the last wave of thread blocks is not full."""
    if not kernel.channels or kernel.kind in _CORES:
        return 1.0
    blocks = kernel.elements / kernel.channels * _columns(kernel) / TILE
    return max(blocks / (ceil(blocks / hardware.units) * hardware.units), SPLIT)
