"""How trainings are divided, counted by hand, and who leads after the finals."""

import math
import random

import pytest

from compress.errors import RecipeError
from compress.selection.short_trials import (
    Spending,
    affordable,
    finals,
    opening,
    ranking,
    scored,
    short_trials,
    spread,
)
from tests.compress.selectors.problems import Numbered, Numbers, candidate

POOL = [candidate(value) for value in range(8)]


def problem(training: float, **more: object) -> Numbered:
    return Numbered(POOL, lambda value, share, seed: value + share, training=training, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("training", "share", "reserve", "count"),
    [(0.3, 0.1, 0.0, 3), (0.29, 0.1, 0.0, 2), (1.0, 0.0625, 0.0, 16), (1.0, 0.0625, 0.4, 9), (0.0, 0.1, 0.0, 0)],
)
def test_what_is_affordable(training: float, share: float, reserve: float, count: int) -> None:
    assert affordable(problem(training), share, reserve) == count


def test_what_was_spent_is_no_longer_there() -> None:
    some = problem(1.0)
    scored(some, POOL[:3], 0.25)
    assert affordable(some, 0.25) == 1
    assert affordable(some, 0.25, reserve=0.4) == 0


def test_the_reserve_is_given_up_where_it_leaves_nobody_to_compare() -> None:
    spending = Spending(share=0.25, trials=64, finalists=4, reserve=0.6)
    assert short_trials(problem(2.0), spending) == 3
    assert short_trials(problem(1.0), spending) == 4  # the reserve would leave 1
    assert short_trials(problem(1e9), spending) == 64
    assert short_trials(problem(2.0), Spending(0.25, 64, finalists=0, reserve=0.6)) == 8


def test_scores_stand_with_their_candidates_whatever_comes_first() -> None:
    for backwards in (False, True):
        found = scored(problem(9.0, backwards=backwards), POOL[2:5], 0.5)
        assert [(c.plan.value, c.score, c.fidelity) for c in found] == [(2, 2.5, 0.5), (3, 3.5, 0.5), (4, 4.5, 0.5)]


def test_finals_worked_by_hand() -> None:
    # 1.5 trainings: 8 x 1/16 = 0.5; 4 x 1/4 = 1.0; then nothing is left for 2 x 1.
    some = problem(1.5)
    spending = Spending(1 / 16, 8, finalists=4, reserve=0.0)
    some.score = lambda value, share, seed: -value if share > 0.1 else value  # the longer training turns them round
    order = finals(some, scored(some, POOL, 1 / 16), spending)
    assert [c.plan.value for c in order] == [4, 5, 6, 7, 3, 2, 1, 0]
    assert [c.fidelity for c in order] == [0.25] * 4 + [0.0625] * 4
    assert some.spent == 1.5


def test_finals_go_on_to_full_trainings() -> None:
    some = problem(3.5)
    order = finals(some, scored(some, POOL, 1 / 16), Spending(1 / 16, 8, finalists=4, reserve=0.0))
    assert [c.plan.value for c in order][:4] == [7, 6, 5, 4]
    assert [c.fidelity for c in order][:4] == [1.0, 1.0, 0.25, 0.25]
    assert some.spent == 3.5


def test_finals_need_two_that_did_not_diverge() -> None:
    some = problem(9.0)
    some.score = lambda value, share, seed: value if value == 3 else math.nan
    order = finals(some, scored(some, POOL, 1 / 16), Spending(1 / 16, 8, finalists=4, reserve=0.0))
    assert order[0].plan.value == 3
    assert len(some.asked) == 8


def test_an_answer_holds_everybody_once() -> None:
    known = [candidate(0), candidate(1), candidate(2), candidate(3, rejected="late")]
    some = Numbered(known, lambda value, share, seed: 1.0, training=1.0)
    order = scored(some, known[:1], 1.0)
    assert [c.plan.value for c in ranking(known, order)] == [0, 2, 1, 3]


def test_a_spread_holds_the_largest_and_the_smallest() -> None:
    assert [c.plan.value for c in spread(POOL, 3)] == [7, 3, 0]
    assert [c.plan.value for c in spread(POOL, 1)] == [7]
    assert [c.plan.value for c in spread(POOL, 99)] == list(range(7, -1, -1))
    assert spread([], 3) == []


def test_without_a_pool_the_spaces_are_asked() -> None:
    some = Numbered([], lambda value, share, seed: 1.0, spaces={"a": Numbers(most=31)})
    values = [c.plan.value for c in opening(some, random.Random(0))]
    assert values[:2] == [0, 31]
    assert len(values) == len(set(values)) > 10
    assert opening(problem(1.0), random.Random(0)) == tuple(POOL)


@pytest.mark.parametrize(
    "spending",
    [
        Spending(0.0, 1, 0, 0.0),
        Spending(1.1, 1, 0, 0.0),
        Spending(math.nan, 1, 0, 0.0),
        Spending(0.1, 0, 0, 0.0),
        Spending(0.1, 1, -1, 0.0),
        Spending(0.1, 1, 0, 1.0),
        Spending(0.1, 1, 0, -0.1),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(spending: Spending) -> None:
    with pytest.raises(RecipeError, match="selector some has") as caught:
        spending.check("some")
    assert "select.settings" in str(caught.value.fix)
