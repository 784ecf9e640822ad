from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import profiles
from profiles.errors import ProfileError

pytest.importorskip("onnxruntime")
runner = profiles.runner("on_onnxruntime")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def test_runs_by_name(model: Path) -> None:
    x = np.array([[-1.0, 0.0, 2.0]], np.float32)
    assert runner.load(model).run({"x": x})["y"].tolist() == [[0.0, 0.0, 2.0]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"z": np.zeros((1, 3), np.float32)}, "inputs are x"),
        ({"x": np.zeros((1, 4), np.float32)}, "takes float32 \\(any, 3\\)"),
        ({"x": np.zeros((1, 3), np.float64)}, "not float64"),
    ],
)
def test_wrong_inputs_are_refused(model: Path, given: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(ProfileError, match=said):
        runner.load(model).run(given)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ProfileError, match="onnxruntime refuses"):
        runner.load(path)
    with pytest.raises(ProfileError, match="there is no file"):
        runner.load(tmp_path / "none.onnx")


def test_a_measured_cost_says_so_and_keeps_the_counts(model: Path) -> None:
    x = np.ones((2, 3), np.float32)
    cost = profiles.measure_cost(model, "x86", inputs={"x": x})
    assert cost.origin in ("measured", "predicted")  # predicted where the machine is too busy to measure
    assert cost.batch == 2
    assert cost.peak_activation_bytes == 2 * (2 * 3 * 4)  # the input is the caller's and not written over
    if cost.origin == "measured":
        assert cost.interval_ms[0] <= cost.latency_ms <= cost.interval_ms[1]
        assert cost.runtime.startswith("onnxruntime")


def test_what_cannot_run_here_is_predicted_with_the_reason(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from profiles.runners import on_tensorrt

    monkeypatch.setattr(on_tensorrt, "available", lambda: "this machine has no NVIDIA GPU: run on the device")
    cost = profiles.measure_cost(model, "jetson")
    assert cost.origin == "predicted"
    assert "no NVIDIA GPU" in cost.notes[0]


def test_a_runner_that_there_is_not() -> None:
    with pytest.raises(ProfileError, match=r"there is no runner 'on_toaster'; there are on_cortex_m, on_onnxruntime"):
        profiles.runner("on_toaster")
