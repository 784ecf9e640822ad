"""Rank correlations by hand, against scipy, and where there is nothing to say."""

import math
import random

import numpy as np
import pytest

from compress.selection.correlation import (
    beyond,
    bootstrap,
    kendall,
    partial_kendall,
    partial_spearman,
    ranks,
    regret,
    spearman,
    top_recall,
)

A = [1.0, 2.0, 3.0, 4.0]
B = [1.0, 3.0, 2.0, 4.0]


def drawn(count: int, seed: int, levels: int | None = None) -> tuple[list[float], list[float], list[float]]:
    rng = random.Random(seed)

    def one() -> list[float]:
        return [float(rng.randrange(levels)) if levels else rng.gauss(0, 1) for _ in range(count)]

    size, noise, other = one(), one(), one()
    return [s + n for s, n in zip(size, noise, strict=True)], [s + n for s, n in zip(size, other, strict=True)], size


def test_kendall_by_hand() -> None:
    assert kendall(A, B) == pytest.approx((5 - 1) / 6)  # one of six pairs is turned
    assert kendall(A, A[::-1]) == -1.0
    # Pairs (12, 13, 23) of a: tied, up, up; of b: up, up, tied. P - Q = 1; two pairs of each side are not tied.
    assert kendall([1, 1, 2], [1, 2, 2]) == pytest.approx(1 / 2)


def test_spearman_by_hand() -> None:
    assert spearman(A, B) == pytest.approx(1 - 6 * 2 / (4 * 15))  # 1 - 6 sum d^2 / (n (n^2 - 1))
    assert list(ranks([5.0, 1.0, 5.0, 9.0])) == [2.5, 1.0, 2.5, 4.0]
    # Ranks 1.5 1.5 3 and 1 2.5 2.5: covariance 0.75, variances 1.5 and 1.5.
    assert spearman([1, 1, 2], [1, 2, 2]) == pytest.approx(0.75 / 1.5)


def test_partial_by_hand() -> None:
    given = [2.0, 1.0, 3.0, 4.0]  # rho of A with it 0.8, of B with it 1 - 6 * 6 / 60 = 0.4
    assert spearman(B, given) == pytest.approx(0.4)
    expected = (0.8 - 0.8 * 0.4) / math.sqrt((1 - 0.64) * (1 - 0.16))
    assert partial_spearman(A, B, given) == pytest.approx(expected)
    assert partial_spearman(A, B, [given]) == pytest.approx(expected)
    taus = 2 / 3, 2 / 3, 1 / 3  # A B; A given: one turned of six; B given: two turned of six
    expected = (taus[0] - taus[1] * taus[2]) / math.sqrt((1 - taus[1] ** 2) * (1 - taus[2] ** 2))
    assert partial_kendall(A, B, given) == pytest.approx(expected)


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("count", [5, 40, 1100])
def test_equal_to_scipy(count: int, levels: int | None) -> None:
    stats = pytest.importorskip("scipy.stats")
    a, b, _ = drawn(count, count, levels)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic, abs=1e-12)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-12)


def test_two_covariates_equal_the_inverse_of_the_correlations() -> None:
    """Partial correlations are -P_ij / sqrt(P_ii P_jj) of the inverse P of all correlations."""
    a, b, size = drawn(60, 3)
    more = [x * x for x in a]
    columns = [a, b, size, more]
    for plain, partial in ((spearman, partial_spearman), (kendall, partial_kendall)):
        inverse = np.linalg.inv([[1.0 if i is j else plain(i, j) for j in columns] for i in columns])
        expected = -inverse[0, 1] / math.sqrt(inverse[0, 0] * inverse[1, 1])
        assert partial(a, b, [size, more]) == pytest.approx(expected)
        assert partial(a, b, [more, size]) == pytest.approx(expected)


def test_what_size_alone_explains_vanishes_with_size_held_still() -> None:
    """Two scores that follow the size and are independent beyond it: 1,000 students leave about +-0.03 of noise."""
    a, b, size = drawn(1000, 7)
    assert spearman(a, b) > 0.4
    assert abs(partial_spearman(a, b, size)) < 0.12
    assert abs(partial_kendall(a, b, size)) < 0.12


