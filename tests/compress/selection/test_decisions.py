"""Plans as decisions: what is flattened to what, which plan is nearest, and walks that end at the wanted plan."""

import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from compress.contracts.selector import Candidate
from compress.contracts.space import SpaceContext
from compress.selection.decisions import CAPACITY, SPACE, Vocabulary, capacity_range, flat, nearest, walk
from compress.selection.ranking import capacity
from compress.spaces.int8_conv import Int8Conv
from profiles.cost import Cost


@dataclass(frozen=True)
class Data:
    """A plan that is its JSON."""

    text: tuple[tuple[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        return dict(self.text)


def data(**values: Any) -> Data:
    return Data(tuple(values.items()))


def candidate(plan: Any, macs: int = 1000, space: str = "a") -> Candidate:
    return Candidate(space, plan, Cost("t", "r", 1, "int8", macs, macs, macs, 1, 1.0, (1.0, 1.0), "predicted"))


def test_flattened_by_hand() -> None:
    nested = {"kind": "light", "widths": [8, 16], "head": {"bias": True}, "blocks": [{"k": 3}], "none": None}
    assert flat(nested, "s", set()) == {
        "s.kind": "light",
        "s.widths.length": 2,
        "s.widths.0": 8,
        "s.widths.1": 16,
        "s.head.bias": True,
        "s.blocks.length": 1,
        "s.blocks.0.k": 3,
        "s.none": None,
    }


def test_lists_of_distinct_names_say_which_are_there() -> None:
    plans = [("a", data(dropped=[])), ("a", data(dropped=["x"])), ("a", data(dropped=["x", "y"]))]
    vocabulary = Vocabulary(plans)
    assert vocabulary.of("a", data(dropped=["y"])) == {SPACE: "a", "a.dropped.x": False, "a.dropped.y": True}
    assert vocabulary.apart(vocabulary.of(*plans[0]), vocabulary.of(*plans[2])) == 2.0


def test_lists_in_which_a_name_comes_twice_say_what_stands_where() -> None:
    vocabulary = Vocabulary([("a", data(kinds=["x", "x"])), ("a", data(kinds=["y"]))])
    assert vocabulary.of("a", data(kinds=["y", "x"])) == {
        SPACE: "a",
        "a.kinds.length": 2,
        "a.kinds.0": "y",
        "a.kinds.1": "x",
    }


def test_only_what_differs_is_a_decision_and_lengths_come_first() -> None:
    vocabulary = Vocabulary([("a", data(widths=[8], same=1)), ("a", data(widths=[8, 16], same=1)), ("b", data(z=1))])
    assert list(vocabulary.domains) == [SPACE, "a.widths.length"]
    assert vocabulary.domains["a.widths.length"].values == (1, 2)


def test_decisions_follow_from_earlier_ones() -> None:
    vocabulary = Vocabulary([])
    before = {SPACE: "a", "a.widths.length": 2}
    assert vocabulary.asked("a.widths.1", before, "a")
    assert not vocabulary.asked("a.widths.2", before, "a")
    assert not vocabulary.asked("a.blocks.2.widths.0", {SPACE: "a", "a.blocks.length": 2}, "a")
    assert not vocabulary.asked("b.kind", before, "a")
    assert not vocabulary.asked(SPACE, before, "a")


def test_distance_by_hand() -> None:
    plans = [data(width=width, kind=kind) for width in (8, 16, 64) for kind in ("x", "y")]
    vocabulary = Vocabulary([("a", plan) for plan in plans])

    def apart(one: Data, other: Data, space: str = "a") -> float:
        return vocabulary.apart(vocabulary.of("a", one), vocabulary.of(space, other))

    assert apart(plans[0], plans[0]) == 0.0
    assert apart(plans[0], plans[1]) == 1.0
    assert apart(plans[0], data(width=16, kind="x")) == 0.5  # places count: one of two steps
    assert apart(plans[0], data(width=64, kind="y")) == 2.0
    assert apart(plans[0], data(width=60, kind="x")) == 1.0  # a number that was not seen stands by the nearest
    assert apart(plans[0], data(width=8, kind="z")) == 1.0
    assert apart(plans[0], plans[0], space="b") == float("inf")


def test_truth_and_one_are_two_values() -> None:
    vocabulary = Vocabulary([("a", data(v=True)), ("a", data(v=1)), ("a", data(v=0))])
    assert len(vocabulary.domains["a.v"].values) == 3
    assert not vocabulary.domains["a.v"].ordered


def test_the_nearest_by_decisions_and_by_capacity() -> None:
    pool = [candidate(data(width=8), 1_000), candidate(data(width=16), 10_000), candidate(data(width=32), 100_000)]
    vocabulary = Vocabulary([(c.space, c.plan) for c in pool])
    sizes = capacity_range(pool)
    wanted = {SPACE: "a", "a.width": 8}
    assert nearest(vocabulary, wanted, pool, sizes, 1.0) is pool[0]
    both = wanted | {CAPACITY: capacity(pool[2].cost)}
    assert nearest(vocabulary, both, pool, sizes, 0.0) is pool[0]
    assert nearest(vocabulary, both, pool, sizes, 4.0) is pool[2]
    assert nearest(vocabulary, {SPACE: "b", CAPACITY: capacity(pool[1].cost)}, pool, sizes, 1.0) is pool[1]


@pytest.fixture(scope="module")
def space() -> Int8Conv:
    return Int8Conv(SpaceContext(None, torch.zeros(2, 1, 28, 28), 10, 8, "x86-cpu"))


def test_walks_of_a_real_space_never_lead_away_and_mostly_arrive(space: Int8Conv) -> None:
    rng = random.Random(0)
    vocabulary = Vocabulary([("int8_conv", space.sample(rng)) for _ in range(60)])
    arrived = 0
    for _ in range(20):
        start, goal = space.sample(rng), space.sample(rng)
        wanted = vocabulary.of("int8_conv", goal)
        found = walk(vocabulary, wanted, space, "int8_conv", start, rng)
        left = vocabulary.apart(wanted, vocabulary.of("int8_conv", found))
        assert left <= vocabulary.apart(wanted, vocabulary.of("int8_conv", start))
        assert space.from_json(found.to_json()) == found
        arrived += left < 0.5
    assert arrived >= 15


def test_equal_draws_walk_equally(space: Int8Conv) -> None:
    rng = random.Random(3)
    plans = [space.sample(rng) for _ in range(20)]
    vocabulary = Vocabulary([("int8_conv", plan) for plan in plans])
    wanted = vocabulary.of("int8_conv", plans[1])
    walks = [walk(vocabulary, wanted, space, "int8_conv", plans[0], random.Random(7)) for _ in range(2)]
    assert walks[0] == walks[1]
