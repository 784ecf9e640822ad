"""No GPU is needed: the same calls go to onnxruntime's provider for processors, whose device memory is the host's."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import profiles
from profiles.errors import ProfileError
from profiles.measure import UnsteadyError
from profiles.runners import WrongDeviceError, cuda_driver, on_onnxruntime_cuda

pytest.importorskip("onnxruntime")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [value("x", TensorProto.FLOAT, ["n", 3])],
        [value("y", TensorProto.FLOAT, ["n", 3])],
    )
    path = tmp_path / "relu.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


@pytest.fixture
def on_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_onnxruntime_cuda, "available", lambda: None)
    monkeypatch.setattr(on_onnxruntime_cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(on_onnxruntime_cuda, "DEVICE", "cpu")
    monkeypatch.setattr(on_onnxruntime_cuda, "FALL_BACK", ())


@pytest.mark.usefixtures("on_processor")
def test_what_is_bound_is_what_runs(model: Path) -> None:
    loaded = on_onnxruntime_cuda.load(model)
    x = np.array([[-1.0, 0.0, 2.0]], np.float32)
    assert loaded.run({"x": x})["y"].tolist() == [[0.0, 0.0, 2.0]]
    loaded.bound({"x": x})()
    with pytest.raises(ProfileError, match="inputs are x"):
        loaded.run({"z": x})


@pytest.mark.usefixtures("on_processor")
def test_times_with_and_without_copies_are_told_apart(model: Path) -> None:
    try:
        found = on_onnxruntime_cuda.measure(model, batch=4, seconds=0.05)
    except UnsteadyError:
        pytest.skip("this machine is too busy to measure")
    assert found.batch == 4
    assert "device memory" in found.clock


@pytest.mark.usefixtures("on_processor")
def test_a_silent_fall_back_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fallen:
        def get_providers(self) -> list[str]:
            return ["AnotherExecutionProvider"]

    monkeypatch.setattr(on_onnxruntime_cuda, "_session", lambda *_: Fallen())
    with pytest.raises(ProfileError, match="in place of CPUExecutionProvider"):
        on_onnxruntime_cuda.load(model)


@pytest.mark.usefixtures("on_processor")
def test_operators_on_the_processor_are_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = on_onnxruntime_cuda._session

    def refusing(path: Path, threads: int, whole: bool) -> object:
        if whole:
            raise RuntimeError("some nodes were assigned to the CPU")
        return real(path, threads, False)

    monkeypatch.setattr(on_onnxruntime_cuda, "_session", refusing)
    assert not on_onnxruntime_cuda.load(model).whole


@pytest.mark.usefixtures("on_processor")
def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ProfileError, match="onnxruntime refuses"):
        on_onnxruntime_cuda.load(tmp_path / "broken.onnx")


def test_without_a_gpu_it_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "driver", lambda: None)
    assert "no NVIDIA GPU" in (on_onnxruntime_cuda.available() or "")
    with pytest.raises(ProfileError, match="no NVIDIA GPU"):
        on_onnxruntime_cuda.load(model)


def test_another_gpu_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_onnxruntime_cuda, "available", lambda: None)
    monkeypatch.setattr(cuda_driver, "compute_capability", lambda: "7.5")
    with pytest.raises(WrongDeviceError, match=r"has 7\.5"):
        on_onnxruntime_cuda.measure(model, profiles.target("a100"))
