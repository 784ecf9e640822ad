"""The train split as it is, or augmented."""

from pathlib import Path

import pytest
import torch
from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits
from compress.contracts.task import Task
from compress.strategies.plain import Plain

CLOCK = Clock("p", 0, 1, 0, 1)


class Shifting(Task):
    """Adds noise."""

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
        return batch.with_inputs(batch.inputs[0] + torch.rand(batch.inputs[0].shape, generator=generator))


class Still(Shifting):
    """Adds nothing."""

    augments = False


BATCH = Batch((torch.zeros(3, 2),), torch.zeros(3), torch.arange(3), stream="train")


@pytest.mark.parametrize("strategy", [Plain(Still()), Plain(Shifting(), augment=False)])
def test_without_augmentation_examples_may_be_cached(strategy: Plain) -> None:
    assert strategy.deterministic
    assert strategy.transform({"train": BATCH}, {}, CLOCK, torch.Generator())["train"] is BATCH


def test_augmented_examples_are_no_longer_the_streams_own() -> None:
    strategy = Plain(Shifting())
    first, second = (
        strategy.transform({"train": BATCH}, {}, CLOCK, torch.Generator().manual_seed(1))["train"] for _ in range(2)
    )
    assert not strategy.deterministic
    assert first.stream == ""
    assert not torch.equal(first.inputs[0], BATCH.inputs[0])
    assert torch.equal(first.inputs[0], second.inputs[0])


def test_an_epoch_is_a_permutation_of_the_train_split() -> None:
    strategy = Plain(Still())
    assert strategy.streams == {"train": 1.0}
    order = strategy.order("train", 10, 0, torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(10))
