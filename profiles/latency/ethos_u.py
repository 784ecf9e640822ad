"""Layers on an Arm Ethos-U beside a Cortex-M55: what Arm's compiler for it (Vela) would estimate, from the graph alone.

The NPU computes a convolution in blocks of its outputs (width x height x channels, one block per step of the array),
and each step takes eight input channels of one place of the filter. Filters are walked in one of two ways, and the
compiler takes the shorter: whole depths of 32 channels, or four places at a time. So for each layer

    steps  = blocks of the output x min(places x depth in 32s / 8, places in 4s x depth in 8s / 8)
    array  = max(steps x cycles per step, outputs x cycles per output) + channel blocks x cycles
    cycles = max(array, SRAM bytes / rate, flash bytes / rate) + start

Additions, pools and means have rates of their own. What the NPU does not run (floats, codes made of the input, softmax,
recurrent layers, products of two activations) runs on the core, at the same clock, at the cost of
profiles/latency/cortex_m.py; Vela's figures leave it out.

Vela compresses weights, by half or hardly at all; their values are not known before training, so a middle is taken.

Constants are fitted on Vela's estimates, layer by layer, with tools/fit_ethos_u.py. Vela is an estimator itself.

Source: Arm's Ethos-U55 technical reference (blocks of outputs, both ways to walk a filter); PERFORMANCE.md of
`ethos-u-vela`.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

from profiles.fuse import Kernel
from profiles.latency import cortex_m
from profiles.target import Hardware

HOST = "cortex-m55"  # the core beside the NPU
LANES = 8  # input channels that one step takes
DEEP = 32  # channels that are walked as a whole where depth comes first
BRICK = 16  # channels that tensors between layers are padded to
PLACES = 4  # of a filter that are walked together where places come first


@dataclass(frozen=True)
class Constants:
    """Of one size of the NPU; cycles where nothing else is said."""

    block: tuple[int, ...]  # (width, height, channels) of the outputs that one step makes
    dense: float  # per step of a convolution that is not depthwise
    depthwise: float  # per step of a depthwise one, one place of the filter in each
    gemm: float  # per step of a fully connected layer
    output: float  # per output element of these, channels padded to the block, at least
    channels: float  # per block of output channels: its weights, scales and biases
    element: float  # per output element of anything pointwise, channels padded to 16
    pooled: float  # per input element of a pool
    averaged: float  # per input element of a mean over the whole map
    sram: float  # bytes that pass through the SRAM's port over those that the layer reads and writes
    flash: float  # bytes that come from flash over those of the weights, which are compressed by what they are
    layer: float  # to start one


_PRODUCTS = frozenset({"dense", "grouped", "depthwise", "gemm"})
_ON_CORE = frozenset({"matmul", "recurrent", "fft", "norm", "softmax", "resize", "other"})


def on_core(kernel: Kernel) -> bool:
    """Whether the core beside the NPU runs it: anything in floats, and where codes are made of floats."""
    if kernel.precision != "int8" or kernel.kind in _ON_CORE:
        return True
    if kernel.macs:
        return False
    return kernel.kind == "pointwise" and kernel.read_bytes > len(kernel.reads) * kernel.elements


def steps(kernel: Kernel, block: tuple[int, ...]) -> float:
    """Steps of the array that a convolution or fully connected layer takes.

    Args:
        kernel: one of an int8 network; `shape` is (N, C), (N, C, W) or (N, C, H, W).
        block: (width, height, channels) of the outputs of one step.
    """
    shape = kernel.shape
    batch = shape[0] if shape else 1
    width = shape[-1] if len(shape) > 2 else 1
    height = math.prod(shape[2:-1]) if len(shape) > 3 else 1
    groups = kernel.groups if kernel.kind == "grouped" else 1
    channels = -(-max(1, kernel.channels) // groups)
    blocks = batch * groups * -(-width // block[0]) * -(-height // block[1]) * -(-channels // block[2])
    places = max(1, math.prod(kernel.window)) if kernel.window else 1
    in_fours = -(-places // PLACES) * PLACES
    if kernel.kind == "depthwise":
        return float(blocks * in_fours)
    depth = max(1, kernel.depth // places)
    deep = places * -(-depth // DEEP) * (DEEP // LANES)
    return float(blocks * min(deep, in_fours * -(-depth // LANES)))


def parts(kernel: Kernel, hardware: Hardware, constants: Constants) -> tuple[float, float, float]:
    """Cycles of one run of an NPU's kernel: of the array, of the SRAM's port and of the flash's."""
    made = channel_blocks(kernel, constants.block)
    if kernel.kind in _PRODUCTS:
        per_step = {"depthwise": constants.depthwise, "gemm": constants.gemm}.get(kernel.kind, constants.dense)
        written = constants.output * padded(kernel, constants.block[2])
        array = max(per_step * steps(kernel, constants.block), written) + constants.channels * made
    elif kernel.kind in ("pool", "reduce"):
        whole = kernel.kind == "reduce" or not kernel.window
        array = (constants.averaged if whole else constants.pooled) * kernel.read_bytes + constants.channels * made
    else:
        array = constants.element * padded(kernel, BRICK)
    per_cycle = hardware.bandwidth_gbs * 1e3 / hardware.clock_mhz
    from_flash = (hardware.flash_gbs or hardware.bandwidth_gbs) * 1e3 / hardware.clock_mhz
    sram = constants.sram * kernel.activation_bytes / per_cycle
    return array, sram, constants.flash * kernel.weight_bytes / from_flash


def channel_blocks(kernel: Kernel, block: tuple[int, ...]) -> int:
    """Blocks of output channels."""
    return -(-_channels(kernel) // block[2])


def padded(kernel: Kernel, multiple: int) -> float:
    """Output elements where channels are padded to a multiple."""
    channels = _channels(kernel)
    return kernel.elements * (-(-channels // multiple) * multiple / channels)


def _channels(kernel: Kernel) -> int:
    return max(1, kernel.shape[1] if len(kernel.shape) > 1 else kernel.channels)


def kernel_ms(kernel: Kernel, hardware: Hardware, constants: Constants) -> tuple[float, str]:
    """Milliseconds of one kernel, on the NPU or on the core, and what bounds it: compute, memory or launch."""
    if on_core(kernel):
        return cortex_m.kernel_ms(kernel, hardware, host())
    array, sram, flash = parts(kernel.once, hardware, constants)
    most = max(array, sram, flash)
    bound = "launch" if constants.layer > most else "compute" if array >= most else "memory"
    return kernel.repeats * (most + constants.layer) / (hardware.clock_mhz * 1e3), bound


@lru_cache(maxsize=1)
def host() -> cortex_m.Constants:
    """Constants of the core beside the NPU."""
    return cortex_m.constants(HOST)
