"""Vela's estimates: what is read from them, what they become, and what is refused."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters import onnx_to_tflite
from profiles.errors import ProfileError
from profiles.runners import on_vela
from profiles.runners.on_vela import Estimate, Operator, System
from profiles.target import target

needs_vela = pytest.mark.skipif(on_vela.available() is not None, reason=str(on_vela.available()))

SIDE, CHANNELS = 16, 16


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution and a pointwise one, 16 x 16 x 16, as .tflite."""
    folder = tmp_path_factory.mktemp("vela")
    rng = np.random.default_rng(0)
    stored = {"s": np.float32(0.05), "z": np.int8(-3)}
    nodes = []
    last = "x"
    for number, (size, pads) in enumerate(((3, 1), (1, 0))):
        nodes += [
            helper.make_node("QuantizeLinear", [last, "s", "z"], [f"q{number}"]),
            helper.make_node("DequantizeLinear", [f"q{number}", "s", "z"], [f"d{number}"]),
            helper.make_node("DequantizeLinear", [f"w{number}", f"ws{number}"], [f"wd{number}"], axis=0),
            helper.make_node(
                "Conv", [f"d{number}", f"wd{number}"], [f"y{number}"], name=f"conv{number}", pads=[pads] * 4
            ),
        ]
        stored[f"w{number}"] = rng.integers(-127, 128, (CHANNELS, CHANNELS, size, size)).astype(np.int8)
        stored[f"ws{number}"] = np.full(CHANNELS, 1e-3, np.float32)
        last = f"y{number}"
    nodes += [
        helper.make_node("QuantizeLinear", [last, "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    shape = [1, CHANNELS, SIDE, SIDE]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "n.onnx")
    return onnx_to_tflite.convert(folder / "n.onnx", None, folder).path


@needs_vela
def test_an_estimate_counts_what_the_network_has(network: Path) -> None:
    found = on_vela.estimate(network, System("ethos-u55-128"))
    pixels = SIDE * SIDE
    assert found.macs == pixels * CHANNELS * CHANNELS * (9 + 1)
    assert found.weights == CHANNELS * CHANNELS * (9 + 1)
    assert found.on_core == 0
    assert sum(operator.macs for operator in found.operators) == found.macs
    assert found.npu_cycles >= found.macs / 128  # 128 a cycle at most
    assert found.cycles >= max(found.npu_cycles, found.sram_cycles, found.flash_cycles)
    assert found.sram_bytes >= 2 * pixels * CHANNELS  # input and output of a layer
    assert found.latency_ms == pytest.approx(found.cycles / 500e3)


@needs_vela
def test_fewer_multipliers_take_longer_and_slower_flash_too(network: Path) -> None:
    small, large = (on_vela.estimate(network, System(f"ethos-u55-{macs}")) for macs in (32, 256))
    assert small.npu_cycles > 3 * large.npu_cycles
    slow = on_vela.estimate(network, System("ethos-u55-256", flash_gbs=0.125))
    assert slow.flash_cycles > 2 * large.flash_cycles  # less than four times: the schedule changes with it


@needs_vela
def test_the_clock_scales_time_where_memories_keep_pace(network: Path) -> None:
    fast = on_vela.estimate(network, System("ethos-u55-128", 400, 3.2, 0.4))
    slow = on_vela.estimate(network, System("ethos-u55-128", 100, 0.8, 0.1))
    assert slow.cycles == fast.cycles
    assert slow.latency_ms == pytest.approx(4 * fast.latency_ms)


@needs_vela
def test_a_cost_says_whose_estimate_it_is(network: Path) -> None:
    hearing_aid = target("hearing_aid")
    cost = on_vela.measure(network, hearing_aid)
    assert cost.origin == "predicted"
    assert cost.notes[0].startswith("vela estimate, not measured")
    assert "ethos-u55-128 at 96 MHz" in cost.notes[0]
    assert cost.interval_ms[0] <= cost.latency_ms <= cost.interval_ms[1]
    assert sum(layer.macs for layer in cost.layers) == cost.macs


def test_the_interval_by_hand() -> None:
    found = Estimate(
        System("ethos-u55-64", 100.0, 0.8, 0.1), 1000, 900, 300, 200, 5000, 40, 64, 128,
        (Operator("conv", "Conv2D", 5000, 1000, 900),), 1,
    )  # fmt: skip
    cost = on_vela._cost(found, target("hearing_aid"))
    assert cost.latency_ms == pytest.approx(0.01)
    assert cost.interval_ms == pytest.approx((0.009, 0.014))
    assert cost.layers[0].bound_by == "memory"
    assert "1 operators run on the core" in cost.notes[-1]


def test_what_makes_no_system_is_refused() -> None:
    with pytest.raises(ProfileError, match="Vela knows no accelerator 'ethos-u1'; there are ethos-u55-32"):
        System("ethos-u1")
    with pytest.raises(
        ProfileError, match=r"sram_gbs is 4, more than a port of an ethos-u55-32 moves at 100 MHz \(0\.8"
    ):
        System("ethos-u55-32", 100)
    with pytest.raises(ProfileError, match="clock_mhz of an NPU is 0"):
        System(clock_mhz=0)
    assert System("ethos-u65-256", 500).port_gbs == 8.0


@needs_vela
def test_other_files_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "model.onnx"
    other.write_bytes(b"not a flatbuffer")
    with pytest.raises(ProfileError, match=r"is not a TensorFlow Lite file\n.*onnx_to_tflite"):
        on_vela.estimate(other)
    with pytest.raises(ProfileError, match="there is no file"):
        on_vela.estimate(tmp_path / "absent.tflite")
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(b"\0\0\0\0TFL3" + bytes(64))
    with pytest.raises(ProfileError, match=r"failed with status|no summary"):
        on_vela.estimate(damaged)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(on_vela.importlib.util, "find_spec", lambda name: None)
    assert on_vela.available() == "ethos-u-vela is not installed: pip install ethos-u-vela"
    with pytest.raises(ProfileError, match=r"not installed\n  fix: pip install ethos-u-vela"):
        on_vela.estimate(tmp_path / "net.tflite")


def test_it_runs_nothing(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="Vela only estimates"):
        on_vela.load(tmp_path)
