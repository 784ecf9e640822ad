"""Older opsets, or a refusal by name."""

import numpy as np
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
        [helper.make_node("Mish", ["x"], ["a"]), helper.make_node("Split", ["a"], ["y", "z"], axis=2, num_outputs=2)],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 3, 3, 5], "z": [2, 3, 2, 5]},
    )
    with pytest.raises(ExportError, match="no Mish and no Split"):
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
