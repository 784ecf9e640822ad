"""The Cortex-M model: by hand, against the tool that fits it, and against counts of emulated cores."""

import importlib
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

import profiles
from exporters import onnx_to_c
from profiles.fuse import Kernel, fuse
from profiles.latency import cortex_m
from profiles.latency.cortex_m import Constants
from profiles.latency.models import latency_model
from profiles.runners import on_cortex_m

TOOLS = Path(__file__).parents[3] / "tools"
CORES = ("cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
needs_board = pytest.mark.skipif(on_cortex_m.available() is not None, reason=str(on_cortex_m.available()))

CONV = Kernel(
    name="conv", kind="dense", operators=("Conv",), macs=100 * 8 * 27, depth=27, channels=8, elements=800, weights=(),
    reads=("x",), writes=("y",), read_bytes=300, written_bytes=800, weight_bytes=216, precision="int8",
    vector_elements=800,
)  # fmt: skip


def constants(**given: float) -> Constants:
    return Constants(**{**{f.name: 0.0 for f in fields(Constants)}, **given})


@pytest.fixture(scope="module")
def tools() -> tuple[ModuleType, ModuleType]:
    """tools/mlperf_tiny.py and tools/fit_cortex_m.py."""
    pytest.importorskip("scipy")
    sys.path.insert(0, str(TOOLS))
    try:
        return importlib.import_module("mlperf_tiny"), importlib.import_module("fit_cortex_m")
    finally:
        sys.path.remove(str(TOOLS))


def test_vectors_make_what_is_left_of_a_filter_cost_as_much() -> None:
    whole = constants(dense=1.0)
    assert cortex_m.instructions(CONV, whole) == 21_600
    assert cortex_m.instructions(CONV, replace(whole, depth_step=16)) == pytest.approx(21_600 * 32 / 27)
    channels = replace(CONV, kind="depthwise", channels=12)
    step = constants(depthwise=1.0, channel_step=8)
    assert cortex_m.instructions(channels, step) == pytest.approx(21_600 * 16 / 12)


def test_windows_that_overlap_are_copied() -> None:
    copied = constants(gathered_byte=2.0)
    assert cortex_m.instructions(CONV, copied) == 2 * 100 * 27  # 100 positions, 27 bytes each, of 300 bytes
    pointwise = replace(CONV, depth=3, macs=2400, read_bytes=300)
    assert cortex_m.instructions(pointwise, copied) == 0
    assert cortex_m.instructions(CONV, constants(position=7.0)) == 700


def test_a_filter_bank_on_a_spectrum_is_sparse() -> None:
    bank = replace(
        CONV, kind="gemm", precision="fp32", depth=129, channels=32, elements=320, macs=320 * 129, vector_elements=0
    )
    assert cortex_m.instructions(bank, constants(float_gemm=3.0)) == pytest.approx(3 * 10 * 129 * 2)
    dense = replace(bank, depth=130, macs=320 * 130)
    assert cortex_m.instructions(dense, constants(float_gemm=3.0)) == 3 * 320 * 130


@pytest.mark.parametrize("core", CORES)
def test_every_core_has_constants_of_its_own(core: str) -> None:
    model = latency_model(profiles.target(core))
    assert not model.stretched
    assert core in model.origin
    cycles = cortex_m.cycles(core)
    assert model.constants.cycles_per_instruction == cycles.per_instruction
    assert model.interval[0] <= cycles.low
    assert model.interval[1] >= cycles.high


def test_instructions_rank_the_cores() -> None:
    per_mac = {core: latency_model(profiles.target(core)).constants.dense for core in CORES}
    assert per_mac["cortex-m55"] < 0.2 * per_mac["cortex-m33"]  # sixteen products in one instruction against two
    assert per_mac["cortex-m3"] > 1.5 * per_mac["cortex-m33"]


def test_the_formula_is_linear_as_the_fit_takes_it(tools: tuple[ModuleType, ModuleType]) -> None:
    _, fit = tools
    for core in ("cortex-m33", "cortex-m55"):
        given = latency_model(profiles.target(core)).constants
        for kernel in (CONV, replace(CONV, kind="depthwise"), replace(CONV, kind="pool", macs=0)):
            row = np.array(fit.design(kernel, core))
            values = np.array([getattr(given, name) for name in fit.NAMES])
            assert row @ values == pytest.approx(cortex_m.instructions(kernel, given))


def test_a_fit_finds_the_constants_that_made_the_counts(tools: tuple[ModuleType, ModuleType]) -> None:
    _, fit = tools
    truth = constants(dense=1.5, element=20.0, depth_step=4, channel_step=4)
    cases = []
    for depth in (12, 36, 72, 144, 288):
        kernels = [
            replace(CONV, depth=depth, channels=c, macs=depth * c * 50, elements=c * 50, read_bytes=10**6)
            for c in (4, 16)
        ]
        cases.append([*((k, cortex_m.instructions(k, truth)) for k in kernels), (None, 0.0)])
    found = dict(zip(fit.NAMES, fit.fit(cases, "cortex-m33"), strict=True))
    assert found["dense"] == pytest.approx(1.5, rel=1e-6)
    assert found["element"] == pytest.approx(20, rel=1e-6)
    assert fit.total(cases[0], np.array(list(found.values())), "cortex-m33") == pytest.approx(1)


def test_cycles_by_hand(tools: tuple[ModuleType, ModuleType]) -> None:
    _, fit = tools
    sizes = {"a": (100.0, 1.0), "b": (50.0, 4.0), "c": (80.0, 0.0)}
    medians = {name: 1.5 * one + 10.0 * two for name, (one, two) in sizes.items()}
    assert fit.cycles_of(medians, sizes) == pytest.approx([1.5, 10.0])


def test_the_benchmark_networks_have_the_published_sizes(tools: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    tiny, _ = tools
    for name, published in tiny.PUBLISHED_MACS.items():
        cost = profiles.profile(tiny.write(name, tmp_path), target="cortex-m4", layers=False)
        assert cost.macs == pytest.approx(published, rel=0.004)  # they count pool and softmax too
        assert cost.precision == "int8"
        assert not cost.uncounted


@needs_board
@pytest.mark.parametrize("core", ["cortex-m33", "cortex-m55"])
def test_prediction_is_near_the_emulated_count(core: str, tools: tuple[ModuleType, ModuleType], tmp_path: Path) -> None:
    tiny, _ = tools
    rng = np.random.default_rng(7)
    net = tiny.Network((1, 2, 20, 20), rng).conv(16, 3, 2).separable(24).residual(3).head(6)
    path = tmp_path / "net.onnx"
    onnx.save(tiny.quantised(net.model(), rng), str(path))
    target = profiles.target(core)
    given = latency_model(target).constants
    kernels = fuse(profiles.read(path), "cortex-m").kernels
    predicted = sum(cortex_m.instructions(kernel, given) for kernel in kernels)
    with on_cortex_m.load(onnx_to_c.convert(path, target, tmp_path).path) as board:
        emulated = board.emulate({"x": rng.normal(size=(1, 2, 20, 20)).astype(np.float32)}).instructions[0]
    assert predicted == pytest.approx(emulated, rel=0.25)
