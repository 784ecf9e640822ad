"""Differences between arms that share their seeds."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from compress.contracts.experiment import Holds

LEVEL = 0.95


@dataclass(frozen=True)
class Paired:
    """Mean of the differences, seed by seed.

    Attributes:
        error: standard error of the mean; NaN with one seed.
        interval: 95 % by Student's t; (-inf, inf) with one seed.
        p: two-sided, of the mean being zero, by Student's paired t test; NaN with one seed.
    """

    mean: float
    error: float
    interval: tuple[float, float]
    p: float
    seeds: int

    def __str__(self) -> str:
        if self.seeds < 2:
            return f"{self.mean:+.2f} (one seed)"
        return f"{self.mean:+.2f} +- {self.error:.2f} (s.e., {self.seeds} seeds, p {self.p:.2g})"


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """`first` minus `second`.

    Args:
        first, second: one figure per seed, in the same order.

    Raises:
        ValueError: they are not equally many, or there are none.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} figures cannot be paired with {len(second)}")
    gaps = [a - b for a, b in zip(first, second, strict=True)]
    mean, count = statistics.fmean(gaps), len(gaps)
    if count < 2:
        return Paired(mean, math.nan, (-math.inf, math.inf), math.nan, count)
    from scipy import stats  # slow to import

    error = statistics.stdev(gaps) / math.sqrt(count)
    if error == 0.0:  # the same in every seed
        return Paired(mean, 0.0, (mean, mean), 1.0 if mean == 0.0 else 0.0, count)
    reach = float(stats.t.ppf(0.5 + LEVEL / 2, count - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, count - 1))
    return Paired(mean, error, (mean - reach, mean + reach), p, count)


def at_least(gap: Paired, bar: float, errors: float = 0.0) -> Holds:
    """Whether the mean difference reaches `bar`, and is above zero by so many standard errors where that is asked.

    "undecided" with one seed; otherwise the point estimate decides, as specifications state their criteria.
    """
    if gap.seeds < 2:
        return "undecided"
    return "yes" if gap.mean >= bar and gap.mean >= errors * gap.error else "no"


def not_below(gap: Paired, bar: float = 0.0, errors: float = 2.0) -> Holds:
    """Whether the difference is no worse than `bar` beyond so many standard errors."""
    if gap.seeds < 2:
        return "undecided"
    return "yes" if gap.mean >= bar - errors * gap.error else "no"


def shown(gap: Paired, bar: float) -> Holds:
    """Whether the mean difference reaches `bar` >= 0 and seeds tell it from zero, one-sided at 5 %.

    "undecided" where the mean reaches the bar and its spread does not exclude zero: stricter than a mean alone.
    """
    if gap.mean < bar and gap.seeds > 1:
        return "no"
    one_sided = gap.p / 2 if gap.mean > 0 else 1.0
    return "yes" if one_sided < 1 - LEVEL else "undecided"
