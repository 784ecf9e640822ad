"""NSGA-II on plans: fronts worked by hand, students that the pool did not have, costs that count, refusals."""

from dataclasses import replace
from typing import Any

import pytest

from compress.contracts.selector import Candidate
from compress.errors import RecipeError
from compress.selection.pareto import pareto_front
from compress.selectors.nsga2 import SELECTOR, told_apart
from tests.compress.selectors.problems import Numbered, Numbers, candidate


def costed(value: int, latency_ms: float, memory: int = 1, energy_mj: float | None = None) -> Candidate:
    found = candidate(value)
    cost = replace(found.cost, latency_ms=latency_ms, weight_bytes=memory, energy_mj=energy_mj)
    return replace(found, cost=cost)


def test_the_front_of_a_pool_worked_by_hand() -> None:
    latency = {0: 1.0, 1: 2.0, 2: 3.0, 3: 4.0, 4: 5.0, 5: 6.0}
    scores = {0: 0.50, 1: 0.70, 2: 0.60, 3: 0.80, 4: 0.75, 5: 0.80}
    pool = [costed(value, ms) for value, ms in latency.items()]
    some = Numbered(pool, lambda value, share, seed: scores[value], training=1.0)
    selection = SELECTOR(finalists=0)(some)
    of = {c.identity: c.plan.value for c in pool}
    assert sorted(of[identity] for identity in selection.notes["front"]) == [0, 1, 3]
    # Of two equal scores the cheaper leads.
    assert [c.plan.value for c in selection.ranked] == [3, 5, 4, 1, 2, 0]


def test_it_finds_the_best_of_a_pool_with_half_of_the_trials() -> None:
    found = []
    for seed in range(6):
        pool = [candidate(value, latency_ms=0.01 * (value + 1)) for value in range(64)]
        some = Numbered(pool, lambda value, share, seed: -abs(value - 45), seed=seed, training=2.0)
        found.append(SELECTOR(finalists=0)(some).ranked[0].plan.value)
        assert len(some.asked) == 32
    assert sum(value == 45 for value in found) >= 5
    assert all(abs(value - 45) <= 1 for value in found)


def test_it_breeds_students_that_the_pool_did_not_have() -> None:
    for seed in range(5):
        pool = [candidate(value, latency_ms=0.01 * (value + 1)) for value in range(0, 64, 9)]
        some = Numbered(
            pool,
            lambda value, share, seed: -abs(value - 40),
            seed=seed,
            training=2.0,
            spaces={"a": Numbers(most=63)},
        )
        selection = SELECTOR(finalists=0)(some)
        assert abs(selection.ranked[0].plan.value - 40) <= 1  # 36 and 45 are the pool's nearest
        assert selection.notes["new"] > 10


def test_rejected_children_cost_nothing_and_win_nothing() -> None:
    some = Numbered(
        [candidate(value, latency_ms=0.01 * (value + 1)) for value in (0, 5, 10, 15, 20)],
        lambda value, share, seed: value,
        training=2.0,
        spaces={"a": Numbers(most=63)},
        reject=lambda value: "over" if value > 24 else None,
    )
    selection = SELECTOR(finalists=0)(some)
    assert selection.ranked[0].plan.value == 24
    assert all(value <= 24 for value, _, _ in some.asked)
    assert any(c.rejected is not None for c in selection.ranked)


def test_two_spaces_do_not_cross() -> None:
    pool = [candidate(value, space="a") for value in range(4)]
    pool += [candidate(value, space="b", macs=100_000 * value) for value in range(40, 44)]
    some = Numbered(
        pool,
        lambda value, share, seed: value,
        training=2.0,
        spaces={"a": Numbers(most=9), "b": Numbers(most=49)},
    )
    ranked = SELECTOR(finalists=0)(some).ranked
    assert {c.space for c in ranked if c.plan.value > 15} == {"b"}
    assert ranked[0].plan.value > 43


def test_costs_that_are_unknown_or_say_the_same_drop_out() -> None:
    names = ["latency", "energy", "memory"]
    same = [costed(value, value + 1.0, 10 * value + 5, 3.0 * value + 1) for value in range(5)]
    assert told_apart(names, same) == ["latency"]
    other = [costed(value, value + 1.0, 90 - 10 * value, 3.0 * value + 1) for value in range(5)]
    assert told_apart(names, other) == ["latency", "memory"]
    unknown = [costed(0, 1.0, 5, 2.0), costed(1, 2.0, 3, None)]
    assert told_apart(names, unknown) == ["latency", "memory"]
    assert told_apart(names, [costed(value, 1.0, 7) for value in range(3)]) == []


def test_every_front_holds_what_no_tried_one_beats() -> None:
    pool = [costed(value, 1.0 + (7 * value) % 13, 1 + (5 * value) % 11) for value in range(30)]
    some = Numbered(pool, lambda value, share, seed: (3 * value) % 17, training=1e9)
    selection = SELECTOR()(some)
    tried = [c for c in selection.ranked if c.score is not None]
    assert len(tried) == 30
    assert selection.notes["objectives"] == ["score", "latency", "memory"]
    exact = pareto_front([(-((3 * c.plan.value) % 17), c.cost.latency_ms, c.cost.weight_bytes) for c in tried])
    assert sorted(selection.notes["front"]) == sorted(tried[place].identity for place in exact)


@pytest.mark.parametrize(
    "settings",
    [
        {"population": 3},
        {"objectives": ("latency", "colour")},
        {"span": 0.5},
        {"crossover": 1.1},
        {"mutation": -0.1},
        {"top": 0.0},
    ],
)
def test_nonsense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(settings))):
        SELECTOR(**settings)
