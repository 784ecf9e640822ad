"""Differences in quantisation steps: values worked by hand, NaN, refusals, and reading the step from a graph."""

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
