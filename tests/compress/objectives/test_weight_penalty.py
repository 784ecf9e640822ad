"""The published decay: its value, its gradient, and what it leaves alone."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.objectives.weight_penalty import WeightPenalty

BATCH, CLOCK = Batch((torch.zeros(1, 2),), None, torch.arange(1)), Clock("distill", 0, 1, 0, 1)


def penalty(network: nn.Module) -> tuple[WeightPenalty, torch.Tensor]:
    objective, said = WeightPenalty(), Signals(torch.zeros(1, 2))
    preparation: Any = SimpleNamespace(students={"student": network})
    objective.prepare(preparation)
    return objective, objective(said, said, BATCH, CLOCK)


def test_half_the_squares_of_weights_and_nothing_of_biases_norms_and_steps() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    network.register_parameter("log_step", nn.Parameter(torch.full((2, 1, 1), 9.0)))  # one for each channel
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[1.0, -2.0], [3.0, 0.0]]))  # type: ignore[operator]
    objective, value = penalty(network)
    assert value.tolist() == [7.0]
    value.mean().backward()
    torch.testing.assert_close(network[0].weight.grad, network[0].weight.detach())
    assert network[0].bias.grad is None
    assert network.log_step.grad is None  # type: ignore[union-attr]
    assert not list(objective.parameters())
    assert not objective.state_dict()


def test_a_step_is_adams_own_weight_decay() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(8, 3)
    weights = []
    for kind in ("ours", "adam"):
        torch.manual_seed(1)
        network = nn.Linear(3, 2, bias=False)
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1, weight_decay=0.3 if kind == "adam" else 0.0)
        for _ in range(5):
            optimizer.zero_grad()
            loss = network(inputs).square().mean()
            if kind == "ours":
                loss = loss + 0.3 * penalty(network)[1].mean()
            loss.backward()
            optimizer.step()
        weights.append(network.weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_weights_are_left_out(frozen: bool) -> None:
    network = nn.Linear(2, 2, bias=False).requires_grad_(not frozen)
    assert (penalty(network)[1].item() == 0.0) == frozen
