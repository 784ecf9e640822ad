"""Nanoseconds per unit of work, from times of whole models: non-negative least squares in relative errors.

A model's time is a sum over its calls, each linear in its counts (`profiles.latency.x86_calls`), so one linear problem
holds all constants, and models that have several kernels take part like those that isolate one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profiles.fuse import Kernel
from profiles.latency.x86_calls import ROUTES, Call, calls
from profiles.latency.x86_cpu import Constants

Array = NDArray[np.float64]

ROBUST = 0.06  # relative error above which a model pulls less than its square
ROUNDS = 6  # of reweighting
SHRINK = 0.02  # pull of every constant towards zero, relative to one model's weight: shares work between counts that go
# together instead of giving all of it to one of them
PLACES = [(route, index) for route, counts in ROUTES.items() for index in range(len(counts))]


@dataclass(frozen=True)
class Fit:
    """Constants, and how far they are off on models that they were not fitted on."""

    constants: Constants
    ratios: Array  # (N,): measured over predicted, each model predicted by a fit that did not see it


def features(kernels: Sequence[Kernel], lanes: int, cache_kib: float, ends: Sequence[Call] = ()) -> Array:
    """One model's counts, one number per place of `PLACES`; the last number is 1, for what every inference costs.

    Args:
        ends: further calls, at the model's input and output.
    """
    sums = dict.fromkeys(PLACES, 0.0)
    made = [call for kernel in kernels for call in calls(kernel, lanes, cache_kib * 1024)]
    for route, counts in (*made, *ends):
        for index, count in enumerate(counts):
            sums[route, index] += count
    return np.array([*sums.values(), 1.0])


def solve(rows: Array, nanoseconds: Array) -> Array:
    """The constants, >= 0, that predict the times best: squares of relative errors, large ones taken for outliers.

    Args:
        rows: (N, P), from `features`.
        nanoseconds: (N,), > 0.

    Returns:
        (P,); 0 for what no model has.
    """
    relative = rows / nanoseconds[:, None]
    scale = np.linalg.norm(relative, axis=0)
    used = scale > 0
    matrix = relative[:, used] / scale[used]
    shrink = SHRINK * np.eye(matrix.shape[1])
    weight = np.ones(len(rows))
    found = np.zeros(matrix.shape[1])
    for _ in range(ROUNDS):
        stacked = np.vstack([matrix * weight[:, None], shrink])
        found = nonnegative(stacked, np.concatenate([weight, np.zeros(len(shrink))]), found)
        error = np.abs(matrix @ found - 1)
        weight = np.sqrt(np.minimum(1.0, ROBUST / np.maximum(error, 1e-12)))
    constants = np.zeros(rows.shape[1])
    constants[used] = found / scale[used]
    return constants


def nonnegative(matrix: Array, target: Array, start: Array | None = None) -> Array:
    """argmin |matrix x - target| over x >= 0, (P,).

    Source: C. L. Lawson, R. J. Hanson, "Solving Least Squares Problems", 1974, chapter 23, on the normal equations as
    in R. Bro, S. de Jong, "A fast non-negativity-constrained least squares algorithm", J. Chemometrics 11 (1997).

    Args:
        start: a solution of a similar problem; saves time.
    """
    square, right = matrix.T @ matrix, matrix.T @ target
    count = len(right)
    slack = 1e-9 * max(float(np.abs(right).max(initial=0.0)), 1e-300)
    x = np.zeros(count) if start is None else start.copy()
    free = x > 0
    added = -1
    for _ in range(10 * count):
        while free.any():
            inner = np.flatnonzero(free)
            trial = np.zeros(count)
            trial[inner] = _symmetric(square[np.ix_(inner, inner)], right[inner])
            negative = free & (trial <= 0)
            if not negative.any():
                x = trial
                break
            steps = x[negative] / np.maximum(x[negative] - trial[negative], 1e-300)
            x = x + float(steps.min()) * (trial - x)
            gone = free & (x <= 1e-14 * max(float(x.max()), 1e-300))
            gone[np.flatnonzero(negative)[int(np.argmin(steps))]] = True
            free &= ~gone
            x[~free] = 0.0
        gradient = right - square @ x
        gradient[free] = -np.inf
        best = int(np.argmax(gradient))
        if gradient[best] <= slack or (
            best == added and not free[best] and x[best] == 0 and gradient[best] < 1e3 * slack
        ):
            break
        free[best] = True
        added = best
    return x


def _symmetric(square: Array, right: Array) -> Array:
    try:
        return np.asarray(np.linalg.solve(square, right), np.float64)
    except np.linalg.LinAlgError:  # counts that always go together
        return np.asarray(np.linalg.lstsq(square, right, rcond=None)[0], np.float64)


def constants_of(solution: Array, lanes: int, cache_kib: float, peaks: tuple[float, ...]) -> Constants:
    """A solution as the constants of the latency model."""
    tables = {
        route: tuple(float(solution[PLACES.index((route, index))]) for index in range(len(counts)))
        for route, counts in ROUTES.items()
    }
    return Constants(lanes=float(lanes), cache_kib=cache_kib, peaks=peaks, fixed_us=float(solution[-1]) / 1e3, **tables)


def unseen(rows: Array, nanoseconds: Array, folds: int = 10) -> Array:
    """Measured over predicted time of each model, (N,), by fits on the other folds."""
    ratios = np.ones(len(rows))
    fold = np.arange(len(rows)) % folds
    for number in range(folds):
        out = fold == number
        if out.any() and not out.all():
            ratios[out] = nanoseconds[out] / np.maximum(rows[out] @ solve(rows[~out], nanoseconds[~out]), 1e-9)
    return ratios
