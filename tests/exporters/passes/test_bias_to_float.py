"""int32 biases become float32 with the values that ONNX defines."""

import numpy as np
from onnx import helper

from exporters import graph
from exporters.passes import bias_to_float

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


def test_bias_to_float(model_of, kinds, unchanged_by) -> None:
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
    unchanged_by(model, after, IMAGES)
