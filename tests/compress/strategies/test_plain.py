"""The train split as it is, or augmented."""

import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.preparation import Preparation
from compress.contracts.task import Task
from compress.strategies.plain import Plain

CLOCK = Clock("p", 0, 1, 0, 1)
BATCH = Batch((torch.zeros(3, 2),), torch.zeros(3), torch.arange(3), stream="train")


def test_without_augmentation_examples_may_be_cached(shifting: Task, still: Task, preparation: Preparation) -> None:
    assert Plain().unchanged(still)
    bare = Plain(augment=False)
    bare.prepare(preparation)
    assert bare.unchanged(shifting)
    assert bare.transform({"train": BATCH}, {}, CLOCK, torch.Generator())["train"] is BATCH


def test_augmented_examples_are_no_longer_the_streams_own(shifting: Task, preparation: Preparation) -> None:
    strategy = Plain()
    strategy.prepare(preparation)
    first, second = (
        strategy.transform({"train": BATCH}, {}, CLOCK, torch.Generator().manual_seed(1))["train"] for _ in range(2)
    )
    assert not strategy.unchanged(shifting)
    assert first.stream == ""
    assert (first.inputs[0] >= 1.0).all()
    assert torch.equal(first.inputs[0], second.inputs[0])


def test_an_epoch_is_a_permutation_of_the_train_split() -> None:
    strategy = Plain()
    assert strategy.streams == {"train": 1.0}
    order = strategy.order("train", 10, CLOCK, torch.Generator().manual_seed(0))
    assert sorted(order.tolist()) == list(range(10))
