"""Rounds worked by hand, ties, determinism, refusals."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from compress.contracts.selector import Candidate
from compress.errors import RecipeError
from compress.selectors.halving import SELECTOR, first_field
from profiles.cost import Cost


class Number(int):
    """A plan of one decision; `kind` makes it two."""

    kind: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"number": int(self), "kind": self.kind}


def candidate(number: int, macs: int = 0, space: str = "a", rejected: str | None = None) -> Candidate:
    macs = macs or 100_000 * (number + 1)
    cost = Cost("t", "r", 1, "int8", macs, macs // 20, macs // 20, 1, 0.05, (0.04, 0.06), "predicted")
    return Candidate(space, Number(number), cost, rejected)


class Trainings:
    """Scores by plan, and a record of what was asked."""

    def __init__(self, score: Callable[[int, float], float]) -> None:
        self.score = score
        self.asked: list[tuple[int, float]] = []

    def __call__(self, asked: Candidate, share: float) -> float:
        self.asked.append((asked.plan, share))
        return self.score(asked.plan, share)


def plans(ranked: Sequence[Candidate]) -> list[int]:
    return [cast(int, c.plan) for c in ranked]


def test_rounds_worked_by_hand() -> None:
    scores = {0: 0.1, 1: 0.9, 2: 0.5, 3: 0.7, 4: 0.3, 5: 0.8}
    trainings = Trainings(lambda plan, _share: scores[plan])
    ranked = SELECTOR(finalists=6, share=0.1)([candidate(n) for n in range(6)], trainings)
    assert {plan for plan, share in trainings.asked if share == 0.1} == set(range(6))
    assert {plan for plan, share in trainings.asked if share == 0.2} == {1, 5, 3}
    assert len(trainings.asked) == 9
    assert plans(ranked) == [1, 5, 3, 2, 4, 0]
    assert [c.fidelity for c in ranked] == [0.2, 0.2, 0.2, 0.1, 0.1, 0.1]
    assert [c.score for c in ranked] == [0.9, 0.8, 0.7, 0.5, 0.3, 0.1]


def test_a_late_bloomer_wins_with_the_longer_training() -> None:
    trainings = Trainings(lambda plan, share: {0: 0.5, 1: 0.6, 2: 0.4, 3: 0.3}[plan] + (plan == 0) * share)
    ranked = SELECTOR(finalists=4, share=0.25)([candidate(n) for n in range(4)], trainings)
    assert plans(ranked)[0] == 0


@pytest.mark.parametrize(("tie", "wins"), [(0.0, 3), (0.005, 3), (0.02, 1), (0.5, 0)])
def test_ties_go_to_the_cheaper(tie: float, wins: int) -> None:
    scores = {0: 0.60, 1: 0.89, 2: 0.895, 3: 0.905}
    trainings = Trainings(lambda plan, _share: scores[plan])
    # A share of 1 leaves one round, so that all four are compared at the end.
    ranked = SELECTOR(finalists=4, share=1.0, tie=tie)([candidate(n) for n in range(4)], trainings)
    assert plans(ranked)[0] == wins


def test_equal_scores_keep_the_cheaper_in_every_round() -> None:
    trainings = Trainings(lambda _plan, _share: 0.5)
    ranked = SELECTOR(finalists=8, share=0.05)([candidate(n) for n in range(8)], trainings)
    assert plans(ranked)[0] == 0


def test_a_training_that_diverged_leaves_first() -> None:
    trainings = Trainings(lambda plan, _share: math.nan if plan == 3 else 0.1 * plan)
    ranked = SELECTOR(finalists=4, share=0.5)([candidate(n) for n in range(4)], trainings)
    assert plans(ranked) == [2, 1, 0, 3]
    assert SELECTOR(finalists=2)([candidate(0), candidate(1)], lambda _c, _s: math.nan)[0].plan == 0


def test_all_candidates_come_back_the_rejected_last_and_untrained() -> None:
    everyone = [candidate(n, rejected="over" if n % 3 == 0 else None) for n in range(30)]
    trainings = Trainings(lambda plan, _share: plan / 100)
    ranked = SELECTOR(finalists=4)(everyone, trainings)
    assert sorted(plans(ranked)) == list(range(30))
    assert all(c.rejected for c in ranked[-10:])
    assert all(plan % 3 for plan, _ in trainings.asked)
    assert [c.score is not None for c in ranked] == [True] * 4 + [False] * 26


def test_one_affordable_candidate_needs_no_training() -> None:
    trainings = Trainings(lambda _plan, _share: 1.0)
    ranked = SELECTOR()([candidate(0, rejected="over"), candidate(1)], trainings)
    assert plans(ranked) == [1, 0]
    assert trainings.asked == []


def test_nothing_affordable_gives_back_the_rejected() -> None:
    assert plans(SELECTOR()([candidate(0, rejected="over")], Trainings(lambda _p, _s: 0.0))) == [0]


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
        assert max(macs) > 5e6  # the largest that fits is always tried
        # Latency being equal, four times less expense is 4 ** 1.5 = 8 times fewer of weights and MACs alike.
        assert max(macs) / 8 <= min(macs) < max(macs) / 3


def test_the_first_field_takes_every_kind_of_one_space() -> None:
    everyone = [candidate(n) for n in range(60)]
    for c in everyone[:20]:
        c.plan.kind = "separable"  # the smallest: capacity alone would leave them all out
    field = first_field(everyone, 6)
    assert sum(c.plan.kind == "separable" for c in field) == 3


def test_more_capacity_at_the_same_expense_is_tried_first() -> None:
    dominated = [candidate(n, macs=1_000_000 + n) for n in range(10)]
    better = Candidate(
        "a", Number(99), Cost("t", "r", 1, "int8", 1_000_000, 400_000, 50_000, 1, 0.04, (0.0, 1.0), "predicted"), None
    )
    assert better.plan in plans(first_field([*dominated, better], 1))


def test_the_same_candidates_give_the_same_answer() -> None:
    everyone = [candidate(n) for n in range(40)]
    selector = SELECTOR(finalists=6)
    first, second = (selector(everyone, Trainings(lambda plan, _s: (plan * 37 % 11) / 11)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("numbers", [{"finalists": 0}, {"share": 0.0}, {"share": 1.5}, {"tie": -0.1}])
def test_wrong_numbers_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="halving"):
        SELECTOR(**numbers)  # type: ignore[arg-type]
