"""Dead channels get a usable scale; what calibration broke is refused."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import ModelProto, helper

from exporters import graph
from exporters.errors import ExportError
from exporters.passes import floor_scales

RNG = np.random.default_rng(0)
IMAGES = {"x": RNG.standard_normal((2, 3, 5, 5)).astype(np.float32)}


def scaled(model_of: Callable[..., ModelProto], values: list[float], codes: np.ndarray) -> ModelProto:
    return model_of(
        [
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], axis=0),
            helper.make_node("Conv", ["x", "wf"], ["y"], kernel_shape=[3, 3]),
        ],
        {"x": [2, 3, 5, 5]},
        {"y": [2, len(values), 3, 3]},
        {"w": codes, "s": np.array(values, np.float32), "z": np.zeros(len(values), np.int8)},
    )


def test_floor_scales_mends_dead_channels(model_of, unchanged_by) -> None:
    codes = RNG.integers(-127, 128, (3, 3, 3, 3)).astype(np.int8)
    codes[1] = 0
    codes[2] = 0
    model = scaled(model_of, [0.5, 0.0, 1e-40], codes)
    after = floor_scales.apply(model)
    floor = 0.5 * 2.0**-24
    assert graph.array(graph.constants(after.graph)["s"]).tolist() == [0.5, np.float32(floor), np.float32(floor)]
    assert (graph.array(graph.constants(after.graph)["w"]) == codes).all()
    unchanged_by(model, after, IMAGES)  # the codes of those channels are zero


def test_floor_scales_mends_a_layer_that_is_all_dead(model_of, unchanged_by) -> None:
    model = scaled(model_of, [0.0, 0.0], np.zeros((2, 3, 3, 3), np.int8))
    after = floor_scales.apply(model)
    assert (graph.array(graph.constants(after.graph)["s"]) > 0).all()
    unchanged_by(model, after, IMAGES)


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), -1.0])
def test_floor_scales_refuses(model_of, bad: float) -> None:
    with pytest.raises(ExportError, match="not a finite positive number"):
        floor_scales.apply(scaled(model_of, [0.5, bad], np.zeros((2, 3, 3, 3), np.int8)))


def test_floor_scales_refuses_an_activation_that_was_never_seen(model_of, pair) -> None:
    model = model_of(
        pair("a", "x", "s", "z"), {"x": [2, 3, 5, 5]}, {"a_dq": [2, 3, 5, 5]}, {"s": np.float32(0), "z": np.int8(0)}
    )
    with pytest.raises(ExportError, match="always zero"):
        floor_scales.apply(model)
