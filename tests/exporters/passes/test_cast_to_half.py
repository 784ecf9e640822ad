"""Half precision in the graph: what runs, what it is built into, and what stays finite."""

import importlib.util
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from exporters import build_log, check_onnx, onnx_to_rtx_engine
from exporters.builder import BuildOptions
from exporters.half import plan
from exporters.half.formats import BF16, FP16
from exporters.half.in_float import in_float32
from exporters.half.observe import observe
from exporters.passes import cast_to_half

RNG = np.random.default_rng(0)
HALF_ULP = 2.0**-11  # relative rounding error of one fp16 value
needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="needs tensorrt-rtx")


def halved(model: ModelProto, inputs, half=FP16, **options) -> ModelProto:
    after = cast_to_half.apply(model, plan.decide(model, half, observe(model, [inputs], half), **options))
    onnx.checker.check_model(after, full_check=True)
    return after


def casts(model: ModelProto) -> int:
    return sum(node.op_type == "Cast" for node in model.graph.node)


def no_cast_is_wasted(model: ModelProto) -> None:
    """Each changes the type, none reads another, and no tensor is cast twice to one type."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.input, *inferred.output, *inferred.value_info)}
    makers = {name: node for node in model.graph.node for name in node.output}
    found = [node for node in model.graph.node if node.op_type == "Cast"]
    for node in found:
        assert kinds[node.input[0]] != kinds[node.output[0]]
        assert node.input[0] not in makers or makers[node.input[0]].op_type != "Cast"
    assert len({(node.input[0], kinds[node.output[0]]) for node in found}) == len(found)


def test_a_planted_overflow_stays_finite(model_of, run_onnx) -> None:
    """(300 x)^2 of x = 2 is 360000, beyond fp16; the root of it is not."""
    model = model_of(
        [
            helper.make_node("MatMul", ["x", "w"], ["a"], name="matmul"),
            helper.make_node("Mul", ["a", "k"], ["b"], name="times"),
            helper.make_node("Mul", ["b", "b"], ["c"], name="square"),
            helper.make_node("Mul", ["c", "small"], ["d"], name="back"),
            helper.make_node("MatMul", ["d", "w"], ["y"], name="last"),
        ],
        {"x": ["batch", 4]},
        {"y": ["batch", 4]},
        {"w": np.eye(4, dtype=np.float32), "k": np.float32(300.0), "small": np.float32(1e-4)},
        opset=20,
    )
    x = {"x": np.array([[1.0, -2.0, 0.5, 2.0]], np.float32)}
    decided = plan.decide(model, FP16, observe(model, [x], FP16))
    # "times" gives 600: it may be half; its Cast stands on one side of it or the other.
    assert {one.node for one in decided.kept} == {"square", "back"}
    after = cast_to_half.apply(model, decided)
    np.testing.assert_allclose(run_onnx(in_float32(after, FP16), x)[0], run_onnx(model, x)[0], rtol=4 * HALF_ULP)
    blind = cast_to_half.apply(model, plan.decide(model, FP16, {}))
    assert not np.isfinite(run_onnx(in_float32(blind, FP16), x)[0]).all(), "without ranges it overflows"
    # onnxruntime computes fp16 in float32 and drops the rounding between two nodes: it alone would not have noticed.
    assert np.isfinite(run_onnx(blind, x)[0]).all()
    no_cast_is_wasted(after)


def test_a_network_keeps_its_answers_at_half_the_size(float_model, run_onnx) -> None:
    model = check_onnx.load(float_model.path)
    x = {"input": float_model.inputs.numpy()}
    after = halved(model, x)
    assert after.ByteSize() < 0.56 * model.ByteSize()
    assert casts(after) == 2, "one in, one out"
    assert [value.type.tensor_type.elem_type for value in (*after.graph.input, *after.graph.output)] == [1, 1]
    weights = {t.data_type for t in after.graph.initializer if t.data_type != TensorProto.INT64}
    assert weights == {TensorProto.FLOAT16}
    before = run_onnx(model, x)[0]
    # Eight layers in a row, each rounding its weights, its output and its sum's terms once.
    now = run_onnx(in_float32(after, FP16), x)[0]
    np.testing.assert_allclose(now, before, rtol=0, atol=8 * 3 * HALF_ULP * np.abs(before).max())
    assert after == halved(model, x), "the same model and data give the same bytes"


def test_inputs_and_outputs_in_half_on_request(float_model, run_onnx) -> None:
    model = check_onnx.load(float_model.path)
    x = {"input": float_model.inputs.numpy()}
    after = halved(model, x, half_inputs=True, half_outputs=True)
    assert casts(after) == 0
    out = run_onnx(after, {"input": x["input"].astype(np.float16)})[0]
    assert out.dtype == np.float16


def test_a_quantised_network_has_half_leftovers_and_the_same_codes(int8_model, run_onnx) -> None:
    model = check_onnx.load(int8_model.path)
    x = {"input": int8_model.inputs.numpy()}
    after = halved(model, x)
    constants = {tensor.name: tensor for tensor in after.graph.initializer}
    scales = [constants[node.input[1]] for node in after.graph.node if node.op_type == "DequantizeLinear"]
    assert {tensor.data_type for tensor in scales} == {TensorProto.FLOAT16}
    stored = {t.name: t.raw_data for t in model.graph.initializer if t.data_type == TensorProto.INT8 and t.dims}
    again = {t.name: t.raw_data for t in after.graph.initializer if t.data_type == TensorProto.INT8 and t.dims}
    assert {name: data for name, data in stored.items() if len(data) > 64} == {
        name: data for name, data in again.items() if len(data) > 64
    }
    no_cast_is_wasted(after)
    before, now = run_onnx(model, x)[0], run_onnx(after, x)[0]
    # Scales move by 2^-11 at most, so a code near its rounding border may move by one: far below the 1/127 of a step.
    assert np.abs(now - before).max() < 0.02 * np.abs(before).max()


def test_a_channel_with_a_tiny_scale_is_rounded_again(model_of, run_onnx) -> None:
    """Scale 1e-6 is no normal fp16 number: its nearest one is 17 * 2^-24 = 1.0133e-6, and code 100 becomes 99."""
    model = model_of(
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], axis=1),
            helper.make_node("MatMul", ["x", "wd"], ["y"], name="matmul"),
        ],
        {"x": ["batch", 2]},
        {"y": ["batch", 2]},
        {
            "w": np.array([[100, 100], [50, 50]], np.int8),
            "s": np.array([1e-6, 0.5], np.float32),
            "z": np.zeros(2, np.int8),
        },
        opset=20,
    )
    after = cast_to_half.apply(model, plan.decide(model, FP16, {}))
    (weight,) = [t for t in after.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 2]
    found = np.frombuffer(weight.raw_data, np.int8).reshape(2, 2)
    np.testing.assert_array_equal(found, [[99, 100], [49, 50]])


def test_normalisation_and_softmax_cost_two_casts_each(model_of, run_onnx) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("LayerNormalization", ["a", "g", "b"], ["n"], axis=-1),
        helper.make_node("MatMul", ["n", "w"], ["q"]),
        helper.make_node("Softmax", ["q"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "w"], ["m"]),
        helper.make_node("Add", ["a", "m"], ["y"]),
    ]
    constants = {
        "w": RNG.standard_normal((8, 8)).astype(np.float32),
        "g": np.ones(8, np.float32),
        "b": np.zeros(8, np.float32),
    }
    model = model_of(nodes, {"x": ["batch", 8]}, {"y": ["batch", 8]}, constants, opset=17)
    x = {"x": RNG.standard_normal((3, 8)).astype(np.float32)}
    after = halved(model, x)
    assert casts(after) == 2 + 2 + 2
    no_cast_is_wasted(after)
    np.testing.assert_allclose(run_onnx(after, x)[0], run_onnx(model, x)[0], rtol=0, atol=0.05)


def test_operators_with_float_arguments_keep_them(model_of, run_onnx) -> None:
    """Resize's scales are float32 by definition; the model's own Cast takes the new type; Clip's bounds follow."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Resize", ["a", "", "s"], ["r"], mode="nearest"),
        helper.make_node("Clip", ["r", "low", "high"], ["c"]),
        helper.make_node("Greater", ["c", "low"], ["over"]),
        helper.make_node("Cast", ["over"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["c", "mask"], ["y"]),
    ]
    constants = {
        "w": RNG.standard_normal((4, 3, 1, 1)).astype(np.float32),
        "s": np.array([1, 1, 2, 2], np.float32),
        "low": np.float32(-1),
        "high": np.float32(1),
    }
    model = model_of(nodes, {"x": [2, 3, 5, 5]}, {"y": [2, 4, 10, 10]}, constants, opset=18)
    x = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}
    after = halved(model, x)
    assert casts(after) == 3
    np.testing.assert_allclose(run_onnx(after, x)[0], run_onnx(model, x)[0], atol=0.01)


