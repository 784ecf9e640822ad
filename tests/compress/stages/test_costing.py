"""What a run's students are said to cost: what the built ones cost, preprocessing included."""

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn

import profiles
from compress.contracts.space import SpaceContext
from compress.job import Job
from compress.selection import quick_costs
from compress.spaces import int8_conv
from compress.stages.costing import costing
from compress.stages.students import student


class Filtered(nn.Module):
    """Preprocessing that costs something."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Conv2d(1, 3, 5, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 24, 24) -> (B, 3, 12, 12)."""
        output: Tensor = self.filter(x)
        return output


def test_costs_are_those_of_the_built_students_with_what_stands_before_them() -> None:
    target, raw = profiles.target("hearing_aid"), (torch.zeros(1, 1, 24, 24),)
    job: Any = SimpleNamespace(
        recipe=SimpleNamespace(seed=0), task=SimpleNamespace(frontend=Filtered), target=target, one_example=raw
    )
    space = int8_conv.SPACE(SpaceContext(None, torch.zeros(1, 3, 12, 12), 4, 8, target.family))
    cost = costing(cast(Job, job), {"int8_conv": space})
    rng, first = random.Random(0), space.corners()[0]
    built: list[object] = []
    original = space.build
    space.build = lambda plan: built.append(plan) or original(plan)  # type: ignore[method-assign, func-returns-value]
    for number in range(quick_costs.LEARNT_AFTER + 10):
        plan = replace(space.unabridged(first, rng), depths=tuple(rng.randint(1, 3) for _ in first.depths))
        before = len(built)
        torch.manual_seed(number)
        found, drawn = cost("int8_conv", plan), torch.rand(1)
        torch.manual_seed(number)
        assert torch.equal(drawn, torch.rand(1))  # what is trained next does not depend on what was costed
        # From the one on with which the structure is learned, none is built.
        assert (len(built) > before) == (number <= quick_costs.LEARNT_AFTER)
        if number % 10 == 0 or number > quick_costs.LEARNT_AFTER + 5:
            model = student(cast(Job, job), "int8_conv", space, plan)
            assert found == profiles.profile(
                model, target=target, precision=target.precision, example=raw, layers=False
            )
