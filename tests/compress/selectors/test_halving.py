"""Rounds worked by hand, ties, determinism, refusals."""

import math
import random
from collections.abc import Callable, Sequence

import pytest

from compress.contracts.selector import Candidate, Selection
from compress.errors import RecipeError
from compress.selection.first_field import first_field
from compress.selectors.halving import SELECTOR
from profiles.cost import Cost
from tests.compress.selectors.problems import Number, Numbered, candidate

Score = Callable[[int, float, int], float]


def select(
    count: int, score: Score, *, training: float = 1e9, backwards: bool = False, **settings: float
) -> tuple[Selection, Numbered]:
    problem = Numbered([candidate(n) for n in range(count)], score, training=training, backwards=backwards)
    return SELECTOR(**settings)(problem), problem  # type: ignore[arg-type]


def numbers(ranked: Sequence[Candidate]) -> list[int]:
    return [c.plan.value for c in ranked]


SCORES = {0: 0.1, 1: 0.9, 2: 0.5, 3: 0.7, 4: 0.3, 5: 0.8}


DOUBLING = {"growth": 2.0, "keep": 0.5, "longest": 1.0, "slope": 0.0}


@pytest.mark.parametrize("backwards", [False, True])
def test_rounds_worked_by_hand(backwards: bool) -> None:
    selection, problem = select(6, lambda n, _s, _n: SCORES[n], share=0.125, backwards=backwards, **DOUBLING)
    assert {number for number, share, _ in problem.asked if share == 0.125} == set(range(6))
    assert {number for number, share, _ in problem.asked if share == 0.25} == {1, 5, 3}
    assert {number for number, share, _ in problem.asked if share == 0.5} == {1, 5}
    assert len(problem.asked) == 11
    assert numbers(selection.ranked) == [1, 5, 3, 2, 4, 0]
    assert [c.fidelity for c in selection.ranked] == [0.5, 0.5, 0.25, 0.125, 0.125, 0.125]
    assert [c.score for c in selection.ranked] == [0.9, 0.8, 0.7, 0.5, 0.3, 0.1]
    assert [(row["students"], row["share"]) for row in selection.notes["rounds"]] == [(6, 0.125), (3, 0.25), (2, 0.5)]


@pytest.mark.parametrize(
    ("count", "settings", "spent"),
    [
        (9, {}, 21 / 16),  # 9/16 + 3/4: a third of nine is three, not four
        (6, {}, 14 / 16),  # 6/16 + 2/4
        (2, {}, 2 / 16),
        (4, {"share": 0.5, **DOUBLING}, 4.0),  # 4 halves, then two full ones
        (3, {"share": 1.0}, 3.0),
    ],
)
def test_what_the_rounds_cost(count: int, settings: dict[str, float], spent: float) -> None:
    assert SELECTOR(**settings).total(count) == pytest.approx(spent)  # type: ignore[arg-type]


@pytest.mark.parametrize(("training", "first"), [(21 / 16, 9), (1.31, 8), (0.68, 2), (11 / 16, 3), (0.12, 0)])
def test_as_many_start_as_may_be_paid_for(training: float, first: int) -> None:
    # 7 and 8 keep three as 9 does; 7: 19/16, so 1.31 pays for 8 (20/16 = 1.25).
    _, problem = select(30, lambda n, _s, _n: n / 100, training=training)
    assert sum(share == 1 / 16 for _, share, _ in problem.asked) == first
    assert problem.spent <= training + 1e-9


def test_what_a_short_score_hides_is_added_for_computation() -> None:
    """Log-odds of 0.6 and 0.5 differ by 0.405; 8 times the work at slope 0.25 and share 1/16 adds 0.487."""
    small, large = candidate(0, macs=100_000), candidate(1, macs=800_000)
    scores = {0: 0.6, 1: 0.5}

    def first(slope: float) -> int:
        problem = Numbered([small, large], lambda n, _s, _r: scores[n], training=0.2)
        return numbers(SELECTOR(slope=slope)(problem).ranked)[0]

    assert [first(0.0), first(0.2), first(0.25)] == [0, 0, 1]


