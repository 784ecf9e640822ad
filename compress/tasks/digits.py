"""Handwritten digits of 8x8 pixels, which ship with scikit-learn: nothing to download.

Source: Alpaydin, Kaynak, "Optical Recognition of Handwritten Digits" (UCI), the copy of its test part in
`sklearn.datasets.load_digits`: 1,797 images, values 0 to 16.
"""

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from compress.augmentations import warped
from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import check_splits
from compress.errors import TaskError
from compress.frontends.normalise import Normalise
from compress.residual_network import ResidualNetwork

FULL_SCALE = 16.0
SHARES = (0.60, 0.15)  # train, val; the rest is test
SPLIT_SEED = "digits-2026"
MEAN, STD = 0.3053, 0.3760  # of all pixels / 16


class Digits(Task):
    """60 / 15 / 25 % of every class. Ignores `--data`: the data come with an installed package."""

    name = "digits"
    labels = tuple(str(digit) for digit in range(10))
    input_shape = (1, 8, 8)
    preprocessing = f"grey pixels 0..16 divided by 16, then (x - {MEAN}) / {STD}"
    augments = True
    # No label smoothing in any task: smoothed teachers tell less about how classes resemble each other, and students
    # learn less from them (Mueller, Kornblith, Hinton, arXiv:1906.02629, section 4).
    teacher_numbers: ClassVar[TrainingNumbers] = TrainingNumbers(
        epochs=40, batch_size=64, learning_rate=4e-3, weight_decay=0.02
    )

    def load(self, data: Path | None) -> Splits:
        try:
            from sklearn.datasets import load_digits  # takes a second: only where it is used
        except ImportError as error:
            raise TaskError(
                "task 'digits' reads its images from scikit-learn, which is not installed",
                fix="pip install scikit-learn",
            ) from error
        images, labels = load_digits(return_X_y=True)
        pixels = torch.from_numpy(images.astype(np.uint8)).reshape(-1, *self.input_shape)
        classes = torch.from_numpy(labels.astype(np.int64))
        digest = hashlib.sha256(pixels.numpy().tobytes() + classes.numpy().tobytes()).hexdigest()
        parts = {
            name: TensorExamples(pixels[index], classes[index], f"{digest}:{name}", scale=1 / FULL_SCALE)
            for name, index in split(classes).items()
        }
        splits = Splits(parts["train"], parts["val"], parts["test"])
        check_splits(self, splits)
        return splits

    def frontend(self) -> nn.Module:
        return Normalise([MEAN], [STD])

    def teacher(self) -> nn.Module:
        return ResidualNetwork(1, widths=(32, 64), depths=(1, 2), outputs=10)

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Turns by up to 12 degrees, sizes within 10 %, shifts by up to 0.8 pixels: a whole pixel is too much."""
        return batch.with_inputs(warped(batch.inputs[0], degrees=12.0, scale=0.1, shift=0.2, generator=generator))


def split(labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Positions of train, val and test, sorted: the same shares of every class, whatever library versions there are.

    The order within a class is that of the hash of each position, so that it rests on no random generator.
    """
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for label in sorted(set(labels.tolist())):
        members = (labels == label).nonzero().flatten().tolist()
        members.sort(key=lambda place: hashlib.sha256(f"{SPLIT_SEED}:{place}".encode()).digest())
        first = round(len(members) * SHARES[0])
        second = first + round(len(members) * SHARES[1])
        parts["train"] += members[:first]
        parts["val"] += members[first:second]
        parts["test"] += members[second:]
    return {name: torch.tensor(sorted(places)) for name, places in parts.items()}


TASK = Digits()
