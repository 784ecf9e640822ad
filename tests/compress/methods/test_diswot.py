"""DisWOT's distances as losses: the published weights, and what one step minimises."""

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.methods.diswot import METHOD
from compress.objectives.relations import Relations
from compress.objectives.semantics import Semantics

CLOCK = Clock("distill", 0, 1, 0, 1)


def test_weights_are_those_of_the_paper_and_of_the_loss_that_the_relations_are() -> None:
    assert METHOD.weights == {"labels": 0.1, "soft_targets": 0.9, "semantics": 1.0, "relations": 3000.0}


def test_a_student_that_agrees_costs_nothing_more_than_plain_distillation() -> None:
    torch.manual_seed(0)
    taps: dict[str, Tensor] = {"body": torch.randn(6, 4, 5, 5), "pool": torch.randn(6, 4)}
    signals = Signals(torch.randn(6, 3), taps=taps)
    batch = Batch((torch.zeros(6, 1),), torch.tensor([0, 1, 2, 0, 1, 2]), torch.arange(6))
    for objective in (Relations("body", "body"), Semantics("pool", "pool")):
        torch.testing.assert_close(objective(signals, signals, batch, CLOCK).mean(), torch.tensor(0.0))
