"""Constant tensors are stored quantised, with the codes that ONNX defines."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper

from exporters import graph
from exporters.passes import drop_unused, fold_weight_quantizers

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


def weight_model(
    model_of: Callable[..., ModelProto], pair: Callable[..., list[onnx.NodeProto]], dtype: type, zero: int
) -> ModelProto:
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
def test_fold_weight_quantizers(kinds, model_of, pair, dtype: type, zero: int, unchanged_by) -> None:
    model = weight_model(model_of, pair, dtype, zero)
    after = drop_unused.apply(fold_weight_quantizers.apply(model))
    assert kinds(after) == ["DequantizeLinear", "Conv"]
    stored = graph.constants(after.graph)["w_q"]
    assert graph.array(stored).dtype == dtype
    assert after.ByteSize() < model.ByteSize()
    unchanged_by(model, after, IMAGES)


def test_fold_rounds_half_to_even_and_saturates() -> None:
    data = np.array([0.5, 1.5, 2.5, -0.5, 1000.0, -1000.0], np.float32)
    codes = fold_weight_quantizers.quantize(data, np.float32(1) * np.ones(()), np.zeros(()), 0, TensorProto.INT8)
    assert codes.tolist() == [0, 2, 2, 0, 127, -128]


def test_fold_leaves_activations(kinds, int8_proto: ModelProto) -> None:
    after = fold_weight_quantizers.apply(int8_proto)
    assert kinds(after).count("QuantizeLinear") == kinds(int8_proto).count("QuantizeLinear") > 0