def test_bf16_by_rounding_every_tensor_in_float(model_of, run_onnx) -> None:
    model = model_of(
        [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 4, 5, 5]},
        {"w": RNG.standard_normal((4, 3, 1, 1)).astype(np.float32)},
        opset=22,
    )
    x = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32) * 1e5}
    after = halved(model, x, BF16)
    assert {t.data_type for t in after.graph.initializer} == {TensorProto.BFLOAT16}
    before, now = run_onnx(model, x)[0], run_onnx(in_float32(after, BF16), x)[0]
    assert 0 < np.abs(now - before).max() < 3 * 2.0**-8 * np.abs(before).max()


@needs_rtx
@pytest.mark.parametrize("capability", ["8.0", "8.6"])
@pytest.mark.parametrize("kind", ["float", "int8"])
def test_tensorrt_has_half_kernels_for_it(kind, capability, float_model, int8_model, a100, tmp_path) -> None:
    exported = float_model if kind == "float" else int8_model
    after = halved(check_onnx.load(exported.path), {"input": exported.inputs.numpy()})
    onnx.save(after, tmp_path / "half.onnx")
    options = BuildOptions(capability=capability, batches=(1, 2, 4))
    built = onnx_to_rtx_engine.convert(tmp_path / "half.onnx", a100, tmp_path / "out", options=options)
    log = (tmp_path / "out" / str(built.facts["log"])).read_text()
    heavy = Counter(kernel.input_type for kernel in build_log.kernels(log) if kernel.heavy)
    assert set(heavy) == ({"Half"} if kind == "float" else {"Int8"})
    if kind == "int8":
        assert built.facts["int8_share"] == 1.0
        outputs = [line for line in log.splitlines() if line.startswith(("Name:", "VERBOSE Name:"))]
        assert any("Datatype: Half" in line for line in outputs), "what is left between int8 kernels is half"
