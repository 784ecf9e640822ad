"""TPE on plans: what the densities learn, students that the pool did not have, spaces, refusals."""

import random
from typing import Any

import pytest

from compress.contracts.selector import Candidate, identity_of
from compress.errors import RecipeError
from compress.selection.short_trials import by_capacity
from compress.selectors.tpe import SELECTOR
from tests.compress.selectors.problems import Numbered, Numbers, candidate

HALF = 2.0  # trainings: 32 short trials of 64 students


def test_it_finds_the_best_of_a_pool_with_half_of_the_trials() -> None:
    found = []
    for seed in range(5):
        pool = [candidate(value) for value in range(64)]
        some = Numbered(pool, lambda value, share, seed: -abs(value - 45), seed=seed, training=HALF)
        found.append(SELECTOR(finalists=0)(some).ranked[0].plan.value)
        assert len(some.asked) == 32
    assert sum(value == 45 for value in found) >= 4
    assert all(abs(value - 45) <= 1 for value in found)


def kinds() -> list[Candidate]:
    """Numbers of one capacity: only the decisions tell them apart."""
    return [candidate(value, macs=1000, kind="odd" if value % 2 else "even") for value in range(64)]


def test_it_tries_more_of_the_kind_that_does_well() -> None:
    late = []
    for seed in range(3):
        some = Numbered(kinds(), lambda value, share, seed: value % 2 + 0.001 * value, seed=seed, training=HALF)
        SELECTOR(finalists=0)(some)
        late += [value % 2 for value, _, _ in some.asked[8:]]
    assert sum(late) >= 0.65 * len(late)  # half of the pool is of either kind


def test_it_proposes_students_that_the_pool_did_not_have() -> None:
    for seed in range(5):
        some = Numbered(
            [candidate(value) for value in range(0, 64, 3)],
            lambda value, share, seed: -abs(value - 40),
            seed=seed,
            training=HALF,
            spaces={"a": Numbers(most=63)},
        )
        selection = SELECTOR(finalists=0)(some)
        assert selection.ranked[0].plan.value in (39, 40, 41)  # 39 and 42 are the pool's nearest
        assert selection.notes["new"] > 0


def test_the_space_is_a_decision() -> None:
    pool = [candidate(value, macs=1000, space="a") for value in range(32)]
    pool += [candidate(value, macs=1000, space="b") for value in range(32, 64)]
    late = []
    for seed in range(3):
        some = Numbered(pool, lambda value, share, seed: float(value >= 32) + 0.001 * value, seed=seed, training=HALF)
        SELECTOR(finalists=0)(some)
        late += [value >= 32 for value, _, _ in some.asked[8:]]
    assert sum(late) >= 0.65 * len(late)  # half of the pool is of either space


def test_rejected_proposals_cost_nothing() -> None:
    some = Numbered(
        [candidate(value) for value in (0, 4, 8, 12, 16, 20)],
        lambda value, share, seed: value,
        training=1.0,
        spaces={"a": Numbers(most=63)},
        reject=lambda value: "over" if value > 24 else None,
    )
    selection = SELECTOR(finalists=0)(some)
    assert all(value <= 24 for value, _, _ in some.asked)
    assert selection.ranked[0].plan.value > 20
    assert len(some.asked) == 16


def test_it_needs_fewer_trials_than_chance() -> None:
    """24 trials of 64 students hold the best one in 3 of 8 random draws, and it or a neighbour in 3 of 4."""
    hits, near = 0, 0
    for seed in range(8):
        best = random.Random(seed).randrange(20, 64)
        pool = [candidate(value) for value in range(64)]
        some = Numbered(pool, lambda value, share, seed, best=best: -abs(value - best), seed=seed, training=1.5)
        found = SELECTOR(finalists=0)(some).ranked[0].plan.value
        hits += found == best
        near += abs(found - best) <= 1
    assert hits >= 5
    assert near == 8


def test_what_was_trained_is_told_and_not_what_was_asked_for() -> None:
    """A pool of holes: proposals between its members must not be taken for members."""
    pool = [candidate(value, macs=1000) for value in (0, 1, 2, 40, 41, 42, 43, 44, 45, 60, 61, 62)]
    some = Numbered(pool, lambda value, share, seed: float(value in (60, 61)), training=1e9)
    ranked = SELECTOR(startup=4)(some).ranked
    assert {c.plan.value for c in ranked[:2]} == {60, 61}
    assert {value for value, share, _ in some.asked if share == 0.0625} == {c.plan.value for c in pool}
    assert {c.identity for c in ranked} == {identity_of("a", c.plan) for c in pool}


def test_it_starts_with_the_larger_half_of_the_pool() -> None:
    pool = [candidate(value) for value in range(32)]
    some = Numbered(pool, lambda value, share, seed: 0.0, training=1.0)
    SELECTOR(startup=4, finalists=0)(some)
    upper = [c.plan.value for c in sorted(pool, key=by_capacity)[:16]]
    assert [value for value, _, _ in some.asked[:4]] == [upper[0], upper[5], upper[10], upper[15]]


@pytest.mark.parametrize("settings", [{"startup": 1}, {"batch": 0}, {"weight": -1.0}, {"top": 1.5}])
def test_nonsense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(settings))):
        SELECTOR(**settings)
