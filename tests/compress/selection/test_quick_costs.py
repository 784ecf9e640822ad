"""Costs of plans without building them: equal to those of the built networks, for every space."""

import random
from typing import Any

import pytest
import torch
from torch import nn

import profiles
from compress import catalog
from compress.contracts.space import Space, SpaceContext
from compress.network import Model
from compress.selection.quick_costs import QuickCosts
from compress.spaces import derived, int8_conv
from tools import fuzz_spaces as fuzz

PLANS = 40
SOON = 3


class Teacher(nn.Module):
    """Residual blocks, a large kernel, a flattened map and a hidden layer: every decision of a derived space."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 5, padding=2), nn.BatchNorm2d(16), nn.ReLU())
        self.blocks = nn.Sequential(*[int8_conv.ResidualBlock(16, 16, ((3, 3), (3, 3)), (1, 1)) for _ in range(2)])
        self.wide = nn.Sequential(nn.Conv2d(16, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten())
        self.head = nn.Sequential(nn.Linear(24 * 16, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, 8, 8) -> (B, 10)."""
        output: torch.Tensor = self.head(self.wide(self.blocks(self.stem(x))))
        return output


def space(name: str) -> Space[Any]:
    torch.manual_seed(0)
    teacher = Teacher().eval() if name == "derived" else None
    context = SpaceContext(teacher, torch.randn(3, 1, 8, 8), 10, 8, "cortex-m")
    return {"derived": derived.SPACE, "int8_conv": int8_conv.SPACE}[name](context)


@pytest.mark.parametrize("name", ["derived", "int8_conv"])
def test_costs_equal_those_of_the_built_networks(name: str) -> None:
    members = space(name)
    example, target = (torch.zeros(2, 1, 8, 8),), profiles.target("hearing_aid")

    def model(network: nn.Module) -> nn.Module:
        return Model(nn.Identity(), network)

    costs = QuickCosts(members, model, "network", example, target, "int8", learnt_after=SOON)
    rng = random.Random(0)
    built: list[object] = []
    original = members.build
    members.build = lambda plan: built.append(plan) or original(plan)  # type: ignore[method-assign, func-returns-value]
    plan = members.sample(rng)
    for number in range(PLANS):
        # Steps from one plan to the next keep to few structures; each is then learned.
        plan = members.sample(rng) if number % 20 == 0 else members.mutate(plan, rng)
        graph = costs.graph(plan)
        assert graph == profiles.read(model(original(plan)), example=(example[0][:1],)), plan
        if number % 10 == 0:
            expected = profiles.profile(
                model(original(plan)), target, precision="int8", example=(example[0][:1],), layers=False
            )
            assert costs(plan) == expected
    learnt = [family for family in costs._families.values() if family is not None]
    assert len(learnt) == len(costs._families)  # whatever was tried was found
    assert learnt
    before = len(built)
    again = [members.unabridged(plan, rng) for _ in range(5)]
    keys = {members.outline(plan).key for plan in again}  # type: ignore[union-attr]
    if keys <= costs._families.keys():
        for plan in again:
            costs(plan)
        assert len(built) == before


CASES = (("digits", "nvidia-gpu"), ("table", "x86-cpu"), ("odd_pixels", "cortex-m"), ("tokens", "x86-cpu"))


@pytest.mark.parametrize("name", catalog.names(fuzz.SPACES))
def test_random_plans_of_every_space_cost_the_same_to_the_bit(name: str) -> None:
    """As a search asks for them: samples, and steps from one plan to the next, structures learned on the way."""
    took = 0
    for kind, family in CASES:
        for _, members in fuzz.spaces_of(fuzz.KINDS[kind], family, [name]):
            took += 1
            rng, target = random.Random(kind), profiles.target(fuzz.TARGETS[family])
            example = tuple(tensor[:1] for tensor in fuzz.KINDS[kind].draw(2))
            costs = QuickCosts(members, lambda network: network, "", example, target, "int8", learnt_after=1)
            plan = members.corners()[0]
            for number in range(12 if members.outline(plan) else 3):
                found = costs(plan)
                assert found == profiles.profile(
                    members.build(plan), target, precision="int8", example=example, layers=False
                )
                plan = members.sample(rng) if number % 6 == 5 else members.mutate(plan, rng)
    assert took


def test_costing_does_not_draw_from_the_generator_of_weights() -> None:
    members = space("int8_conv")
    costs = QuickCosts(
        members, lambda network: network, "", (torch.zeros(1, 1, 8, 8),), profiles.target("hearing_aid"), "int8"
    )
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    costs(members.corners()[0])
    assert torch.equal(torch.rand(3), expected)
