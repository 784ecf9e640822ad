"""Every pass: the graph that it was written for changes as its docstring says, and outputs do not."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporters import graph
from exporters.errors import ExportError
from exporters.passes import (
    bias_to_float,
    drop_identities,
    drop_unused,
    floor_scales,
    fold_weight_quantizers,
    lower_opset,
    mean_to_global_pool,
    name_nodes,
    share_quantizers,
    stft_to_matmul,
    strip_traces,
)

RNG = np.random.default_rng(0)


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
) -> ModelProto:
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def kinds(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def pair(name: str, source: str, scale: str, zero: str, **attributes: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [f"{name}_q"], **attributes),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [f"{name}_dq"], **attributes),
    ]


X = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


def test_strip_traces_keeps_module_names_only(unchanged_by) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], doc_string="File /home/me/model.py, line 3")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'blocks', 'blocks.0', 'relu']")
    node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/model.py")
    model = model_of([node], {"x": [2, 3, 5, 5]}, {"y": [2, 3, 5, 5]})
    model.doc_string = "made by me"
    after = strip_traces.apply(model)
    assert b"me" not in after.SerializeToString().replace(b"name", b"")
    assert [(p.key, p.value) for p in after.graph.node[0].metadata_props] == [("module", "blocks.0")]
    assert model.doc_string == "made by me", "a pass does not change its argument"
    unchanged_by(model, after, X)


@pytest.mark.parametrize("text", ["['', 'x'", "3", "['']", "__import__('os').abort()"])
def test_strip_traces_survives_odd_scopes(text: str) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    node.metadata_props.add(key=strip_traces.SCOPES, value=text)
    assert strip_traces.module_name(node) == ""


def test_drop_identities(unchanged_by) -> None:
    model = model_of(
        [
            helper.make_node("Identity", ["x"], ["a"]),
            helper.make_node("Dropout", ["a"], ["b"]),
            helper.make_node("Cast", ["b"], ["c"], to=TensorProto.FLOAT),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("Identity", ["d"], ["y"]),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 3, 5, 5]},
    )
    after = drop_identities.apply(model)
    assert kinds(after) == ["Relu"]
    assert list(after.graph.node[0].output) == ["y"]
    unchanged_by(model, after, X)


def test_drop_identities_keeps_what_does_something(unchanged_by) -> None:
    model = model_of(
        [
            helper.make_node("Identity", ["x"], ["y"]),  # an output needs a node
            helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
            helper.make_node("Cast", ["i"], ["z"], to=TensorProto.FLOAT),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 3, 5, 5], "z": [2, 3, 5, 5]},
    )
    after = drop_identities.apply(model)
    assert kinds(after) == ["Identity", "Cast", "Cast"]
    unchanged_by(model, after, X)


def test_drop_unused(unchanged_by) -> None:
    model = model_of(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Add", ["x", "k"], ["nobody"])],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 3, 5, 5]},
        {"k": np.float32(1)},
    )
    after = drop_unused.apply(model)
    assert kinds(after) == ["Relu"]
    assert not after.graph.initializer
    unchanged_by(model, after, X)


def weight_model(dtype: type, zero: int) -> ModelProto:
    """float weight -> Q -> DQ -> Conv, one scale per output channel; values that lie on rounding boundaries."""
    weight = RNG.integers(-300, 300, (4, 3, 3, 3)).astype(np.float32) * np.float32(0.5)
    return model_of(
        [
            *pair("w", "w", "s", "z", axis=0),
            helper.make_node("Conv", ["x", "w_dq"], ["y"], kernel_shape=[3, 3]),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 4, 3, 3]},
        {"w": weight, "s": np.array([1, 0.5, 0.25, 2], np.float32), "z": np.full(4, zero, dtype)},
    )


@pytest.mark.parametrize(("dtype", "zero"), [(np.int8, 0), (np.int8, -3), (np.uint8, 128)])
def test_fold_weight_quantizers(dtype: type, zero: int, unchanged_by) -> None:
    model = weight_model(dtype, zero)
    after = drop_unused.apply(fold_weight_quantizers.apply(model))
    assert kinds(after) == ["DequantizeLinear", "Conv"]
    stored = graph.constants(after.graph)["w_q"]
    assert graph.array(stored).dtype == dtype
    assert after.ByteSize() < model.ByteSize()
    unchanged_by(model, after, X)


def test_fold_rounds_half_to_even_and_saturates() -> None:
    data = np.array([0.5, 1.5, 2.5, -0.5, 1000.0, -1000.0], np.float32)
    codes = fold_weight_quantizers.quantize(data, np.float32(1) * np.ones(()), np.zeros(()), 0, TensorProto.INT8)
    assert codes.tolist() == [0, 2, 2, 0, 127, -128]


def test_fold_leaves_activations(int8_proto: ModelProto) -> None:
    after = fold_weight_quantizers.apply(int8_proto)
    assert kinds(after).count("QuantizeLinear") == kinds(int8_proto).count("QuantizeLinear") > 0


def scaled(values: list[float], codes: np.ndarray) -> ModelProto:
    return model_of(
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], axis=0),
            helper.make_node("Conv", ["x", "wf"], ["y"], kernel_shape=[3, 3]),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, len(values), 3, 3]},
        {"w": codes, "s": np.array(values, np.float32), "z": np.zeros(len(values), np.int8)},
    )


def test_floor_scales_mends_dead_channels(unchanged_by) -> None:
    codes = RNG.integers(-127, 128, (3, 3, 3, 3)).astype(np.int8)
    codes[1] = 0
    codes[2] = 0
    model = scaled([0.5, 0.0, 1e-40], codes)
    after = floor_scales.apply(model)
    floor = 0.5 * 2.0**-24
    assert graph.array(graph.constants(after.graph)["s"]).tolist() == [0.5, np.float32(floor), np.float32(floor)]
    assert (graph.array(graph.constants(after.graph)["w"]) == codes).all()
    unchanged_by(model, after, X)  # the codes of those channels are zero


def test_floor_scales_mends_a_layer_that_is_all_dead(unchanged_by) -> None:
    model = scaled([0.0, 0.0], np.zeros((2, 3, 3, 3), np.int8))
    after = floor_scales.apply(model)
    assert (graph.array(graph.constants(after.graph)["s"]) > 0).all()
    unchanged_by(model, after, X)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), -1.0])
def test_floor_scales_refuses(bad: float) -> None:
    with pytest.raises(ExportError, match="not a finite positive number"):
        floor_scales.apply(scaled([0.5, bad], np.zeros((2, 3, 3, 3), np.int8)))


def test_floor_scales_refuses_an_activation_that_was_never_seen() -> None:
    model = model_of(
        pair("a", "x", "s", "z"), {"x": [2, 3, 5, 5]}, {"a_dq": [2, 3, 5, 5]}, {"s": np.float32(0), "z": np.int8(0)}
    )
    with pytest.raises(ExportError, match="always zero"):
        floor_scales.apply(model)


def test_share_quantizers_compares_by_value(unchanged_by) -> None:
    model = model_of(
        [
            *pair("a", "x", "s1", "z1"),
            *pair("b", "x", "s2", "z2"),  # the same scale under another name
            *pair("c", "x", "s3", "z1"),  # another scale
            helper.make_node("Add", ["a_dq", "b_dq"], ["ab"]),
            helper.make_node("Add", ["ab", "c_dq"], ["y"]),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 3, 5, 5]},
        {
            "s1": np.float32(0.1),
            "s2": np.float32(0.1),
            "s3": np.float32(0.2),
            "z1": np.int8(0),
            "z2": np.int8(0),
        },
    )
    after = share_quantizers.apply(model)
    assert kinds(after).count("QuantizeLinear") == kinds(after).count("DequantizeLinear") == 2
    unchanged_by(model, after, X)


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_mean_to_global_pool(axes: list[int], unchanged_by) -> None:
    model = model_of(
        [helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=1)],
        {"x": ["batch", 3, 5, 5]},
        {"y": ["batch", 3, 1, 1]},
        {"a": np.array(axes, np.int64)},
    )
    after = mean_to_global_pool.apply(model)
    assert kinds(after) == ["GlobalAveragePool"]
    unchanged_by(model, after, X, 1e-6)  # another order of 25 additions


def test_mean_to_global_pool_leaves_other_means() -> None:
    for axes, keep, shape in (([1, 2], 1, [2, 1, 1, 5]), ([2, 3], 0, [2, 3])):
        model = model_of(
            [helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=keep)],
            {"x": [2, 3, 5, 5]},
            {"y": shape},
            {"a": np.array(axes, np.int64)},
        )
        assert kinds(mean_to_global_pool.apply(model)) == ["ReduceMean"]


def test_lower_opset_rewrites_reductions(unchanged_by) -> None:
    model = model_of(
        [
            helper.make_node("ReduceMean", ["x", "a"], ["m"], keepdims=1),
            helper.make_node("Reshape", ["m", "shape"], ["y"], allowzero=1),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 15]},
        {"a": np.array([2], np.int64), "shape": np.array([-1, 15], np.int64)},
    )
    after = lower_opset.apply(model, 13)
    assert graph.opset(after) == 13
    assert len(after.graph.node[0].input) == 1
    unchanged_by(model, after, X)
    assert lower_opset.apply(after, 18) == after, "a model that is old enough stays"


def test_lower_opset_refuses_by_name() -> None:
    model = model_of(
        [helper.make_node("Mish", ["x"], ["a"]), helper.make_node("Split", ["a"], ["y", "z"], axis=3, num_outputs=2)],
        {"x": [2, 3, 5, 4]},
        {"y": [2, 3, 5, 2], "z": [2, 3, 5, 2]},
    )
    with pytest.raises(ExportError, match="no Mish and no Split"):
        lower_opset.apply(model, 17)


def test_name_nodes_keeps_good_names() -> None:
    model = model_of(
        [
            helper.make_node("Relu", ["x"], ["a"], name="one"),
            helper.make_node("Relu", ["a"], ["b"], name="one"),
            helper.make_node("Relu", ["b"], ["y"]),
        ],
        {"x": [2]},
        {"y": [2]},
    )
    names = [node.name for node in name_nodes.apply(model).graph.node]
    assert names == ["one", "one_1", "Relu_y"]


def test_bias_to_float(unchanged_by) -> None:
    model = model_of(
        [
            helper.make_node("DequantizeLinear", ["b", "s"], ["bf"], axis=0),
            helper.make_node("Conv", ["x", "w", "bf"], ["y"], kernel_shape=[3, 3]),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 2, 3, 3]},
        {
            "b": np.array([12345, -7], np.int32),
            "s": np.array([0.001, 0.1], np.float32),
            "w": RNG.standard_normal((2, 3, 3, 3)).astype(np.float32),
        },
    )
    after = bias_to_float.apply(model)
    assert kinds(after) == ["Conv"]
    np.testing.assert_allclose(graph.array(graph.constants(after.graph)["bf"]), [12.345, -0.7], rtol=1e-6)
    unchanged_by(model, after, X)


def stft_model(rank: int, window: np.ndarray | None, onesided: int, length: int = 64, step: int = 16) -> ModelProto:
    bins = length // 2 + 1 if onesided else length
    frames = (200 - length) // step + 1
    constants: dict[str, np.ndarray] = {"step": np.int64(step), "length": np.int64(length)}
    if window is not None:
        constants["window"] = window
    inputs = ["x", "step", "window" if window is not None else "", "length"]
    shape: list[int | str] = ["batch", 200, 1] if rank == 3 else ["batch", 200]
    return model_of(
        [helper.make_node("STFT", inputs, ["y"], name="stft", onesided=onesided)],
        {"x": shape},
        {"y": ["batch", frames, bins, 2]},
        constants,
    )


@pytest.mark.parametrize("onesided", [0, 1])
@pytest.mark.parametrize("window", [None, np.hanning(64).astype(np.float32)])
@pytest.mark.parametrize("batch", [1, 3])
def test_stft_to_matmul(onesided: int, window: np.ndarray | None, batch: int, unchanged_by) -> None:
    model = stft_model(3, window, onesided)
    after = stft_to_matmul.apply(model)
    assert "STFT" not in kinds(after)
    assert kinds(after).count("Conv") == 1
    # Sums of 64 products of values of size 1, in float32.
    unchanged_by(model, after, {"x": RNG.standard_normal((batch, 200, 1)).astype(np.float32)}, 64 * 2e-6)


def test_stft_filters_find_a_tone() -> None:
    """A cosine of 5 periods in 32 samples has all its energy in bin 5: 16 = N / 2, real."""
    filters = stft_to_matmul.dft_filters(np.ones(32), 32, onesided=True)
    tone = np.cos(2 * np.pi * 5 * np.arange(32) / 32)
    spectrum = filters[:, 0, :] @ tone
    expected = np.zeros(34)
    expected[5] = 16.0
    np.testing.assert_allclose(spectrum, expected, atol=1e-5)


def test_stft_with_a_computed_window_is_refused() -> None:
    model = model_of(
        [
            helper.make_node("Relu", ["w"], ["window"]),
            helper.make_node("STFT", ["x", "step", "window", "length"], ["y"], name="stft", onesided=1),
        ],
        {"x": ["batch", 200, 1], "w": [64]},
        {"y": ["batch", 9, 33, 2]},
        {"step": np.int64(16), "length": np.int64(64)},
    )
    with pytest.raises(ExportError, match="window of STFT 'stft' is computed"):
        stft_to_matmul.apply(model)


def test_a_model_without_stft_is_handed_back(int8_proto: ModelProto) -> None:
    assert stft_to_matmul.apply(int8_proto) == int8_proto
