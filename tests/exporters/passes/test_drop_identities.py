"""Nodes that hand their input on go, others stay."""

import numpy as np
from onnx import TensorProto, helper

from exporters.passes import drop_identities

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


def test_drop_identities(model_of, kinds, unchanged_by) -> None:
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
    unchanged_by(model, after, IMAGES)


def test_drop_identities_keeps_what_does_something(model_of, kinds, unchanged_by) -> None:
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
    unchanged_by(model, after, IMAGES)
