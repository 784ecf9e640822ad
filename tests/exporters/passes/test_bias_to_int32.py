"""Biases as the int32 that integer kernels add."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporters.passes import bias_to_int32

STEP, SCALE = 0.5, (0.25, 0.125)


def gemm(bias: tuple[float, float]) -> ModelProto:
    def constant(name: str, value: NDArray[np.generic]) -> TensorProto:
        return numpy_helper.from_array(value, name)

    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["d"], name="dequantize"),
        helper.make_node("DequantizeLinear", ["w", "scale", "zeros"], ["wd"], name="weights", axis=0),
        helper.make_node("Gemm", ["d", "wd", "bias"], ["y"], name="layer", transB=1),
    ]
    constants = [
        constant("step", np.float32(STEP)),
        constant("zero", np.uint8(3)),
        constant("w", np.array([[1, -2, 3], [127, 0, -127]], np.int8)),
        constant("scale", np.array(SCALE, np.float32)),
        constant("zeros", np.zeros(2, np.int8)),
        constant("bias", np.array(bias, np.float32)),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: ModelProto, x: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    return found


def test_a_bias_on_the_grid_becomes_its_codes() -> None:
    model = gemm((0.25, -0.4375))  # 2 steps of 0.125, -7 steps of 0.0625
    rewritten = bias_to_int32.apply(model)
    onnx.checker.check_model(rewritten, full_check=True)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in rewritten.graph.initializer}
    assert stored["layer_bias_codes"].dtype == np.int32
    assert stored["layer_bias_codes"].tolist() == [2, -7]
    assert stored["layer_bias_scale"].tolist() == [0.125, 0.0625]
    x = np.random.default_rng(0).normal(0, 20, (16, 3)).astype(np.float32)
    np.testing.assert_array_equal(run(rewritten, x), run(model, x))


def test_onnxruntime_multiplies_the_last_layer_in_integers(tmp_path: object) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = f"{tmp_path}/optimised.onnx"
    options.log_severity_level = 3
    operators = {}
    for name, model in (("float", gemm((0.25, 0.5))), ("int32", bias_to_int32.apply(gemm((0.25, 0.5))))):
        ort.InferenceSession(model.SerializeToString(), options)
        operators[name] = {node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node}
    assert "Gemm" in operators["float"]
    assert operators["int32"] == {"QuantizeLinear", "QGemm"}


@pytest.mark.parametrize("bias", [(0.3, 0.0), (float(2**29), 0.0)], ids=["off the grid", "too large"])
def test_other_biases_stay(bias: tuple[float, float]) -> None:
    model = gemm(bias)
    assert bias_to_int32.apply(model) == model
