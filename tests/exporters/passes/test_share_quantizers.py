"""Equal quantisers of one tensor become one."""

import numpy as np
from onnx import helper

from exporters.passes import share_quantizers

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


def test_share_quantizers_compares_by_value(model_of, kinds, pair, unchanged_by) -> None:
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
    unchanged_by(model, after, IMAGES)
