"""The task's own loss, and a stream without labels."""

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.errors import TaskError
from compress.objectives.labels import Labels

CLOCK = Clock("p", 0, 1, 0, 1)


def prepared() -> Labels:
    objective, some = Labels(), TensorExamples(torch.zeros(1, 2), torch.zeros(1), "x")
    example = Signals(torch.zeros(1, 2))
    splits = Splits(some, some, some)
    objective.prepare(
        Preparation(splits, lambda split: iter(()), example, example, 2, 0, lambda z, y: (z[:, 0] - y).abs())
    )
    return objective


def test_is_the_tasks_loss() -> None:
    signals = Signals(torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
    batch = Batch((torch.zeros(2, 1),), torch.tensor([1.0, 1.0]), torch.arange(2))
    assert prepared()(signals, signals, batch, CLOCK).tolist() == [2.0, 0.0]


def test_a_stream_without_labels_is_refused() -> None:
    signals = Signals(torch.zeros(2, 2))
    with pytest.raises(TaskError, match="without labels"):
        prepared()(signals, signals, Batch((torch.zeros(2, 1),), None, torch.arange(2)), CLOCK)
