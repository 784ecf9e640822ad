"""Strategies of published methods together with the task's own augmentation."""

from dataclasses import replace

import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.preparation import Preparation
from compress.contracts.strategy import DataStrategy
from compress.contracts.task import Task
from compress.strategies.copy_paste import CopyPaste
from compress.strategies.distillation_data import DistillationData
from compress.strategies.held_out import HeldOut
from compress.strategies.mixed_signals import MixedSignals

CLOCK = Clock("p", 0, 1, 0, 1)
BATCH = Batch((torch.zeros(4, 2),), torch.zeros(4), torch.arange(4), stream="train")


def shown(strategy: DataStrategy, preparation: Preparation, **streams: Batch) -> dict[str, Batch]:
    """What a step is given."""
    strategy.prepare(preparation)
    return dict(strategy.transform({"train": BATCH, **streams}, {}, CLOCK, torch.Generator().manual_seed(0)))


def test_held_out_examples_stay_as_they_are(preparation: Preparation, shifting: Task) -> None:
    held = replace(BATCH, stream="held_out")
    found = shown(HeldOut(), preparation, held_out=held)
    assert (found["train"].inputs[0] >= 1.0).all()
    assert found["train"].stream == ""
    assert found["held_out"] is held
    assert not HeldOut().unchanged(shifting)
    assert shown(HeldOut(augment=False), preparation, held_out=held)["train"] is BATCH
    assert HeldOut(augment=False).unchanged(shifting)


def test_signals_are_augmented_and_then_mixed(preparation: Preparation, shifting: Task, still: Task) -> None:
    found = shown(MixedSignals(share=0.0), preparation)["train"]
    assert (found.inputs[0] >= 1.0).all()
    assert found.stream == ""
    assert found.labels is None
    assert MixedSignals(share=0.0).unchanged(still)
    assert not MixedSignals(share=0.0).unchanged(shifting)


def test_every_stream_is_augmented_before_blends(preparation: Preparation, shifting: Task) -> None:
    other = replace(BATCH, stream="other")
    found = shown(DistillationData("train+other", mixed=1.0, augment=True), preparation, other=other)["examples"]
    assert found.inputs[0].shape == (8, 2)
    assert (found.inputs[0] >= 1.0).all()
    assert (shown(DistillationData("train+other"), preparation, other=other)["examples"].inputs[0] == 0.0).all()
    assert not DistillationData(augment=True).unchanged(shifting)


def test_both_streams_are_augmented_before_boxes_are_pasted(preparation: Preparation) -> None:
    pictures = replace(BATCH, inputs=(torch.zeros(4, 1, 6, 6),), labels=torch.zeros(4, 6, 6, dtype=torch.int64))
    strategy = CopyPaste(augment=True, component=False)
    strategy.prepare(preparation)

    class Teacher:
        def observe(self, batch: Batch) -> object:
            assert (batch.inputs[0] >= 1.0).all()
            return type("Said", (), {"output": torch.zeros(4, 2, 6, 6)})

    batches = {"train": pictures, "unlabelled": replace(pictures, labels=None, stream="unlabelled")}
    found = strategy.transform(batches, {"teacher": Teacher()}, CLOCK, torch.Generator().manual_seed(0))  # type: ignore[dict-item]
    assert all((batch.inputs[0] >= 1.0).all() for batch in found.values())
