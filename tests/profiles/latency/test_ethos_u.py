"""Layers on an Ethos-U: steps and cycles worked by hand, and how near the model is to Vela."""

import importlib
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import profiles
from exporters import onnx_to_tflite
from profiles.errors import ProfileError
from profiles.fuse import Kernel, fuse
from profiles.latency import cortex_m
from profiles.latency.ethos_u import Constants, kernel_ms, on_core, padded, steps
from profiles.latency.models import latency_model
from profiles.runners import on_vela
from profiles.runners.on_vela import ACCELERATORS, System
from profiles.target import Hardware

needs_vela = pytest.mark.skipif(on_vela.available() is not None, reason=str(on_vela.available()))
TOOLS = Path(__file__).parents[3] / "tools"
BLOCK = (2, 1, 8)
HARDWARE = Hardware(100.0, 1, {"int8": 1.0}, 0.8, flash_gbs=0.1, core="ethos-u55-128")  # 8 and 1 bytes per cycle
CONSTANTS = Constants(BLOCK, 1.0, 1.0, 2.0, 0.5, 10.0, 1.5, 0.5, 1.25, 1.0, 1.0, 100.0)


def conv(channels: int, depth: int, places: tuple[int, ...], shape: tuple[int, ...], kind: str = "dense") -> Kernel:
    elements = int(np.prod(shape))
    return Kernel(
        "conv", kind, ("Conv",), elements * depth, depth, channels, elements, (), ("x",), ("y",), elements, elements,
        64, "int8", 0, window=places, shape=shape,
    )  # type: ignore[arg-type]  # fmt: skip


def pointwise(reads: tuple[str, ...], elements: int, read_bytes: int, precision: str = "int8") -> Kernel:
    return Kernel(
        "add", "pointwise", ("Add",), 0, 0, 0, elements, (), reads, ("y",), read_bytes, elements, 0, precision, 0,
        shape=(1, 16, 1, elements // 16),
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.fixture(scope="module")
def tools() -> tuple[ModuleType, ModuleType]:
    """tools/mlperf_tiny.py and tools/fit_ethos_u.py."""
    pytest.importorskip("scipy")
    sys.path.insert(0, str(TOOLS))
    try:
        return importlib.import_module("mlperf_tiny"), importlib.import_module("fit_ethos_u")
    finally:
        sys.path.remove(str(TOOLS))


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        # 32 x 32 outputs of 16 channels are 16 * 32 * 2 blocks; 9 places: 12 in fours, 16 channels in 2 eights
        (conv(16, 144, (3, 3), (1, 16, 32, 32)), 1024 * 12 * 2),
        # 32 channels of depth are walked whole: 9 * 4, less than 12 * 4
        (conv(32, 288, (3, 3), (1, 32, 16, 16)), 8 * 16 * 4 * 36),
        (conv(64, 64, (1, 1), (1, 64, 25, 5)), 3 * 25 * 8 * 8),  # width 5 is three blocks
        (conv(64, 9, (3, 3), (1, 64, 25, 5), "depthwise"), 3 * 25 * 8 * 12),
        (conv(24, 27, (3,), (1, 24, 10)), 5 * 3 * min(3 * 4, 4 * 2)),  # along one axis
        (conv(10, 64, (), (1, 10), "gemm"), 2 * 8),
        (conv(20, 64, (), (3, 20), "gemm"), 3 * 3 * 8),  # a batch of three
    ],
)
def test_steps_worked_by_hand(kernel: Kernel, expected: int) -> None:
    assert steps(kernel, BLOCK) == expected


def test_groups_are_convolutions_of_their_own() -> None:
    whole = conv(32, 72, (3, 3), (1, 32, 8, 8), "grouped")
    four = replace(whole, groups=4)  # 8 outputs of depth 8 each: as many blocks, no padding
    assert steps(four, BLOCK) == 4 * steps(replace(whole, channels=8, shape=(1, 8, 8, 8)), BLOCK)


@pytest.mark.parametrize(
    ("kernel", "cycles", "bound"),
    [
        (conv(16, 144, (3, 3), (1, 16, 32, 32)), 1024 * 24 + 2 * 10 + 100, "compute"),
        (conv(8, 8, (1, 1), (1, 8, 4, 4)), 128 * 0.5 + 10 + 100, "launch"),  # outputs take longer than 32 steps
        (replace(conv(8, 8, (1, 1), (1, 8, 4, 4)), weight_bytes=5000), 5000 + 100, "memory"),
        (replace(conv(8, 8, (1, 1), (1, 8, 4, 4)), read_bytes=15_872), 2000 + 100, "memory"),
        (pointwise(("a", "b"), 1600, 3200), 1600 * 1.5 + 100, "compute"),
        (replace(pointwise(("a",), 64, 6400), kind="pool", shape=(1, 64, 1, 1)), 8000 + 80 + 100, "compute"),
        (replace(pointwise(("a",), 64, 256), kind="pool", window=(2, 2)), 128 + 20 + 100, "compute"),
    ],
)
def test_cycles_worked_by_hand(kernel: Kernel, cycles: float, bound: str) -> None:
    assert kernel_ms(kernel, HARDWARE, CONSTANTS) == (pytest.approx(cycles / 100e3), bound)


