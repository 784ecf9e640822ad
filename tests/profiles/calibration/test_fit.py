"""The fit recovers what made the times, is never negative, and solves small problems as by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from profiles.calibration import fit
from profiles.calibration.suite import Sample

Array = NDArray[np.float64]
Known = tuple[Sequence[Sample], Array, Array]


def test_least_squares_by_hand() -> None:
    # Without the bound x = (2, -1); with it the second is 0 and the first the mean of 2 and 1.
    matrix = np.array([[1.0, 0.0], [1.0, 1.0]])
    assert fit.nonnegative(matrix, np.array([2.0, 1.0])) == pytest.approx([1.5, 0.0])
    assert fit.nonnegative(matrix, np.array([1.0, 3.0])) == pytest.approx([1.0, 2.0])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_nothing_that_is_allowed_fits_better(seed: int, warm: bool) -> None:
    rng = np.random.default_rng(seed)
    matrix, target = rng.standard_normal((12, 5)), rng.standard_normal(12)
    start = np.abs(rng.standard_normal(5)) * (rng.random(5) < 0.5) if warm else None
    found = fit.nonnegative(matrix, target, start)
    slope = matrix.T @ (matrix @ found - target)
    assert (found >= 0).all()
    assert slope[found > 0] == pytest.approx(0, abs=1e-7)  # the conditions of Karush, Kuhn and Tucker
    assert (slope[found == 0] > -1e-6).all()


def test_times_without_noise_give_back_the_times(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "SHRINK", 1e-9)
    _, rows, truth = known
    found = fit.solve(rows, rows @ truth)
    assert rows @ found == pytest.approx(rows @ truth, rel=1e-4)


def test_constants_that_the_suite_tells_apart_are_found(known: Known, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "SHRINK", 1e-9)
    _, rows, truth = known
    one, few = [fit.PLACES.index(("gemm", index)) for index in range(5)], rows[:80]
    # Only these five counts and what each inference costs: as many equations as could be wished for.
    kept = np.zeros_like(few)
    kept[:, [*one, -1]] = np.random.default_rng(0).uniform(1, 100, (80, 6))
    found = fit.solve(kept, kept @ truth)
    assert found[[*one, -1]] == pytest.approx(truth[[*one, -1]], rel=1e-5)
    assert found.sum() == pytest.approx(truth[[*one, -1]].sum(), rel=1e-5)  # nothing else


def test_noise_moves_predictions_by_no_more_than_itself(known: Known) -> None:
    _, rows, truth = known
    rng = np.random.default_rng(1)
    clean = rows @ truth
    noisy = clean * np.exp(0.03 * rng.standard_normal(len(clean)))
    noisy[::25] *= 3  # disturbed, and left out by the weights
    errors = np.abs(rows @ fit.solve(rows, noisy) / clean - 1)
    assert np.median(errors) < 0.03
    assert np.percentile(errors, 90) < 0.08


def test_models_that_were_left_out_are_predicted_by_the_others(known: Known) -> None:
    _, rows, truth = known
    ratios = fit.unseen(rows, rows @ truth)
    assert ratios.shape == (len(rows),)
    assert np.median(np.abs(ratios - 1)) < 0.03
    assert np.abs(ratios - 1).max() > 1e-6  # they were not seen
