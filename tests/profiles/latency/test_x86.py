"""The x86 model: calls and counts of kernels worked by hand, and their sum."""

from dataclasses import replace

import numpy as np
import pytest

import profiles
from profiles.calibration.build import Net
from profiles.fuse import Kernel, fuse
from profiles.graph import Weight
from profiles.latency.x86_calls import ROUTES, calls
from profiles.latency.x86_cpu import Constants, kernel_ms
from profiles.target import Hardware

HARDWARE = Hardware(clock_mhz=1000, units=1, tops={"fp32": 1.0, "int8": 4.0}, bandwidth_gbs=10.0)
PEAKS = (1000.0, 1.0, 4.0, 10.0)


def conv(inputs: int = 32, outputs: int = 32, side: int = 14, area: int = 9, groups: int = 1) -> Kernel:
    """A 3x3 (or 1x1) convolution at stride 1 that keeps the size, with a ReLU."""
    depth = inputs // groups * area
    elements = outputs * side * side
    return Kernel(
        name="conv",
        kind="dense" if groups == 1 else "depthwise" if groups == outputs else "grouped",
        operators=("Conv", "Relu"),
        macs=elements * depth,
        depth=depth,
        channels=outputs,
        elements=elements,
        weights=(Weight("w", outputs * depth, "float32"), Weight("b", outputs, "float32", bias=True)),
        reads=("x",),
        writes=("y",),
        read_bytes=4 * inputs * side * side,
        written_bytes=4 * elements,
        weight_bytes=4 * outputs * depth,
        precision="fp32",
        vector_elements=elements,
        groups=groups,
        window=(3, 3) if area == 9 else (1, 1),
        strides=(1, 1),
        shape=(1, outputs, side, side),
        source=(1, inputs, side, side),
    )


def constants(**given: tuple[float, ...]) -> Constants:
    tables = {route: given.get(route, (0.0,) * len(counts)) for route, counts in ROUTES.items()}
    return Constants(lanes=16, cache_kib=1024, peaks=PEAKS, fixed_us=5.0, **tables)


def test_a_blocked_convolution_by_hand() -> None:
    [(route, counts)] = calls(conv(inputs=32, outputs=40))
    assert route == "conv_blocked"
    # 14 rows of windows, of which the first and last lack one of their three lines: 40 of 42 are left. 40 outputs are 3
    # blocks of 16. A row of 14 columns has one at each edge, and 12 inside in 2 tiles of 6: 4 tiles.
    depth = 9 * 32 * 40 / 42
    assert counts == pytest.approx((1, 196 * depth * 48, 14 * 4 * depth * 3, 196 * depth, 2 * 196 * 48, 9 * 32 * 48, 0))


@pytest.mark.parametrize(
    ("kernel", "route"),
    [
        (conv(), "conv_blocked"),
        (conv(area=1), "conv_pointwise"),
        (conv(inputs=3), "conv_first"),
        (conv(inputs=18), "conv_columns"),  # not a multiple of 4
        (conv(groups=32), "conv_depthwise"),
        (conv(groups=4), "conv_columns"),  # 8 channels of a group are no block
        (conv(inputs=64, outputs=64, groups=4), "conv_blocked"),
        (replace(conv(), shape=(1, 32, 196), source=(1, 32, 196), window=(9,), strides=(1,)), "conv_columns"),
        (replace(conv(), precision="int8", operators=("Conv", "Relu", "QuantizeLinear")), "qconv"),
        (replace(conv(groups=32), precision="int8", operators=("Conv", "QuantizeLinear")), "qconv_depthwise"),
    ],
)
def test_the_route_of_a_convolution(kernel: Kernel, route: str) -> None:
    assert [name for name, _ in calls(kernel)] == [route]


def test_vectors_of_eight_pad_less() -> None:
    wide, narrow = (dict(calls(conv(outputs=24), lanes)) for lanes in (16, 8))
    assert wide["conv_blocked"][1] == pytest.approx(32 / 24 * narrow["conv_blocked"][1])


def test_operators_that_onnxruntime_does_not_run_inside_a_convolution_are_calls_of_their_own() -> None:
    def names(*operators: str, **changed: object) -> list[str]:
        return [name for name, _ in calls(replace(conv(), operators=operators, **changed))]  # type: ignore[arg-type]

    assert names("Conv", "HardSwish") == ["conv_blocked", "conv_activation"]
    assert names("Conv", "Gelu") == ["conv_blocked", "function"]
    assert names("Conv", "Sigmoid", "Mul") == ["conv_blocked", "conv_activation", "arithmetic"]
    assert names("Sigmoid", "Mul", kind="pointwise") == ["function"]
    assert names("Conv", "Add", "Relu") == ["conv_blocked", "skip"]
    coded = {"precision": "int8"}
    assert names("Conv", "Relu", "QuantizeLinear", **coded) == ["qconv"]
    assert names("Conv", "QuantizeLinear", "Sigmoid", "QuantizeLinear", **coded) == ["qconv", "qtable"]
    assert names("Conv", "QuantizeLinear", "Gelu", "QuantizeLinear", **coded) == [
        "qconv",
        "quantize",
        "function",
        "quantize",
    ]


def test_codes_without_a_rounded_result_are_run_in_float() -> None:
    kernel = replace(conv(), precision="int8", operators=("Conv", "Relu"), weights=(Weight("w", 9216, "int8"),))
    assert [name for name, _ in calls(kernel)] == ["quantize", "dequantize_weights", "conv_blocked"]


def test_nanoseconds_are_scaled_by_the_figures_that_limit_them() -> None:
    # 2 us per call, 1/2 ns per output, of 14 * 14 * 32 that are written twice, and 1 ns per stored weight.
    fitted = constants(conv_blocked=(2000.0, 0.0, 0.0, 0.0, 0.5, 1.0, 0.0))
    latency, bound = kernel_ms(conv(), HARDWARE, fitted)
    assert latency == pytest.approx((2000 + 6272 + 9216) / 1e6)
    assert bound == "memory"
    other = replace(HARDWARE, clock_mhz=2000, tops={"fp32": 4.0, "int8": 16.0}, bandwidth_gbs=20.0)
    assert kernel_ms(conv(), other, fitted)[0] == pytest.approx((1000 + 6272 / 4 + 9216 / 2) / 1e6)


def test_a_sum_that_only_a_layer_normalisation_reads_is_one_operator() -> None:
    net = Net((1, 8, 16), np.random.default_rng(0))
    x = net.norm(net.add(net.x, net.linear(net.x, 16)))  # SkipLayerNormalization
    kept = net.add(x, net.linear(x, 16))
    model = net.model(net.average(net.add(net.norm(kept), kept)))
    kernels = fuse(profiles.read(model), "x86-cpu").kernels
    names = [[name for name, _ in calls(kernel)] for kernel in kernels]
    assert names == [["gemm", "skip_norm"], ["gemm", "arithmetic"], ["norm"], ["arithmetic"], ["reduce"]]
    on_a_gpu = fuse(profiles.read(model), "nvidia-gpu").kernels
    assert [kernel.kind for kernel in on_a_gpu].count("norm") == 2
