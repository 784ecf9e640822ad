"""What training all students would have cost, from the trainings that were done.

CPU seconds of one trial are taken as

    seconds = per trial + share x (per training + multiply-accumulates x per multiply-accumulate)

with three constants that are not negative: what starting and scoring takes, what the batches' data and the optimiser's
calls take whatever the student, and the student's own work. Proposed here; it holds as far as all trials ran on like
machines.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.selection.events import FULL, Charged, Costed, Event, Scored, Trained

Float = npt.NDArray[np.float64]
RESAMPLES = 100
CONFIDENCE = 0.9
TURNS = 8  # of weighting again; further ones change less than a thousandth
SINGULAR = 1e-10  # determinant below which trials do not tell two constants apart


@dataclass(frozen=True)
class Timed:
    """CPU seconds of one trial of a student with so many multiply-accumulates."""

    macs: int
    share: float
    cpu_s: float


@dataclass(frozen=True)
class Total:
    """CPU seconds of several full trainings.

    Attributes:
        low, high: 90 % interval; equal to `cpu_s` where all were measured, NaN where nothing could be predicted.
        measured, predicted: trainings that were done, and those that were not.
    """

    cpu_s: float
    low: float
    high: float
    measured: int
    predicted: int


def constants(trials: Sequence[Timed]) -> Float:
    """Seconds per trial, per full training, and per multiply-accumulate of a full training; each >= 0.

    Times spread in proportion to their size, so that each error counts relative to what is expected there (the quasi-
    likelihood of a constant coefficient of variation; McCullagh and Nelder, Generalized Linear Models, 1989, chapter
    8), found by least squares that are weighted again and again.

    Raises:
        ValueError: no trial took any time.
    """
    timed = [trial for trial in trials if trial.cpu_s > 0]
    if not timed:
        raise ValueError("no trial took any time")
    seconds = np.array([trial.cpu_s for trial in timed])
    rows = np.array([[1.0, trial.share, trial.share * trial.macs] for trial in timed])
    scale = np.maximum(rows.max(axis=0), 1e-300)
    values, expected = np.zeros(3), seconds
    for _ in range(TURNS):
        values = _not_negative(rows / scale / expected[:, None], seconds / expected)
        expected = rows / scale @ values
    return np.asarray(values / scale)


def _not_negative(table: Float, target: Float) -> Float:
    """Least squares with no value below zero: on those that are not zero it is the free optimum, so all seven choices
    of them are tried, the work alone first: one trial is explained by its multiply-accumulates."""
    best, found = math.inf, np.zeros(3)
    for chosen in ((2,), (1,), (0,), (1, 2), (0, 2), (0, 1), (0, 1, 2)):
        part = table[:, chosen]
        gram = part.T @ part
        if len(target) < len(chosen) or np.linalg.det(gram / np.trace(gram)) < SINGULAR:
            continue
        values = np.linalg.solve(gram, part.T @ target)
        error = float(np.sum((part @ values - target) ** 2))
        if (values >= 0).all() and error < best - 1e-12:
            best, found = error, np.zeros(3)
            found[list(chosen)] = values
    return found


def seconds_of(values: Float, macs: int, share: float = 1.0) -> float:
    """What `constants` say of one trial."""
    return float(values @ np.array([1.0, share, share * macs]))


def training_all(done: Sequence[float], left: Sequence[int], trials: Sequence[Timed], *, seed: int) -> Total:
    """Training every student fully once.

    Args:
        done: CPU seconds of the full trainings that were done.
        left: multiply-accumulates of each student that was not trained fully.
        trials: all that were timed; the constants come from them, the interval from drawing them again with
            replacement, each student left with the relative error of a trial drawn for it.
        seed: of the draws.
    """
    known = float(sum(done))
    timed = [trial for trial in trials if trial.cpu_s > 0]
    if not left:
        return Total(known, known, known, len(done), 0)
    if not timed:
        return Total(math.nan, math.nan, math.nan, len(done), len(left))

    values = constants(timed)
    predicted = known + sum(seconds_of(values, macs) for macs in left)
    if len(timed) < 3:
        return Total(predicted, math.nan, math.nan, len(done), len(left))
    errors = np.array([trial.cpu_s / seconds_of(values, trial.macs, trial.share) for trial in timed])
    rng = np.random.default_rng(seed)
    totals = []
    for draw in rng.integers(0, len(timed), (RESAMPLES, len(timed))):
        again = constants([timed[place] for place in draw])
        each = np.array([seconds_of(again, macs) for macs in left])
        totals.append(known + float(each @ rng.choice(errors, len(left))))
    low, high = np.quantile(totals, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Total(predicted, min(float(low), predicted), max(float(high), predicted), len(done), len(left))


def account(
    story: Sequence[Event], affordable: Mapping[str, int], macs: Mapping[str, int], *, seed: int
) -> dict[str, Any]:
    """CPU seconds of the search, and of training every affordable student once instead.

    What a trial took counts once, whenever it was done: who starts with no memory would pay it. Full trainings that
    were not done are predicted from those that were timed, by `training_all`.

    Args:
        affordable: student -> multiply-accumulates, of those that exhaustive search would have to train.
        macs: the same for every student that was trained.
    """
    once: dict[tuple[str, float, int], Trained] = {}
    for event in story:
        if isinstance(event, Trained):
            once.setdefault(event.trial, event)
    trials = list(once.values())
    timed = [Timed(macs[trial.identity], trial.share, trial.cpu_s) for trial in trials]
    full: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.share >= FULL and trial.cpu_s > 0:
            full[trial.identity].append(trial.cpu_s)
    done = [sum(times) / len(times) for identity, times in full.items() if identity in affordable]
    left = [size for identity, size in affordable.items() if identity not in full]
    everything = training_all(done, left, timed, seed=seed)

    charged = [event for event in story if isinstance(event, Charged)]
    known = sum(event.cpu_s for event in charged if event.cpu_s is not None)
    unknown = sum(event.share for event in charged if event.cpu_s is None)
    guessed = unknown * everything.cpu_s / len(affordable) if unknown else 0.0
    costing = sum(event.cpu_s for event in story if isinstance(event, Costed))
    scoring = sum(event.cpu_s for event in story if isinstance(event, Scored))
    training = sum(trial.cpu_s for trial in trials)
    spent = training + known + guessed + costing + scoring
    trainings = sum(trial.share for trial in trials) + sum(event.share for event in charged)
    return {
        "trials": len(trials),
        "trainings": trainings,
        "cpu_s": _number(spent),
        "of_trials_s": training,
        "of_remembered_s": sum(trial.cpu_s for trial in trials if trial.remembered),
        "of_charges_s": _number(known + guessed),
        "charges_predicted": unknown > 0,
        "of_costing_s": costing,
        "of_scoring_s": scoring,
        "exhaustive": {
            "students": len(affordable),
            "cpu_s": _number(everything.cpu_s),
            "low_s": _number(everything.low),
            "high_s": _number(everything.high),
            "measured": everything.measured,
            "predicted": everything.predicted,
        },
        "times_less": _number(everything.cpu_s / spent) if spent > 0 else None,
        "times_less_trainings": len(affordable) / trainings if trainings > 0 else None,
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
