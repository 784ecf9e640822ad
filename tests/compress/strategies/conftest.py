"""A task that adds noise, and what strategies are given before the first step of it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.task import Task


class Shifting(Task):
    """Adds 1 to 2 to every number."""

    name = "shifting"
    labels = ("a", "b")
    input_shape = (2,)
    augments = True

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Identity()

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch.with_inputs(batch.inputs[0] + 1 + torch.rand(batch.inputs[0].shape, generator=generator))


class Still(Shifting):
    """Adds nothing."""

    augments = False


@pytest.fixture
def shifting() -> Task:
    """With an augmentation."""
    return Shifting()


@pytest.fixture
def still() -> Task:
    """Without one."""
    return Still()


@pytest.fixture
def preparation(shifting: Task) -> Preparation:
    """Of the task that adds noise."""
    nothing = TensorExamples(torch.zeros(0, 2), torch.zeros(0), "nothing")
    said = Signals(torch.zeros(1, 2))
    return Preparation(
        Splits(nothing, nothing, nothing), lambda split: iter(()), said, said, 2, 0, lambda z, y: z[:, 0],
        augment=shifting.augment,
    )  # fmt: skip
