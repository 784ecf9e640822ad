"""Clothing of which every fifth training label is wrong, beside a few pictures whose labels were checked.

It stands for data that were labelled cheaply: 20,000 pictures whose labels nobody can look through, and 2,000 whose
labels a person has checked. They are the first ones of `compress.clothing`; validation and test keep the published
labels, without which nothing could be measured. The reference teacher learns from the wrong labels as well, and for a
shorter time than from right ones, because a long training learns them by heart. The sizes, that a fifth is wrong
whatever the picture and its class, and the teacher's epochs are proposed.
"""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar, final

import torch
from torch import Tensor

from compress.clothing import VALIDATION, Clothing
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import TrainingNumbers
from compress.data_checks import check_splits

TRAIN = 20_000  # pictures
WRONG = 0.2  # share of their labels
CHECKED = 2_000  # further pictures
STREAM = "checked"
SEED = 0  # of the choice of labels; it is not the training's, so that every run has the same data


@final
class MislabelledFashionMnist(Clothing):
    """20,000 / 5,000 / 10,000 pictures, and 2,000 more in the stream "checked"; the test split is the published one."""

    name = "fashion_mnist_mislabelled"
    teacher_numbers: ClassVar[TrainingNumbers] = replace(Clothing.teacher_numbers, epochs=4)

    def load(self, data: Path | None) -> Splits:
        pixels, labels, digest = self.read(data, "train")
        held, end = len(pixels) - VALIDATION, TRAIN + CHECKED
        wrong = mislabelled(labels[:TRAIN], WRONG, len(self.labels), SEED)
        checked = TensorExamples(pixels[TRAIN:end], labels[TRAIN:end], f"{digest}:checked", scale=1 / 255)
        splits = Splits(
            train=TensorExamples(pixels[:TRAIN], wrong, f"{digest}:train:{WRONG} wrong by {SEED}", scale=1 / 255),
            val=TensorExamples(pixels[held:], labels[held:], f"{digest}:val", scale=1 / 255),
            test=TensorExamples(*self.read(data, "t10k"), scale=1 / 255),
            extras=((STREAM, checked),),
        )
        check_splits(self, splits)
        return splits


def mislabelled(labels: Tensor, share: float, classes: int, seed: int) -> Tensor:
    """The same labels, (N,), of which round(share N) are another class, each of the others equally often."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    changed = labels.clone()
    changed[places] = (labels[places] + torch.randint(1, classes, (len(places),), generator=generator)) % classes
    return changed


TASK = MislabelledFashionMnist()