def test_channels_are_padded() -> None:
    assert padded(replace(pointwise(("a", "b"), 360, 720), shape=(1, 36, 1, 10)), 16) == 480
    assert padded(pointwise(("a", "b"), 1600, 3200), 16) == 1600


def test_the_core_runs_what_the_npu_does_not() -> None:
    floats = replace(conv(16, 144, (3, 3), (1, 16, 32, 32)), precision="fp32")
    codes = pointwise(("x",), 1600, 6400)  # floats become codes
    for kernel in (floats, codes, *(replace(codes, kind=kind) for kind in ("softmax", "recurrent", "matmul"))):
        assert on_core(kernel)
        assert kernel_ms(kernel, HARDWARE, CONSTANTS) == cortex_m.kernel_ms(
            kernel, HARDWARE, cortex_m.constants("cortex-m55")
        )
    assert not on_core(pointwise(("x",), 1600, 1600))  # codes of another scale
    assert not on_core(pointwise(("a", "b"), 1600, 3200))


@given(st.integers(1, 96), st.integers(1, 96), st.integers(1, 40), st.integers(1, 40))
def test_no_array_is_used_more_than_whole(channels: int, depth: int, height: int, width: int) -> None:
    kernel = conv(channels, 9 * depth, (3, 3), (1, channels, height, width))
    assert 128 * steps(kernel, BLOCK) >= kernel.macs
    assert steps(kernel, (2, 2, 8)) <= steps(kernel, BLOCK) <= steps(kernel, (1, 1, 8))


def test_a_core_that_is_not_known_has_no_constants() -> None:
    with pytest.raises(ProfileError, match="no cycles per instruction are known for 'cortex-m0'"):
        cortex_m.constants("cortex-m0")
    with pytest.raises(ProfileError, match="no cycles per instruction are known for 'cortex-m0'"):
        cortex_m.interval("cortex-m0")


@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_size_has_constants_of_its_own(name: str) -> None:
    found = profiles.target("ethos-u55-128")
    model = latency_model(replace(found, hardware=replace(found.hardware, core=name)))
    assert not model.stretched
    assert "estimator itself" in model.origin
    assert "silicon is not known" in model.origin
    assert model.interval[0] < 1 < model.interval[1]
    block = model.constants.block
    assert 8 * block[0] * block[1] * block[2] == min(256, int(name.split("-")[2]))


def test_the_tool_adds_up_what_the_model_does(tools: tuple[ModuleType, ModuleType]) -> None:
    _, fit = tools
    kernels = [
        conv(16, 144, (3, 3), (1, 16, 32, 32)),
        conv(64, 9, (3, 3), (1, 64, 25, 5), "depthwise"),
        replace(conv(10, 64, (), (1, 10), "gemm"), weight_bytes=9000),
        pointwise(("a", "b"), 1600, 3200),
        replace(pointwise(("a",), 64, 6400), kind="pool", shape=(1, 64, 1, 1)),
    ]
    case = fit.Case("net", HARDWARE, tuple((kernel, 1000.0) for kernel in kernels), None)
    values = np.array([getattr(CONSTANTS, f.name) for f in fields(Constants) if f.name != "block"])
    expected = [kernel_ms(kernel, HARDWARE, CONSTANTS)[0] * 100e3 for kernel in kernels]
    np.testing.assert_allclose(fit.Terms([case], BLOCK).cycles(values), expected)


@needs_vela
def test_networks_that_were_never_fitted_are_near_vela(tools: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    """The four of MLPerf Tiny, with weights that hardly compress and with weights that do."""
    tiny, fit = tools
    target = profiles.target("ethos-u55-128")
    model = latency_model(target)
    assert on_vela.system_of(target) == System("ethos-u55-128")
    ratios = []
    for name in tiny.NETWORKS:
        path = tiny.write(name, tmp_path)
        kernels = [kernel for kernel in fuse(profiles.read(path), "ethos-u").kernels if not on_core(kernel)]
        ours = sum(kernel_ms(kernel, target.hardware, model.constants)[0] for kernel in kernels)
        for trained in (False, True):
            if trained:
                onnx.save(fit.long_tailed(onnx.load(str(path)), np.random.default_rng(0)), str(path))
            written = onnx_to_tflite.convert(path, target, tmp_path).path
            ratios.append(on_vela.estimate(written, System("ethos-u55-128")).latency_ms / ours)
    low, high = model.interval
    assert sum(low < ratio < high for ratio in ratios) >= 7  # of eight: what 90 % asks for
    assert np.median(np.abs(np.log(ratios))) < np.log(1.12)


@needs_vela
def test_operators_are_matched_to_kernels_by_their_names(tools: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    tiny, fit = tools
    rng = np.random.default_rng(0)
    net = tiny.Network((1, 3, 16, 16), rng).conv(12, 3, 2).pool("AveragePool").head(5).model()
    onnx.save(tiny.quantised(net, rng), str(tmp_path / "net.onnx"))
    [(_, case), _] = fit.cases("net", onnx.load(str(tmp_path / "net.onnx")), ["ethos-u55-128"])
    assert sum(cycles for _, cycles in case.pairs) == case.estimate.cycles
    assert all(cycles > 0 for _, cycles in case.pairs)
