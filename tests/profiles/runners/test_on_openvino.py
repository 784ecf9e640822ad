import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from profiles.errors import ProfileError
from profiles.measure import UnsteadyError
from profiles.runners import on_openvino

pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "net",
        [value("x", TensorProto.FLOAT, ["n", 3])],
        [value("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(2 * np.eye(3, dtype=np.float32), "w")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def test_runs_by_name(model: Path) -> None:
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], np.float32)
    assert np.allclose(on_openvino.load(model).run({"x": x})["y"], 2 * x, rtol=1e-2)  # bf16 where the processor has it
    with pytest.raises(ProfileError, match="inputs are x"):
        on_openvino.load(model).run({"z": x})


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ProfileError, match="OpenVINO refuses"):
        on_openvino.load(tmp_path / "broken.onnx")


def test_it_is_measured_where_it_is_pinned(model: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        found = on_openvino.measure(model, batch=4, seconds=0.05)
    except UnsteadyError:
        pytest.skip("this machine is too busy to measure")
    finally:
        assert os.sched_getaffinity(0) == before
    assert found.batch == 4
    assert found.threads == 1
    assert len(found.cores) == 1
