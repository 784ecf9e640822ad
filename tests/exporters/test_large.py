"""Weights beyond one protobuf message, with the limit lowered to 100 bytes."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporters import check_onnx, graph, large, rewrite
from exporters.half import plan
from exporters.half.formats import FP16
from exporters.passes import cast_to_half
from profiles import atomic

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((32, 16)).astype(np.float32)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> ModelProto:
    monkeypatch.setattr(large, "ONE_FILE_BYTES", 100)
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Reshape", ["a", "shape"], ["y"])],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 4])],
        [numpy_helper.from_array(WEIGHT, "w"), numpy_helper.from_array(np.array([-1, 4, 4]), "shape")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_a_graph_is_inferred_and_checked_without_its_weights(model: ModelProto) -> None:
    bare = large.skeleton(model)
    assert bare.ByteSize() < 400 < WEIGHT.nbytes
    onnx.checker.check_model(bare, full_check=True)
    assert [t.name for t in bare.graph.initializer] == ["shape"], "small ones stay: inference reads them"
    assert graph.shapes(model)["a"] == ["batch", 16]


def test_it_runs_and_is_rewritten_from_memory(model: ModelProto) -> None:
    x = {"x": RNG.standard_normal((3, 32)).astype(np.float32)}
    exact = (x["x"] @ WEIGHT).reshape(3, 4, 4)
    np.testing.assert_allclose(rewrite.outputs(model, x)["y"], exact, atol=1e-5)
    half = cast_to_half.apply(model, plan.decide(model, FP16, {}))
    np.testing.assert_allclose(rewrite.outputs(half, x)["y"], exact, atol=0.05)


def test_files_are_written_whole_and_read_back(model: ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    files = large.write(model, path, one_file_bytes=100)
    assert files == {name: atomic.sha256(tmp_path / name) for name in ("model.onnx", "model.onnx.data")}
    assert not any(name.startswith(".") for name in (found.name for found in tmp_path.iterdir()))
    assert check_onnx.load(path).graph.initializer[0].raw_data == WEIGHT.tobytes()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = RNG.standard_normal((2, 32)).astype(np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0].reshape(2, 16), x @ WEIGHT, atol=1e-5)
