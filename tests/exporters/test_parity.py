"""Differences in quantisation steps: values worked by hand, NaN, refusals, and reading the step from a graph."""

import json
import math

import numpy as np
import pytest

from exporters import parity
from exporters.errors import ExportError


def test_values_worked_by_hand() -> None:
    reference = np.array([[0.0, 1.0], [2.0, 0.0]], np.float32)
    candidate = np.array([[0.0, 0.5], [2.0, 1.0]], np.float32)
    found = parity.compare(reference, candidate, 0.5)
    assert (found.max_abs, found.max_steps) == (1.0, 2.0)
    assert (found.mean_abs, found.mean_steps) == (0.375, 0.75)
    assert found.within_one_step == 0.75
    assert found.top1_agreement == 1.0
    assert found.not_a_number == 0


def test_equal_outputs_are_zero_apart() -> None:
    values = np.random.default_rng(0).standard_normal((4, 7)).astype(np.float32)
    found = parity.compare(values, values, None)
    assert (found.max_abs, found.mean_abs, found.top1_agreement) == (0.0, 0.0, 1.0)
    assert found.max_steps is None
    assert found.within_one_step is None


def test_one_step_in_float32_counts_as_one_step() -> None:
    step = np.float32(0.1)
    codes = np.arange(-128, 127)
    found = parity.compare((codes * step).astype(np.float32), ((codes + 1) * step).astype(np.float32), float(step))
    assert found.within_one_step == 1.0


def test_nan_equals_nan_and_nothing_else() -> None:
    nan = math.nan
    assert parity.compare(np.array([[nan, 1.0]]), np.array([[nan, 1.0]]), 1.0).max_abs == 0.0
    found = parity.compare(np.array([[nan, 1.0]]), np.array([[0.0, 1.0]]), 1.0)
    assert found.max_abs == math.inf
    assert found.not_a_number == 1
    assert found.top1_agreement == 0.0
    assert found.mean_abs == 0.0, "the mean is over what is finite on both sides"
    assert parity.compare(np.array([math.inf]), np.array([-math.inf]), None).max_abs == math.inf


def test_symmetric_in_its_arguments() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 5, 9))
    first, second = parity.compare(a, b, 0.1), parity.compare(b, a, 0.1)
    assert (first.max_steps, first.mean_steps) == (second.max_steps, second.mean_steps)


@pytest.mark.parametrize(("a", "b", "step"), [((2, 3), (3, 2), None), ((0, 3), (0, 3), None), ((1,), (1,), 0.0)])
def test_refusals(a: tuple[int, ...], b: tuple[int, ...], step: float | None) -> None:
    with pytest.raises(ExportError):
        parity.compare(np.zeros(a), np.zeros(b), step)


def test_step_of_a_quantised_output(depthwise_model) -> None:
    step = parity.output_step(depthwise_model.path)
    assert step is not None
    outputs = depthwise_model.onnx_outputs()
    np.testing.assert_allclose(outputs / step, np.rint(outputs / step), atol=1e-4)


def test_a_float_output_has_no_step(float_model, int8_model) -> None:
    assert parity.output_step(float_model.path) is None
    assert parity.output_step(int8_model.path) is None


def test_batches_give_what_the_whole_gives() -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((20, 6))
    b = a + rng.choice([0.0, 0.1, -0.3], a.shape)
    b[7, 2], a[11, 0], b[11, 0] = math.nan, math.inf, math.inf
    whole = parity.compare(a, b, 0.1)
    parts = parity.compare_batches([({"y": a[i : i + 3]}, {"y": b[i : i + 3]}) for i in range(0, 20, 3)], {"y": 0.1})
    found = parts["y"]
    assert (found.histogram, found.elements) == (whole.histogram, whole.elements)
    assert repr(found.worst) == repr(whole.worst)
    assert (found.within_one_step, found.top1_agreement) == (whole.within_one_step, whole.top1_agreement)
    assert found.mean_abs == pytest.approx(whole.mean_abs, rel=1e-12)
    assert found.spread == pytest.approx(whole.spread, rel=1e-12)


def test_histogram_is_signed_and_counts_every_element_once() -> None:
    reference = np.zeros((1, 7))
    candidate = np.array([[0.0, 0.2, -1.0, 1.0, 3.0, -100.0, math.nan]])
    found = parity.compare(reference, candidate, 1.0).histogram
    bins = dict(zip(zip(found.edges, found.edges[1:], strict=False), found.counts, strict=True))
    assert bins[(-0.5, 0.5)] == 1
    assert bins[(-1.5, -0.5)] == bins[(0.5, 1.5)] == bins[(2.5, 4.5)] == bins[(-math.inf, -16.5)] == 1
    assert (found.equal, found.unordered, sum(found.counts)) == (1, 1, 5)


