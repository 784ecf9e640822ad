"""Candidates from real spaces with a cost that is counted here: number, balance, spread, repeatability."""

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import pytest
import torch
from torch import nn

from compress.contracts.selector import Candidate
from compress.contracts.space import Space, SpaceContext
from compress.selection.propose import propose
from compress.spaces import int8_conv
from profiles.cost import Cost

LIMIT = 1_000_000


@dataclass(frozen=True)
class Number:
    """A plan of one decision."""

    value: int

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value}


@final
class Numbers(Space[Number]):
    """1 to `most`."""

    def __init__(self, context: SpaceContext, most: int = 100_000) -> None:
        self.most = most

    def sample(self, rng: random.Random) -> Number:
        return Number(rng.randint(1, self.most))

    def corners(self) -> Sequence[Number]:
        return (Number(1), Number(self.most))

    def mutate(self, plan: Number, rng: random.Random) -> Number:
        return Number(max(1, min(self.most, plan.value + rng.choice((-3, -2, -1, 1, 2, 3)))))

    def crossover(self, plan: Number, other: Number, rng: random.Random) -> Number:
        return rng.choice((plan, other))

    def from_json(self, data: Mapping[str, Any]) -> Number:
        return Number(data["value"])

    def build(self, plan: Number) -> nn.Module:
        return nn.Identity()


def context(family: str = "nvidia-gpu") -> SpaceContext:
    return SpaceContext(None, torch.zeros(1, 1, 28, 28), 10, 16, family)


def cost_of(macs: int) -> Cost:
    return Cost("t", "r", 1, "int8", macs, macs // 10, macs // 10, macs, macs / 1e6, (0.0, 1.0), "predicted")


def number_cost(_space: str, plan: Number) -> Cost:
    return cost_of(100 * plan.value)


def too_large(_space: str, _plan: Any, cost: Cost) -> str | None:
    return "too large" if cost.macs > LIMIT else None


def numbers(count: int, seed: int = 0, most: int = 100_000) -> list[Candidate]:
    spaces = {"first": Numbers(context(), most), "second": Numbers(context())}
    return propose(spaces, count=count, cost=number_cost, reject=too_large, seed=seed)


def test_gives_distinct_candidates_evenly_from_every_space() -> None:
    found = numbers(201)
    assert len({(c.space, c.plan) for c in found}) == len(found) == 201
    assert Counter(c.space for c in found) == {"first": 101, "second": 100}


def test_rejected_candidates_are_kept_with_their_reason() -> None:
    found = numbers(100)
    assert {c.rejected for c in found} == {None, "too large"}
    assert all((c.rejected is None) == (c.cost.macs <= LIMIT) for c in found)


def test_the_same_seed_gives_the_same_candidates_and_another_gives_others() -> None:
    assert numbers(60, seed=1) == numbers(60, seed=1)
    assert numbers(60, seed=1) != numbers(60, seed=2)


def test_corners_come_first() -> None:
    found = numbers(40)
    assert [c.plan.value for c in found[:4]] == [1, 1, 100_000, 100_000]


def test_a_space_with_few_plans_leaves_its_place_to_the_others() -> None:
    found = numbers(50, most=5)
    assert Counter(c.space for c in found) == {"first": 5, "second": 45}


def test_ends_where_all_spaces_are_exhausted() -> None:
    found = propose({"only": Numbers(context(), 7)}, count=50, cost=number_cost, reject=too_large, seed=0)
    assert sorted(c.plan.value for c in found) == list(range(1, 8))


def test_no_space_gives_no_candidate() -> None:
    assert propose({}, count=5, cost=number_cost, reject=too_large, seed=0) == []


def test_many_candidates_lie_around_the_edge_of_the_budget() -> None:
    # The edge is at a plan of 10,000. Half are independent draws, a twelfth of which lies between these bounds.
    found = [c.plan.value for c in numbers(400)]
    assert sum(10_000 / 1.5 < value < 10_000 * 1.5 for value in found) > len(found) / 8


def test_costs_each_candidate_once_and_reports_each() -> None:
    asked: list[Any] = []
    heard: list[Candidate] = []

    def cost(space: str, plan: Number) -> Cost:
        asked.append((space, plan))
        return number_cost(space, plan)

    found = propose(
        {"only": Numbers(context())}, count=30, cost=cost, reject=too_large, seed=0, on_candidate=heard.append
    )
    assert heard == found
    assert len(asked) == len(set(asked)) == 30


@pytest.mark.parametrize("family", ["nvidia-gpu", "cortex-m"])
def test_the_convolutional_family_is_covered_from_tiny_to_large(family: str) -> None:
    space = int8_conv.SPACE(context(family))

    def cost(_name: str, plan: int8_conv.Plan) -> Cost:
        # Grows like the real thing: area x width squared x depth, a quarter of the area per stage.
        area = (28 / plan.stem_stride) ** 2
        terms = [w * w * d * area / 4**i for i, (w, d) in enumerate(zip(plan.widths, plan.depths, strict=True))]
        return cost_of(int(9 * sum(terms)))

    found = propose({"int8_conv": space}, count=240, cost=cost, reject=too_large, seed=0)
    assert len({c.plan for c in found}) == 240
    decades = Counter(int(math.log10(c.cost.macs)) for c in found)
    assert all(decades[decade] >= 20 for decade in (5, 6, 7))
    assert 48 <= sum(c.rejected is None for c in found) <= 192  # a fifth to four fifths
