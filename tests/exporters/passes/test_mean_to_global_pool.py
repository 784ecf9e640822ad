"""Spatial means become pools, other means stay."""

import numpy as np
import pytest
from onnx import helper

from exporters.passes import mean_to_global_pool

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
def test_mean_to_global_pool(model_of, kinds, axes: list[int], keep: int, unchanged_by) -> None:
    model = model_of(
        [helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=keep)],
        {"x": ["batch", 3, 5, 5]},
        {"y": ["batch", 3, 1, 1] if keep else ["batch", 3]},
        {"a": np.array(axes, np.int64)},
    )
    after = mean_to_global_pool.apply(model)
    assert kinds(after) == (["GlobalAveragePool"] if keep else ["GlobalAveragePool", "Flatten"])
    unchanged_by(model, after, IMAGES, 1e-6)  # another order of 25 additions


def test_mean_to_global_pool_leaves_other_means(model_of, kinds) -> None:
    for axes, keep, shape in (([1, 2], 1, [2, 1, 1, 5]), ([2], 0, [2, 3, 5])):
        model = model_of(
            [helper.make_node("ReduceMean", ["x", "a"], ["y"], keepdims=keep)],
            {"x": [2, 3, 5, 5]},
            {"y": shape},
            {"a": np.array(axes, np.int64)},
        )
        assert kinds(mean_to_global_pool.apply(model)) == ["ReduceMean"]


def test_a_quantised_mean_is_quantised_directly_behind_the_pool(model_of, kinds, pair, unchanged_by) -> None:
    model = model_of(
        [helper.make_node("ReduceMean", ["x", "a"], ["m"], keepdims=0), *pair("m", "m", "s", "z")],
        {"x": ["batch", 3, 5, 5]},
        {"m_dq": ["batch", 3]},
        {"a": np.array([2, 3], np.int64), "s": np.float32(0.01), "z": np.int8(-3)},
    )
    after = mean_to_global_pool.apply(model)
    pair_kinds = ["QuantizeLinear", "DequantizeLinear"]
    assert kinds(after) == ["GlobalAveragePool", *pair_kinds, "Flatten", *pair_kinds]
    unchanged_by(model, after, IMAGES)
