"""A random order of what fits: repeatable, complete, and all trainings spent on it."""

import pytest

from compress.errors import RecipeError
from compress.selectors.random_choice import SELECTOR
from tests.compress.selectors.problems import Numbered, candidate

EVERYONE = [candidate(n, rejected="over" if n % 4 == 0 else None) for n in range(40)]


def problem(seed: int = 0, training: float = 1.0, backwards: bool = False) -> Numbered:
    return Numbered(EVERYONE, lambda number, _s, _n: number / 100, training=training, seed=seed, backwards=backwards)


def numbers(seed: int = 0, training: float = 1.0, backwards: bool = False) -> list[int]:
    return [c.plan.value for c in SELECTOR(share=0.25)(problem(seed, training, backwards)).ranked]


def test_the_seed_decides_and_the_order_of_arrival_does_not() -> None:
    assert numbers(1) == numbers(1) == numbers(1, backwards=True)
    assert numbers(1) != numbers(2)


def test_everyone_comes_back_with_the_rejected_last() -> None:
    ranked = SELECTOR(share=0.25)(problem()).ranked
    assert sorted(c.plan.value for c in ranked) == list(range(40))
    assert all(c.rejected is None for c in ranked[:30])
    assert [c.plan.value for c in ranked[:30]] != [c.plan.value for c in EVERYONE if c.rejected is None]


def test_all_trainings_are_spent_and_the_best_of_the_tried_leads() -> None:
    asked = problem(training=1.6)
    ranked = SELECTOR(share=0.25)(asked).ranked
    assert len(asked.asked) == 6  # 6 * 0.25 = 1.5; a seventh would be over
    assert ranked[0].plan.value == max(number for number, _, _ in asked.asked)
    assert [c.score is not None for c in ranked] == [True] * 6 + [False] * 34


def test_without_trainings_it_is_a_draw() -> None:
    asked = problem(training=0.0)
    assert SELECTOR()(asked).ranked[0].score is None
    assert asked.asked == []
    assert len({numbers(seed, training=0.0)[0] for seed in range(20)}) > 5


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_wrong_numbers_are_refused(share: float) -> None:
    with pytest.raises(RecipeError, match="random_choice"):
        SELECTOR(share=share)