def test_without_a_step_the_histogram_has_decades() -> None:
    found = parity.compare(np.zeros(3), np.array([0.0, 3e-4, -20.0]), None).histogram
    assert found.unit == "absolute"
    bins = dict(zip(zip(found.edges, found.edges[1:], strict=False), found.counts, strict=True))
    assert (bins[(1e-4, 1e-3)], bins[(10.0, 100.0)], sum(found.counts)) == (1, 1, 2)


def test_worst_samples_come_first_and_the_earlier_of_equal_ones() -> None:
    a = np.zeros((9, 2, 3))
    b = np.zeros_like(a)
    b[8, 1, 2], b[3, 0, 1], b[5, 0, 0], b[6, 1, 1] = 2.0, 1.0, 1.0, math.nan
    found = parity.compare(a, b, 0.5).worst
    assert [(one.sample, one.element, one.steps) for one in found] == [
        (6, (1, 1), math.inf),
        (8, (1, 2), 4.0),
        (3, (0, 1), 2.0),
        (5, (0, 0), 2.0),
    ]
    assert parity.compare(a, a, 0.5).worst == ()


def test_every_output_has_its_step_and_what_rounding_explains() -> None:
    from onnx import numpy_helper, parser

    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        two (float[2, 4] x) => (float[2, 4] a, float[2, 4] b, float[2, 4] c)
        <float s, int8 z, float t>
        {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            a = Relu(d)
            q2 = QuantizeLinear(a, t, z)
            b = DequantizeLinear(q2, t, z)
            c = Exp(b)
        }""")
    for name, value in {"s": np.float32(0.5), "z": np.int8(0), "t": np.float32(0.25)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    assert parity.output_steps(model) == {"a": 0.5, "b": 0.25, "c": None}
    assert parity.rerounded(model) == {"a": 1, "b": 2, "c": 2}
    assert parity.explained_steps(model) == {"a": 0.5, "b": 1.0, "c": 1.0}


def test_what_is_no_number_is_text_in_json() -> None:
    found = parity.plain(parity.compare(np.array([[math.nan]]), np.array([[1.0]]), 1.0))
    assert found["max_abs"] == "inf"
    assert found["worst"][0]["reference"] == "nan"
    assert found["histogram"]["edges"][0] == "-inf"
    assert json.dumps(found, allow_nan=False)


def test_an_output_that_one_side_lacks_is_refused() -> None:
    with pytest.raises(ExportError, match="'y' is missing"):
        parity.compare_batches([({"y": np.zeros(1)}, {"z": np.zeros(1)})], {"y": None})
    with pytest.raises(ExportError, match="no outputs"):
        parity.compare_batches([], {"y": None})


def turned(reference: object, candidate: object) -> parity.Parity:
    """A comparison of directions."""
    comparison = parity.Comparison(0.1, directions=True)
    comparison.add(np.asarray(reference, np.float32), np.asarray(candidate, np.float32))
    return comparison.result()


def test_the_turn_of_vectors_worked_by_hand() -> None:
    found = turned([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]])
    assert found.width == 2
    assert found.largest_angle == pytest.approx(90.0)
    assert found.rms_angle == pytest.approx(60.0)  # chords sqrt(2) and 0: root mean square 1, a sixth of the circle
    assert turned([[0.6, 0.8]], [[-0.6, -0.8]]).largest_angle == pytest.approx(180.0)


def test_a_row_of_another_length_counts_as_turned() -> None:
    assert turned([[2.0, 0.0]], [[4.0, 0.0]]).largest_angle == pytest.approx(60.0)  # a chord of one radius
    assert turned([[1.0, 0.0]], [[7.0, 0.0]]).largest_angle == 180.0
    assert turned([[0.0, 0.0]], [[0.0, 0.0]]).largest_angle == 0.0
    assert turned([[0.0, 0.0]], [[0.0, 0.1]]).largest_angle == math.inf
    assert turned([[1.0, 0.0]], [[math.nan, 0.0]]).largest_angle == math.inf


def test_other_outputs_have_no_direction() -> None:
    found = parity.compare(np.ones((2, 3)), np.ones((2, 3)), 0.1)
    assert (found.width, found.largest_angle, found.rms_angle) == (None, None, None)


def test_steps_as_an_angle() -> None:
    assert parity.angle_of_steps(1.0, 0.01, 100) == pytest.approx(math.degrees(2 * math.asin(0.05)))
    assert parity.angle_of_steps(0.0, 0.01, 100) == 0.0
    # Storing unit vectors in 8 bits turns them by what 1 / sqrt(12) of a step says.
    vectors = np.random.default_rng(0).standard_normal((500, 384))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    step = 0.002
    found = parity.Comparison(step, directions=True)
    found.add(vectors, np.rint(vectors / step) * step)
    assert found.result().rms_angle == pytest.approx(parity.angle_of_steps(12**-0.5, step, 384), rel=0.02)
