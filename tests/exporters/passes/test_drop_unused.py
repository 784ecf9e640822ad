"""What no output needs goes."""

import numpy as np
from onnx import helper

from exporters.passes import drop_unused

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


def test_drop_unused(model_of, kinds, unchanged_by) -> None:
    model = model_of(
        [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Add", ["x", "k"], ["nobody"])],
        {"x": [2, 3, 5, 5]},
        {"y": [2, 3, 5, 5]},
        {"k": np.float32(1)},
    )
    after = drop_unused.apply(model)
    assert kinds(after) == ["Relu"]
    assert not after.graph.initializer
    unchanged_by(model, after, IMAGES)
