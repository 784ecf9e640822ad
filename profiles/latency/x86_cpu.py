"""Kernels on one x86 core under onnxruntime: nanoseconds per unit of work, by the route that a kernel takes.

`x86_calls` says which route of onnxruntime a kernel takes and how much work of each kind that is; here are what one
unit costs, fitted by `profiles.calibration`, and the sum. Nothing is ever negative, so more work never costs less.
"""

from dataclasses import dataclass

from profiles.errors import ProfileError
from profiles.fuse import Kernel
from profiles.latency.x86_calls import ROUTES, calls
from profiles.target import Hardware


@dataclass(frozen=True)
class Constants:
    """The core that was measured, and nanoseconds per unit of each count of each route, in the order of `ROUTES`."""

    lanes: float  # float32 in a vector register: 16 with AVX-512, 8 with AVX2
    cache_kib: float  # of one core; what does not fit into it is streamed
    peaks: tuple[float, ...]  # of the core that was measured: MHz, TOP/s in fp32 and in int8, GB/s
    fixed_us: float  # per inference
    conv_blocked: tuple[float, ...]
    conv_pointwise: tuple[float, ...]
    conv_first: tuple[float, ...]
    conv_depthwise: tuple[float, ...]
    conv_columns: tuple[float, ...]
    conv_channels: tuple[float, ...]
    conv_transpose: tuple[float, ...]
    conv_activation: tuple[float, ...]
    skip: tuple[float, ...]
    qconv: tuple[float, ...]
    qconv_depthwise: tuple[float, ...]
    qconv_grouped: tuple[float, ...]
    gemm: tuple[float, ...]
    qgemm: tuple[float, ...]
    matmul: tuple[float, ...]
    qmatmul: tuple[float, ...]
    lstm: tuple[float, ...]
    gru: tuple[float, ...]
    fft: tuple[float, ...]
    pool: tuple[float, ...]
    pool_plain: tuple[float, ...]
    average_plain: tuple[float, ...]
    qpool: tuple[float, ...]
    qpool_plain: tuple[float, ...]
    qaverage: tuple[float, ...]
    mean: tuple[float, ...]
    reduce: tuple[float, ...]
    qmean: tuple[float, ...]
    arithmetic: tuple[float, ...]
    broadcast: tuple[float, ...]
    function: tuple[float, ...]
    qarithmetic: tuple[float, ...]
    qbroadcast: tuple[float, ...]
    qtable: tuple[float, ...]
    quantize: tuple[float, ...]
    dequantize_weights: tuple[float, ...]
    norm: tuple[float, ...]
    skip_norm: tuple[float, ...]
    softmax: tuple[float, ...]
    qsoftmax: tuple[float, ...]
    resize: tuple[float, ...]
    qresize: tuple[float, ...]
    copy: tuple[float, ...]
    qcopy: tuple[float, ...]
    transpose: tuple[float, ...]
    transpose_inner: tuple[float, ...]
    qtranspose: tuple[float, ...]
    qtranspose_inner: tuple[float, ...]
    reorder: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check that the constants are those of the counts that there are.

        Raises:
            ProfileError: they were fitted for other counts, by another version of this package.
        """
        for route, counts in ROUTES.items():
            given = getattr(self, route)
            if len(given) != len(counts):
                raise ProfileError(
                    f"the latency model has {len(given)} constants for {route}, which has {len(counts)} counts",
                    fix="calibrate again: compress targets calibrate x86",
                )


def kernel_ms(kernel: Kernel, hardware: Hardware, constants: Constants) -> tuple[float, str]:
    """Milliseconds of one kernel on one core, and what takes the most of them: "compute", "memory" or "launch"."""
    clock, fp32, int8, bandwidth = constants.peaks
    slower = {
        "launch": clock / hardware.clock_mhz,
        "compute": fp32 / (hardware.tops.get("fp32") or fp32),
        "int8": int8 / (hardware.tops.get("int8") or hardware.tops.get("fp32") or int8),
        "memory": bandwidth / hardware.bandwidth_gbs,
    }
    compute = memory = launch = 0.0
    for route, counts in calls(kernel, int(constants.lanes), constants.cache_kib * 1024):
        for count, (_, resource), each in zip(counts, ROUTES[route], getattr(constants, route), strict=True):
            nanoseconds = count * each * slower[resource]
            if resource == "memory":
                memory += nanoseconds
            elif resource == "launch":
                launch += nanoseconds
            else:
                compute += nanoseconds
    parts = {"compute": compute, "memory": memory, "launch": launch}
    return (compute + memory + launch) / 1e6, max(parts, key=lambda name: parts[name])
