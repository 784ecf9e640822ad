"""Older opsets, or a refusal by name."""

import numpy as np
import onnx
import pytest
from onnx import helper

from exporters import graph
from exporters.errors import ExportError
from exporters.passes import lower_opset

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


def test_lower_opset_rewrites_reductions(model_of, unchanged_by) -> None:
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
    unchanged_by(model, after, IMAGES)
    assert lower_opset.apply(after, 18) == after, "a model that is old enough stays"


def test_lower_opset_refuses_by_name(model_of) -> None:
    model = model_of(
        [
            helper.make_node("ReduceMean", ["x"], ["a"], noop_with_empty_axes=1),
            helper.make_node("Split", ["a"], ["y", "z"], axis=2, num_outputs=2),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 3, 3, 5], "z": [2, 3, 2, 5]},
    )
    with pytest.raises(ExportError, match="no ReduceMean and no Split"):
        lower_opset.apply(model, 17)


def test_lower_opset_splits_into_equal_parts_and_resizes(model_of, unchanged_by) -> None:
    model = model_of(
        [
            helper.make_node("Split", ["x"], ["a", "b", "c"], axis=1, num_outputs=3),
            helper.make_node(
                "Resize", ["b", "", "s"], ["y"], mode="linear", antialias=0, keep_aspect_ratio_policy="stretch"
            ),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 1, 10, 10]},
        {"s": np.array([1, 1, 2, 2], np.float32)},
    )
    unchanged_by(model, lower_opset.apply(model, 13), IMAGES)


def test_lower_opset_refuses_antialiasing(model_of) -> None:
    model = model_of(
        [helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear", antialias=1)],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 3, 10, 10]},
        {"s": np.array([1, 1, 2, 2], np.float32)},
    )
    with pytest.raises(ExportError, match="no Resize"):
        lower_opset.apply(model, 17)


ROUNDING = 2e-6  # of values of size one: a few float32 additions in another order
FEATURES = {"x": RNG.standard_normal((2, 6, 4, 4)).astype(np.float32)}
SIX = {"g": RNG.standard_normal(6).astype(np.float32), "b": RNG.standard_normal(6).astype(np.float32)}
WIDE = {"g": RNG.standard_normal(4).astype(np.float32), "b": RNG.standard_normal(4).astype(np.float32)}


@pytest.mark.parametrize(
    ("operator", "inputs", "constants", "opset", "attributes"),
    [
        ("LayerNormalization", ["x", "g", "b"], WIDE, 18, {"axis": -1, "epsilon": 1e-3}),
        ("LayerNormalization", ["x", "g"], WIDE, 18, {"axis": 3}),
        ("RMSNormalization", ["x", "g"], WIDE, 23, {"axis": -1}),
        ("GroupNormalization", ["x", "g", "b"], SIX, 21, {"num_groups": 3}),
        ("InstanceNormalization", ["x", "g", "b"], SIX, 22, {}),
        ("Gelu", ["x"], {}, 20, {}),
        ("Gelu", ["x"], {}, 20, {"approximate": "tanh"}),
        ("HardSwish", ["x"], {}, 18, {}),
        ("Mish", ["x"], {}, 18, {}),
        ("Trilu", ["x", "k"], {"k": np.array(1, np.int64)}, 18, {"upper": 0}),
        ("AveragePool", ["x"], {}, 19, {"kernel_shape": [2, 2], "dilations": [1, 1]}),
        ("BatchNormalization", ["x", "g", "b", "b", "v"], {**SIX, "v": np.ones(6, np.float32)}, 18, {}),
    ],
)
def test_operators_are_written_in_older_ones(
    operator, inputs, constants, opset, attributes, model_of, run_onnx
) -> None:
    model = model_of(
        [helper.make_node(operator, inputs, ["a"], **attributes), helper.make_node("Relu", ["a"], ["y"])],
        {"x": [2, 6, 4, 4]},
        {"y": [2, 6, "h", "w"]},
        constants,
        opset=opset,
    )
    after = lower_opset.apply(model, 13)
    onnx.checker.check_model(after, full_check=True)
    assert graph.opset(after) == 13
    np.testing.assert_allclose(run_onnx(after, FEATURES)[0], run_onnx(model, FEATURES)[0], rtol=0, atol=ROUNDING)


def test_the_shape_of_some_axes(model_of, run_onnx) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"], start=1, end=3),
        helper.make_node("ConstantOfShape", ["s"], ["y"]),
    ]
    model = model_of(nodes, {"x": ["batch", 6, 4, 4]}, {"y": ["h", "w"]}, opset=18)
    assert run_onnx(lower_opset.apply(model, 13), FEATURES)[0].shape == (6, 4)


def test_quantised_weights_per_channel_survive_opset_13(model_of, unchanged_by) -> None:
    """Written in opset 21 with the attributes that came since; float8 is refused by name."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1, saturate=1),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], axis=1),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=0, block_size=0),
        helper.make_node("Conv", ["d", "wd"], ["y"]),
    ]
    constants = {
        "s": np.float32(0.02),
        "z": np.int8(0),
        "w": RNG.integers(-127, 127, (4, 6, 1, 1)).astype(np.int8),
        "ws": np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        "wz": np.zeros(4, np.int8),
    }
    model = model_of(nodes, {"x": [2, 6, 4, 4]}, {"y": [2, 4, 4, 4]}, constants, opset=21)
    after = lower_opset.apply(model, 13)
    assert not any(item.name in ("saturate", "block_size") for node in after.graph.node for item in node.attribute)
    unchanged_by(model, after, FEATURES)
    float8 = onnx.helper.make_tensor("z", onnx.TensorProto.FLOAT8E4M3FN, [], [0.0])
    model.graph.initializer[1].CopyFrom(float8)
    with pytest.raises(ExportError, match="QuantizeLinear"):
        lower_opset.apply(model, 17)
