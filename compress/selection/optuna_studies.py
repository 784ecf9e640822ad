"""Optuna without its log lines, in memory: what the selectors that use it share."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from compress.contracts.selector import Candidate
from compress.selection.ranking import expense

BUDGET = "budget"  # the constraint that a rejected candidate breaks
DIVERGED = "diverged"  # the constraint that a training without a score breaks
LEAST_VIOLATION = 0.01  # of a candidate that was rejected and is no dearer than an admitted one


@contextmanager
def quiet() -> Iterator[None]:
    """No message of Optuna's while inside: it logs every study, and warns of arguments that it calls experimental."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def seed_of(rng: random.Random) -> int:
    """A seed that numpy takes."""
    return rng.randrange(2**32)


def violation(candidate: Candidate, dearest: float) -> float:
    """By how much a candidate breaks the budget: 0 where it is admitted, else above 0.

    Proposed: a rejection says its reason in words, so that the amount is how far the candidate's expense
    (`ranking.expense`, a logarithm) lies above that of the dearest admitted one.
    """
    if candidate.rejected is None:
        return 0.0
    return LEAST_VIOLATION + max(0.0, expense(candidate.cost) - dearest)
