"""Differences between arms that share their seeds, and what a criterion makes of one.

One rule holds for all experiments where a specification states no other: `shown`. Where it does, that one decides:
`by_mean` ("in the mean"), `by_errors` ("by two standard errors"), `not_below` ("no worse beyond two standard errors").
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compress.contracts.experiment import Holds

LEVEL = 0.95  # of intervals, and 1 - LEVEL of one-sided tests


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

    def tells_from(self, value: float) -> bool:
        """Whether the mean is above `value` by Student's t test, one-sided at 5 %; never with one seed."""
        if self.seeds < 2 or self.mean <= value:
            return False
        if self.error == 0.0:
            return True
        from scipy import stats  # slow to import

        return float(stats.t.sf((self.mean - value) / self.error, self.seeds - 1)) < 1 - LEVEL

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


def shown(gap: Paired, bar: float = 0.0) -> Holds:
    """The rule where nothing else is said: the mean reaches `bar`, and seeds tell the difference from none.

    A bar >= 0 is a size that the mean must reach, and the test is against zero, one-sided at 5 %; of a bar < 0, which
    allows a loss, the test is against the bar. "undecided" where the mean reaches the bar and the test does not.
    """
    if gap.seeds > 1 and gap.mean < bar:
        return "no"
    return "yes" if gap.tells_from(min(bar, 0.0)) else "undecided"


def by_mean(gap: Paired, bar: float) -> Holds:
    """Of criteria "in the mean" over the seeds: as `shown`, but what that leaves undecided holds "by mean alone"."""
    held = shown(gap, bar)
    return "by mean alone" if held == "undecided" and gap.seeds > 1 else held


def by_errors(gap: Paired, bar: float, errors: float) -> Holds:
    """Of criteria that name standard errors: the mean reaches `bar`, and is above zero by so many of them."""
    if gap.seeds < 2:
        return "undecided"
    return "yes" if gap.mean >= bar and gap.mean >= errors * gap.error else "no"


def not_below(gap: Paired, bar: float = 0.0, errors: float = 2.0) -> Holds:
    """Whether the difference is no worse than `bar` beyond so many standard errors."""
    if gap.seeds < 2:
        return "undecided"
    return "yes" if gap.mean >= bar - errors * gap.error else "no"


def within(gap: Paired, bound: float) -> Holds:
    """Whether the difference is at most `bound` > 0 either way: "no" by the mean, "yes" where seeds show it, tested
    against both bounds, each one-sided at 5 %; else undecided."""
    if gap.seeds > 1 and abs(gap.mean) > bound:
        return "no"
    mirrored = replace(gap, mean=-gap.mean)
    return "yes" if gap.tells_from(-bound) and mirrored.tells_from(-bound) else "undecided"