def test_only_the_order_counts_and_students_may_be_shuffled() -> None:
    a, b, size = drawn(30, 1, levels=9)
    order = list(range(30))
    random.Random(2).shuffle(order)
    for figure in (kendall, spearman, partial_kendall, partial_spearman):
        given = (size,) if figure in (partial_kendall, partial_spearman) else ()
        value = figure(a, b, *given)
        assert figure([math.exp(x) for x in a], [x**3 for x in b], *given) == pytest.approx(value)
        assert figure(b, a, *given) == pytest.approx(value)
        assert figure([-x for x in a], b, *given) == pytest.approx(-value)
        moved = [[column[i] for i in order] for column in (a, b, *given)]
        assert figure(*moved) == pytest.approx(value)


def test_infinite_scores_are_ranks() -> None:
    assert kendall([-math.inf, -math.inf, 0.0], [1.0, 1.0, 2.0]) == 1.0
    assert spearman([1.0, 2.0, math.inf], [1.0, 2.0, 9.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("figure", [kendall, spearman])
def test_undefined_is_nan(figure: object) -> None:
    for a, b in (([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 2.0]), ([1.0, math.nan, 2.0], [1.0, 2.0, 3.0])):
        assert math.isnan(figure(a, b))  # type: ignore[operator]
    with pytest.raises(ValueError, match="beside 3 students"):
        figure([1.0, 2.0], [1.0, 2.0, 3.0])  # type: ignore[operator]


def test_undefined_partials_are_nan() -> None:
    for figure in (partial_kendall, partial_spearman):
        assert math.isnan(figure(A, B, A))  # the covariate orders one side wholly
        assert math.isnan(figure(A, B, [-x for x in B]))
        assert math.isnan(figure([1.0, 2.0], [2.0, 1.0], [1.0, 2.0]))
        with pytest.raises(ValueError, match="beside 4 students"):
            figure(A, B, [1.0, 2.0, 3.0])


def test_the_best_found() -> None:
    truth = [0.9, 0.8, 0.7, 0.6]
    assert top_recall([4, 3, 2, 1], truth, 2) == 1.0
    assert top_recall([4, 1, 3, 2], truth, 2) == 0.5
    assert top_recall([1, 2, 3, 4], truth, 2) == 0.0
    assert top_recall([4, 1, 1, 1], truth, 2) == pytest.approx((1 + 1 / 3) / 2)  # the second of three equals by chance
    assert top_recall([1, 9, 5], [0.5, 0.9, 0.5], 2) == 1.0  # as good as the second best is one of the best
    for count in (0, 5):
        with pytest.raises(ValueError, match="best"):
            top_recall(truth, truth, count)
    with pytest.raises(ValueError, match="not a number"):
        top_recall([1.0, math.nan], [1.0, 2.0], 1)


def test_regret_by_hand() -> None:
    assert regret([0.91, 0.94, math.nan, 0.9], 0) == pytest.approx(0.03)
    assert regret([0.91, 0.94], 1) == 0.0
    with pytest.raises(ValueError, match="no student"):
        regret([math.nan], 0)


def test_the_interval_holds_the_value_repeats_and_narrows() -> None:
    few, many = drawn(20, 5), drawn(500, 5)
    first = bootstrap(kendall, *few[:2], seed=1)
    assert first == bootstrap(kendall, *few[:2], seed=1)
    assert first != bootstrap(kendall, *few[:2], seed=2)
    assert first.low < first.value < first.high
    assert first.count == 20
    more = bootstrap(kendall, *many[:2], seed=1, resamples=100)
    assert more.high - more.low < 0.5 * (first.high - first.low)
    given = bootstrap(beyond(partial_spearman), *few, seed=1)
    assert given.value == partial_spearman(*few)
    assert given.low < given.value < given.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Normal values of linear correlation 0.5 have tau 1/3 (2/pi asin r): 90 % intervals of n = 40, 100 samples."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(100):
        a, noise = rng.normal(size=(2, 40))
        found = bootstrap(kendall, a, 0.5 * a + math.sqrt(0.75) * noise, seed=trial, resamples=100)
        held += found.low <= 1 / 3 <= found.high
    assert 80 <= held <= 98  # 90 +- 3 standard deviations of 100 draws


def test_no_interval_where_the_figure_is_undefined() -> None:
    alone = bootstrap(kendall, [1.0, 1.0, 1.0], [1.0, 2.0, 3.0], seed=0)
    assert all(math.isnan(part) for part in (alone.value, alone.low, alone.high))
    two = bootstrap(kendall, [1.0, 2.0], [1.0, 2.0], seed=0)  # half of the draws take one student twice
    assert two.value == 1.0
    with pytest.raises(ValueError, match="beside 2 students"):
        bootstrap(kendall, [1.0, 2.0], [1.0], seed=0)
