"""A figure that is watched: by hand, without gradient."""

import math

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.objectives.true_class import TrueClass

CLOCK = Clock("distill", 0, 1, 0, 1)
TEACHER = torch.tensor([[math.log(3.0), 0.0], [0.0, 0.0]])


def test_by_hand() -> None:
    logits = Signals(TEACHER.clone().requires_grad_())
    batch = Batch((TEACHER,), torch.tensor([0, 1]), torch.arange(2))
    found = TrueClass()(logits, logits, batch, CLOCK)
    torch.testing.assert_close(found, torch.tensor([0.75, 0.5]))
    assert not found.requires_grad
    squared = TrueClass(temperature=0.5)(logits, logits, batch, CLOCK)
    torch.testing.assert_close(squared, torch.tensor([0.9, 0.5]))


def test_a_stream_without_labels_gives_zeros() -> None:
    logits = Signals(TEACHER)
    assert TrueClass()(logits, logits, Batch((TEACHER,), None, torch.arange(2)), CLOCK).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_makes_no_sense_is_refused(temperature: float) -> None:
    with pytest.raises(RecipeError, match="temperature"):
        TrueClass(temperature)