def test_a_late_bloomer_wins_with_the_longer_training() -> None:
    late: Score = lambda n, share, _s: {0: 0.5, 1: 0.6, 2: 0.4, 3: 0.3}[n] + (n == 0) * share  # noqa: E731
    assert numbers(select(4, late, share=0.125, **DOUBLING)[0].ranked)[0] == 0


def test_equal_scores_keep_the_cheaper_in_every_round() -> None:
    assert numbers(select(8, lambda _n, _s, _r: 0.5, share=0.05, slope=0.0)[0].ranked)[0] == 0


def test_a_training_that_diverged_leaves_first() -> None:
    selection, _ = select(4, lambda n, _s, _r: math.nan if n == 3 else 0.1 * n, share=0.5, slope=0.0)
    assert numbers(selection.ranked) == [2, 1, 0, 3]
    assert numbers(select(2, lambda _n, _s, _r: math.nan)[0].ranked)[0] == 0


def test_all_candidates_come_back_the_rejected_last_and_untrained() -> None:
    everyone = [candidate(n, rejected="over" if n % 3 == 0 else None) for n in range(30)]
    problem = Numbered(everyone, lambda n, _s, _r: n / 100)
    ranked = SELECTOR(finalists=4)(problem).ranked
    assert sorted(numbers(ranked)) == list(range(30))
    assert all(c.rejected for c in ranked[-10:])
    assert all(number % 3 for number, _, _ in problem.asked)
    assert [c.score is not None for c in ranked] == [True] * 4 + [False] * 26
    assert len(problem.asked) == 4 + 2


def test_one_affordable_candidate_needs_no_training() -> None:
    problem = Numbered([candidate(0, rejected="over"), candidate(1)], lambda _n, _s, _r: 1.0)
    assert numbers(SELECTOR()(problem).ranked) == [1, 0]
    assert problem.asked == []


def test_nothing_affordable_gives_back_the_rejected() -> None:
    problem = Numbered([candidate(0, rejected="over")], lambda _n, _s, _r: 0.0)
    assert numbers(SELECTOR()(problem).ranked) == [0]


def test_the_first_field_takes_every_space_and_spreads_over_expense() -> None:
    rng = random.Random(0)
    everyone = [
        candidate(n, macs=int(10 ** rng.uniform(5, 7)), space=space)
        for n, space in enumerate(["a"] * 100 + ["b"] * 100)
    ]
    field = first_field(everyone, 8)
    assert len({c.plan for c in field}) == 8
    for space in ("a", "b"):
        macs = [c.cost.macs for c in field if c.space == space]
        assert len(macs) == 4
        assert max(macs) == max(c.cost.macs for c in everyone if c.space == space)  # the largest that fits leads
        # Latency being equal, four times less expense is 4 ** 1.5 = 8 times fewer of weights and MACs alike.
        assert max(macs) / 8 <= min(macs) < max(macs) / 3


def test_the_first_field_takes_every_kind_of_one_space() -> None:
    # The separable ones are the smallest: capacity alone would leave them all out.
    everyone = [candidate(n, kind="separable" if n < 20 else None) for n in range(60)]
    assert sum(c.plan.kind == "separable" for c in first_field(everyone, 6)) == 3


def test_behind_the_largest_more_capacity_at_the_same_expense_is_tried_first() -> None:
    dominated = [candidate(n, macs=1_000_000 + n) for n in range(10)]
    better = Candidate(
        "a", Number(99), Cost("t", "r", 1, "int8", 1_000_000, 400_000, 50_000, 1, 0.04, (0.0, 1.0), "predicted"), None
    )
    assert 99 in numbers(first_field([*dominated, better], 3))


def test_the_same_candidates_give_the_same_answer() -> None:
    first, second = (select(40, lambda n, _s, _r: (n * 37 % 11) / 11, finalists=6)[0] for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    "numbers",
    [{"finalists": -1}, {"share": 0.0}, {"share": 1.5}, {"slope": -0.1}, {"keep": 1.0}, {"growth": 1.0}],
)
def test_wrong_numbers_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="halving"):
        SELECTOR(**numbers)  # type: ignore[arg-type]
