"""The learning rate's course and the optimiser groups."""

import pytest
import torch
from torch import nn

from compress.contracts.clock import Clock
from compress.contracts.method import Constant
from compress.contracts.step import Update
from compress.contracts.task import TrainingNumbers
from compress.training.updates import FLOOR, Rate, Updates, one_cycle

NUMBERS = TrainingNumbers(epochs=1, batch_size=1, learning_rate=0.1, weight_decay=0.5)
PEAK = Clock("distill", 9, 100, 0, 1)  # the last step of the warm-up


def test_one_cycle_rises_then_falls() -> None:
    course = [one_cycle(step, 100) for step in range(100)]
    assert course[0] == pytest.approx(0.1)
    assert course[9] == 1.0
    assert course[54] == pytest.approx(FLOOR + (1 - FLOOR) / 2)  # 45 of the 90 steps that fall
    assert course[-1] == pytest.approx(FLOOR)
    assert all(0 < value <= 1 for steps in (1, 2, 3, 7) for value in [one_cycle(s, steps) for s in range(steps)])


def test_adamw_by_hand_with_decay_on_matrices_alone() -> None:
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 1.0)
    nn.init.constant_(layer.bias, 1.0)
    updates = Updates({"student": layer.parameters()}, NUMBERS, {"student": Constant(0.1)}, None)
    loss, logs, norm = updates.apply(Update(layer(torch.ones(1, 1)).sum(), logs={"x": torch.tensor(2.0)}), PEAK, 1.0)
    rate = 0.1 * 0.1  # the recipe's times the group's
    assert loss.item() == 2.0
    assert logs["x"].item() == 2.0
    assert norm.item() == pytest.approx(2**0.5)  # the gradient is (1, 1)
    # Adam's first step is the rate times the gradient's sign; decay multiplies by 1 - rate * decay beforehand.
    assert layer.weight.item() == pytest.approx(1.0 * (1 - rate * 0.5) - rate, abs=1e-6)
    assert layer.bias.item() == pytest.approx(1.0 - rate, abs=1e-6)
    assert layer.weight.grad is None


def test_a_group_follows_the_one_cycle_or_a_course_of_its_own() -> None:
    clocks = [Clock("distill", step, 100, 0, 1) for step in (0, 9, 99)]
    cycle = [one_cycle(clock.step, clock.steps) for clock in clocks]
    courses: list[tuple[dict[str, Rate], list[float]]] = [
        ({}, cycle),
        ({"student": 0.5}, [0.5 * factor for factor in cycle]),
        ({"student": Constant(2.5)}, [2.5] * 3),
        ({"student": lambda clock: 1.0 + clock.progress}, [1.0, 1.09, 1.99]),
    ]
    for rates, expected in courses:
        updates = Updates({"student": [nn.Parameter(torch.ones(1))]}, NUMBERS, rates, None)
        optimizer = updates.groups["student"].optimizer
        assert optimizer is not None
        seen = []
        for clock in clocks:
            updates.apply(Update(updates.groups["student"].parameters[0].sum()), clock, 1.0)
            seen.append(optimizer.param_groups[0]["lr"])
        assert seen == pytest.approx([0.1 * factor for factor in expected])


def test_a_loss_that_is_not_finite_moves_nothing() -> None:
    layer = nn.Linear(1, 1)
    before = layer.weight.item()
    updates = Updates({"student": layer.parameters()}, NUMBERS, {}, None)
    updates.apply(Update(layer(torch.ones(1, 1)).sum() * float("inf")), PEAK, 1.0)
    assert layer.weight.item() == before


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    layer = nn.Linear(1, 1)
    nn.init.constant_(layer.weight, 0.0)
    updates = Updates({"student": layer.parameters()}, NUMBERS, {}, clip=1.0)
    loss, _, norm = updates.apply(Update(layer.weight.sqrt().sum() + layer.bias.sum()), PEAK, 1.0)  # 1 / (2 sqrt 0)
    assert torch.isfinite(loss)
    assert torch.isinf(norm)
    assert layer.weight.item() == 0.0


def test_frozen_parameters_are_in_no_optimiser() -> None:
    layer = nn.Linear(1, 1).requires_grad_(False)
    updates = Updates({"student": layer.parameters()}, NUMBERS, {}, None)
    updates.apply(Update(layer(torch.ones(1, 1)).sum()), PEAK, 1.0)
    assert updates.state() == {}
