"""How well one order of students foretells another: rank correlations, with and without the students' size, how many of
the best a cheap score finds, and how far each figure is to be trusted.

Everywhere: one value per student, in the same order; -inf and inf are ranks like others; a NaN (a training that
diverged, a score that was never taken) makes the figure NaN, so who calls decides whom to leave out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Numbers = Sequence[float] | npt.NDArray[np.floating]
Given = Numbers | Sequence[Numbers]
Statistic = Callable[..., float]
Float = npt.NDArray[np.float64]

BLOCK = 512  # students that are compared with all others at once: memory grows with n, not with its square
NOTHING_LEFT = 1e-9  # of a rank's variance: what is left of an order that the covariates explain is rounding


def kendall(a: Numbers, b: Numbers) -> float:
    """Kendall's tau-b: concordant less discordant pairs, over the pairs that are not tied.

    (P - Q) / sqrt((P + Q + ties of a alone) (P + Q + ties of b alone)); without ties (P - Q) / (n (n - 1) / 2).
    Source: Kendall, "The treatment of ties in ranking problems", Biometrika 33 (1945).

    Returns:
        -1 to 1; NaN below two students, or where all values of one side are equal.

    Raises:
        ValueError: the lengths differ.
    """
    one, other = _pair(a, b)
    if one.size < 2 or _unknown(one, other):
        return math.nan
    both, of_one, of_other = 0, 0, 0
    for start in range(0, one.size, BLOCK):
        here = slice(start, start + BLOCK)
        left, right = _signs(one[here], one), _signs(other[here], other)
        both += int(np.sum(left * right, dtype=np.int64))
        of_one += int(np.sum(left != 0))
        of_other += int(np.sum(right != 0))
    return _over(float(both), math.sqrt(of_one * of_other))


def spearman(a: Numbers, b: Numbers) -> float:
    """Spearman's rho: the linear correlation of the ranks; equal values share the mean of their ranks.

    Returns:
        -1 to 1; NaN below two students, or where all values of one side are equal.

    Raises:
        ValueError: the lengths differ.
    """
    one, other = _pair(a, b)
    return math.nan if one.size < 2 or _unknown(one, other) else _pearson(ranks(one), ranks(other))


def partial_spearman(a: Numbers, b: Numbers, given: Given) -> float:
    """Spearman's rho of what the ranks of `given` leave of the ranks of a and of b.

    Each side's ranks are explained linearly by the ranks of the covariates, and what is left of them is correlated.
    With one covariate this is (r_ab - r_ac r_bc) / sqrt((1 - r_ac^2) (1 - r_bc^2)).

    Args:
        given: one covariate (such as the logarithm of the parameter count), or several.

    Returns:
        -1 to 1; NaN below two students more than covariates, or where the covariates explain one side wholly.

    Raises:
        ValueError: the lengths differ.
    """
    one, other = _pair(a, b)
    covariates = [_column(values, one.size) for values in _several(given)]
    if one.size < len(covariates) + 2 or _unknown(one, other, *covariates):
        return math.nan
    known = np.stack([np.ones(one.size), *(ranks(values) for values in covariates)], axis=1)
    rest = []
    for side in (one, other):
        rank = ranks(side)
        explained = known @ np.linalg.lstsq(known, rank, rcond=None)[0]
        left = rank - explained
        if float(left @ left) <= NOTHING_LEFT * float(np.sum((rank - rank.mean()) ** 2)):
            return math.nan
        rest.append(left)
    return _pearson(*rest)


def partial_kendall(a: Numbers, b: Numbers, given: Given) -> float:
    """Kendall's tau of a and b with the covariates held still, from the taus of all pairs.

    With one covariate (t_ab - t_ac t_bc) / sqrt((1 - t_ac^2) (1 - t_bc^2)), with several the same rule again and again.
    Source: Kendall, "Partial rank correlation", Biometrika 32 (1942); several covariates as for linear correlations.

    Returns:
        -1 to 1; NaN where a tau is, or where a covariate orders one side wholly.

    Raises:
        ValueError: the lengths differ.
    """
    one, other = _pair(a, b)
    sides = [one, other, *(_column(values, one.size) for values in _several(given))]
    taus = [[1.0 if i == j else kendall(sides[i], sides[j]) for j in range(len(sides))] for i in range(len(sides))]
    return _partial(taus, 0, 1, tuple(range(2, len(sides))))


def ranks(values: Numbers) -> Float:
    """Ranks from 1, the smallest first; equal values share the mean of their ranks."""
    _, places, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    found: Float = (last - (counts - 1) / 2.0)[places.reshape(-1)]
    return found


def top_recall(predicted: Numbers, truth: Numbers, count: int) -> float:
    """Share of the truly best `count` students among the `count` that a score puts first; higher is better on both.

    A student as good as the last of the best counts as one of them. Where equal predictions compete for the last places
    the expected share over their random orders is given.

    Returns:
        0 to 1.

    Raises:
        ValueError: the lengths differ, a value is NaN, or `count` is not between 1 and the number of students.
    """
    guess, real = _pair(predicted, truth)
    if not 1 <= count <= guess.size:
        raise ValueError(f"the best {count} of {guess.size} students")
    if _unknown(guess, real):
        raise ValueError("a score is not a number")
    best = real >= np.sort(real)[-count]
    last = np.sort(guess)[-count]
    sure, tied = guess > last, guess == last
    found = float(np.sum(best & sure)) + (count - float(np.sum(sure))) * float(np.mean(best[tied]))
    return min(1.0, found / count)


def regret(truth: Numbers, chosen: int) -> float:
    """How much the chosen student's true score is below the best one's, in the score's own unit; 0 for the best.

    Args:
        truth: of the students that meet the budget, higher is better; a NaN (no finished training) is never the best.
        chosen: position of the choice.

    Raises:
        ValueError: there is no student with a score.
        IndexError: no student is there.
    """
    values = np.asarray(truth, dtype=np.float64)
    if not np.any(~np.isnan(values)):
        raise ValueError("no student has a score")
    return float(np.nanmax(values) - values[chosen])


@dataclass(frozen=True)
class Estimate:
    """A figure from a sample of students.

    Attributes:
        value: of the sample; NaN where undefined.
        low, high: percentile interval of the bootstrap; NaN where too few resamples defined the figure.
        count: students.
    """

    value: float
    low: float
    high: float
    count: int


def bootstrap(
    statistic: Statistic, *columns: Numbers, seed: int, confidence: float = 0.9, resamples: int = 500
) -> Estimate:
    """A figure with its percentile bootstrap interval: students are drawn with replacement, columns together.

    The same arguments give the same interval. Resamples in which the figure is undefined are left out; where they are
    more than half, there is no interval.
    Source: Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979).

    Args:
        statistic: columns -> number, such as `kendall`, or `partial_spearman` with the covariates as further columns
            (`beyond(partial_spearman)` where there are several).
        columns: one value per student each.
        seed: of the draws.
        confidence: share of the resamples inside, in (0, 1).

    Raises:
        ValueError: the lengths differ.
    """
    arrays = [_column(values, len(columns[0])) for values in columns]
    count = len(columns[0])
    value = statistic(*arrays)
    if math.isnan(value):
        return Estimate(math.nan, math.nan, math.nan, count)
    draws = np.random.default_rng(seed).integers(0, count, (resamples, count))
    found = np.array([statistic(*(values[draw] for values in arrays)) for draw in draws])
    defined = found[~np.isnan(found)]
    if defined.size <= resamples // 2:
        return Estimate(value, math.nan, math.nan, count)
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high), count)


def beyond(partial: Callable[[Numbers, Numbers, Sequence[Numbers]], float]) -> Statistic:
    """A partial correlation as a function of columns: a, b, and each covariate after them."""
    return lambda a, b, *given: partial(a, b, given)


def _pair(a: Numbers, b: Numbers) -> tuple[Float, Float]:
    return _column(a, len(b)), _column(b, len(a))


def _column(values: Numbers, count: int) -> Float:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (count,):
        raise ValueError(f"values of shape {column.shape} beside {count} students")
    return column


def _several(given: Given) -> list[Numbers]:
    """One covariate or several, as several."""
    table = np.asarray(given, dtype=np.float64)
    return [table] if table.ndim == 1 else list(table)


def _unknown(*columns: Float) -> bool:
    return any(bool(np.isnan(column).any()) for column in columns)


def _signs(some: Float, every: Float) -> npt.NDArray[np.int8]:
    """1, 0, -1 for each pair; by comparison, as inf - inf has no sign."""
    greater = (some[:, None] > every).astype(np.int8)
    return greater - (some[:, None] < every).astype(np.int8)


def _pearson(a: Float, b: Float) -> float:
    a, b = a - a.mean(), b - b.mean()
    return _over(float(a @ b), math.sqrt(float(a @ a)) * math.sqrt(float(b @ b)))


def _over(part: float, whole: float) -> float:
    """part / whole within -1 and 1, which rounding may cross; NaN over nothing."""
    return math.nan if whole == 0 else max(-1.0, min(1.0, part / whole))


def _partial(table: Sequence[Sequence[float]], i: int, j: int, given: tuple[int, ...]) -> float:
    if not given:
        return table[i][j]
    *rest, last = given
    ij, il, jl = (_partial(table, one, two, tuple(rest)) for one, two in ((i, j), (i, last), (j, last)))
    left = (1 - il**2) * (1 - jl**2)
    return _over(ij - il * jl, math.sqrt(left)) if left > NOTHING_LEFT else math.nan
