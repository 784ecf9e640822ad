"""An NPU's cost by its vendor's tool: what is added, what is said, and what happens without it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import profiles
from exporters import onnx_to_tflite
from exporters.cost_here import cost_here
from exporters.cost_there import cost_there
from exporters.errors import ExportError
from exporters.estimate import estimate
from profiles.abilities import ability
from profiles.errors import ProfileError
from profiles.latency import cortex_m
from profiles.remote import Remote
from profiles.runners import on_vela
from profiles.runners.on_vela import System

needs_vela = pytest.mark.skipif(on_vela.available() is not None, reason=str(on_vela.available()))
SIDE, CHANNELS = 16, 16
MACS = SIDE * SIDE * CHANNELS * CHANNELS * 9


def write(path: Path, codes: bool = True, softmax: bool = False) -> Path:
    """A 3x3 convolution of 16 channels, 16 x 16, with Q/DQ pairs or in floats; a softmax behind it."""
    rng = np.random.default_rng(0)
    stored = {"s": np.float32(0.05), "z": np.int8(-3), "ws": np.full(CHANNELS, 1e-3, np.float32)}
    weights = rng.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3)).astype(np.int8)
    nodes = [helper.make_node("Conv", ["d", "wd"] if codes else ["x", "w"], ["c"], name="conv", pads=[1] * 4)]
    if codes:
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="coded"),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
            helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=0),
            *nodes,
            helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"]),
            helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["cd"]),
        ]
    stored["w"] = weights if codes else weights.astype(np.float32)
    last = "cd" if codes else "c"
    nodes.append(helper.make_node("Softmax" if softmax else "Identity", [last], ["y"], name="end"))
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write(tmp_path / "net.onnx")


@needs_vela
def test_it_is_velas_estimate_and_the_core_beside_it(model: Path, tmp_path: Path) -> None:
    target = profiles.target("ethos-u55-128")
    alone = on_vela.measure(onnx_to_tflite.convert(model, target, tmp_path).path, target)
    cost = estimate(model, target)
    [coded] = [layer for layer in cost.layers if layer.name == "coded"]
    assert cost.origin == "predicted"
    assert cost.notes[0].startswith("vela estimate, not measured")
    assert "cortex-m55 beside it" in cost.notes[1]
    assert "coded" in cost.notes[1]
    assert "silicon is not known" in cost.notes[-1]
    assert cost.latency_ms == pytest.approx(alone.latency_ms + coded.latency_ms)
    low, high = cortex_m.interval("cortex-m55")
    assert cost.interval_ms[0] == pytest.approx(alone.interval_ms[0] + low * coded.latency_ms)
    assert cost.interval_ms[1] == pytest.approx(alone.interval_ms[1] + high * coded.latency_ms)
    assert cost.macs == MACS == sum(layer.macs for layer in cost.layers)
    assert sum(layer.latency_ms for layer in cost.layers) == pytest.approx(cost.latency_ms)


@needs_vela
def test_what_follows_in_floats_runs_on_the_core(model: Path, tmp_path: Path) -> None:
    target = profiles.target("ethos-u55-128")
    longer = estimate(write(tmp_path / "soft.onnx", softmax=True), target)
    assert longer.latency_ms > estimate(model, target).latency_ms
    assert "end" in longer.notes[1]


@needs_vela
def test_memories_and_the_npu_are_those_of_the_target(model: Path) -> None:
    found = {name: estimate(model, profiles.target(name)) for name in ("ethos-u55-128", "ethos-u55-256")}
    assert "ethos-u55-128 at 500 MHz, SRAM 4 GB/s, flash 0.5 GB/s" in found["ethos-u55-128"].notes[0]
    assert "ethos-u55-256 at 220 MHz, SRAM 1.76 GB/s, flash 0.22 GB/s" in found["ethos-u55-256"].notes[0]
    for cost in found.values():
        assert cost.interval_ms[0] < cost.latency_ms < cost.interval_ms[1]


def test_the_system_of_a_target() -> None:
    assert on_vela.system_of(profiles.target("ethos-u55-128")) == System()
    assert on_vela.system_of(profiles.target("ethos-u55-128:200mhz")) == System("ethos-u55-128", 200, 1.6, 0.1)
    assert on_vela.system_of(profiles.target("ethos-u65-256")) == System("ethos-u65-256", 500, 8.0, 0.5)
    assert on_vela.system_of(profiles.target("cortex-m55")) == System("ethos-u55-128", 220, 1.76, 0.22)


@needs_vela
def test_the_best_figure_here_is_the_estimate(model: Path) -> None:
    target = profiles.target("ethos-u55-128")
    can = ability(target)
    assert (can.level, can.runner) == ("estimate", "on_vela")
    assert cost_here(model, target) == estimate(model, target)
    assert cost_here(model, target, batch=1).latency_ms == pytest.approx(estimate(model, target).latency_ms)


def test_without_vela_it_is_the_models_own_prediction(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_vela, "available", lambda: "ethos-u-vela is not installed: pip install ethos-u-vela")
    target = profiles.target("ethos-u55-128")
    own = profiles.profile(model, target)
    assert ability(target).level == "predict"
    for cost in (estimate(model, target), cost_here(model, target)):
        assert "pip install ethos-u-vela" in cost.notes[0]
        assert replace(cost, notes=own.notes) == own


@needs_vela
def test_a_network_in_floats_is_the_cores_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "float.onnx", codes=False)
    target = profiles.target("ethos-u55-128")
    cost = estimate(path, target)
    assert cost.notes[0].startswith("predicted from the graph, not by vela:")
    assert "no quantised layers" in cost.notes[0]
    core = replace(
        profiles.target("cortex-m55"), hardware=replace(profiles.target("cortex-m55").hardware, clock_mhz=500)
    )
    on_core = profiles.profile(path, core)
    assert cost.latency_ms == pytest.approx(on_core.latency_ms)
    assert cost.interval_ms == pytest.approx(on_core.interval_ms)


def test_other_targets_and_other_machines_are_refused(model: Path) -> None:
    with pytest.raises(ProfileError, match="hearing_aid is cortex-m; Vela estimates Ethos-U NPUs"):
        estimate(model, profiles.target("hearing-aid"))
    with pytest.raises(ExportError, match="leave the remote one out"):
        cost_there(model, profiles.target("ethos-u55-128"), Remote("nobody@nowhere"))
