"""Clothing of which every fifth training label is wrong, beside a few pictures whose labels were checked.

It stands for data that were labelled cheaply: a person has checked 2,000 labels, and nobody can look at the rest. The
pictures are those of `compress.clothing`; validation and test keep the published labels, without which nothing could be
measured. The reference teacher learns from the wrong labels as well, and for a shorter time than from right ones,
because a long training learns them by heart. That a fifth is wrong, whatever the picture and its class, and the
teacher's epochs are proposed.
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

WRONG = 0.2  # share of the training labels
CHECKED = 2_000  # pictures that are not in the training split
STREAM = "checked"
SEED = 0  # of the choice of labels; it is not the training's, so that every run has the same data


@final
class MislabelledFashionMnist(Clothing):
    """53,000 / 5,000 / 10,000 pictures, and 2,000 more in the stream "checked"; the test split is the published one."""

    name = "fashion_mnist_mislabelled"
    teacher_numbers: ClassVar[TrainingNumbers] = replace(Clothing.teacher_numbers, epochs=4)

    def load(self, data: Path | None) -> Splits:
        pixels, labels, digest = self.read(data, "train")
        held = len(pixels) - VALIDATION
        cut = held - CHECKED
        wrong = mislabelled(labels[:cut], WRONG, len(self.labels), SEED)
        splits = Splits(
            train=TensorExamples(pixels[:cut], wrong, f"{digest}:train:{WRONG} wrong by {SEED}", scale=1 / 255),
            val=TensorExamples(pixels[held:], labels[held:], f"{digest}:val", scale=1 / 255),
            test=TensorExamples(*self.read(data, "t10k"), scale=1 / 255),
            extras=((STREAM, TensorExamples(pixels[cut:held], labels[cut:held], f"{digest}:checked", scale=1 / 255)),),
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
