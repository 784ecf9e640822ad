"""Boxes of labelled pictures in unlabelled ones, and the other way round, with labels put together the same way.

Source: Bai, Chen, Li, Shen, Wang, "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR 2023,
arXiv:2305.00673, section 3. The mask of the loss is that of the picture (the authors' 2-D script has a second mask
whose axes are swapped), and its offsets come from the picture's own size.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from compress.augmentations import mirrored_together
from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.errors import RecipeError, TaskError

PRETRAIN = "pretrain"
"""Phase in which labelled pictures are pasted onto each other alone."""
INWARD, OUTWARD = "inward", "outward"
UNLABELLED = "unlabelled"


def box_mask(size: Sequence[int], beta: float, generator: torch.Generator) -> Tensor:
    """1 everywhere but in one box of zeros.

    Args:
        size: of the picture, (*S).
        beta: the box's share of each side, in (0, 1); its length is rounded down.
        generator: draws the box's place, evenly in [0, length - side), as the source does: the last place never comes.

    Returns:
        (*S) float32.
    """
    mask = torch.ones(*size)
    box = []
    for length in size:
        side = int(beta * length)
        begin = int(torch.randint(0, max(1, length - side), (), generator=generator, device=generator.device))
        box.append(slice(begin, begin + side))
    mask[tuple(box)] = 0.0
    return mask


def mixed(image: Tensor, box: Tensor, mask: Tensor) -> Tensor:
    """`image` with the box of `box` in it: (B, ..., *S) each, mask (*S). Integers stay integers."""
    return torch.where(mask.bool(), image, box)


def largest_components(labels: Tensor, classes: int) -> Tensor:
    """Keep of every foreground class of every picture its largest connected part; the rest becomes background.

    Args:
        labels: (B, *S) int64; 0 is background.
        classes: how many there are, background included.

    Returns:
        the same shape. Neighbours touch by a side, an edge or a corner. Of parts of one size the first stays.
    """
    from scipy import ndimage  # slow to import

    found = labels.cpu().numpy()
    kept = np.zeros_like(found)
    neighbours = np.ones((3,) * (found.ndim - 1))
    for place, number in product(range(len(found)), range(1, classes)):
        parts, count = ndimage.label(found[place] == number, structure=neighbours)
        if count:
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0
            kept[place][parts == sizes.argmax()] = number
    return torch.from_numpy(kept).to(labels.device)


class CopyPaste(DataStrategy):
    """Two streams, "train" with labels and "unlabelled"; each step's batch is cut into halves that meet crosswise.

    While the phase is called "pretrain", labelled pictures are pasted onto each other; afterwards the teacher labels
    the unlabelled halves. The step gets the batch "inward" (labelled pictures, unlabelled boxes) and, after
    pre-training, "outward" (the reverse). Labels of the unlabelled stream, should there be any, are never looked at.

    Args:
        beta: the box's share of each side, in (0, 1).
        alpha: weight of regions with the teacher's labels; labelled regions weigh 1. The source has 0.5, and 1.5 for
            the pancreas.
        component: whether only the largest connected part of each class of a teacher's label stays. It suits organs, of
            which there is one; not things that come in numbers.
        flips: whether pictures are mirrored along each axis at random, with their labels.
        directions: "both", or "inward" or "outward" alone, which the source's ablation compares.
        augment: whether the task's augmentation comes first, on both streams; the source has none but its flips.

    Raises:
        RecipeError: a number out of its range, or an unknown direction.
    """

    def __init__(
        self,
        beta: float = 2 / 3,
        alpha: float = 0.5,
        component: bool = True,
        flips: bool = True,
        directions: str = "both",
        augment: bool = False,
    ) -> None:
        known = {"both": (INWARD, OUTWARD), INWARD: (INWARD,), OUTWARD: (OUTWARD,)}
        if not 0.0 < beta < 1.0 or alpha < 0.0 or directions not in known:
            raise RecipeError(
                f"copy-paste has beta = {beta}, alpha = {alpha}, directions = {directions!r}",
                fix=f"give beta in (0, 1), alpha 0 or more, directions one of {', '.join(known)}",
            )
        self._beta, self._alpha, self._component, self._flips = beta, alpha, component, flips
        self._directions = known[directions]
        self.augments = augment

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0, UNLABELLED: 1.0}

    @property
    def deterministic(self) -> bool:
        return False

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        """
        Raises:
            TaskError: a batch has one picture, which has no other half, or the labelled stream has no labels.
        """
        known = self.augmented(batches["train"], generator)
        if self._flips:
            known = mirrored_together(known, generator)
        if known.labels is None or len(known) < 2:
            raise TaskError(
                f"copy-paste met {len(known)} labelled pictures in a batch, "
                f"{'without' if known.labels is None else 'with'} labels",
                fix="give it at least two labelled pictures per batch",
            )
        image = known.inputs[0]
        mask = box_mask(image.shape[2:], self._beta, generator).to(image.device)
        half = len(known) // 2
        x_i, x_j, y_i, y_j = image[:half], image[half : 2 * half], known.labels[:half], known.labels[half : 2 * half]
        if clock.phase == PRETRAIN:
            return {INWARD: _batch(mixed(x_j, x_i, mask), y_j, y_i, 1.0, 1.0, mask)}
        unknown = self.augmented(batches[UNLABELLED], generator)
        if self._flips:
            unknown = mirrored_together(unknown, generator)
        others = unknown.inputs[0]
        if len(others) < 2 * half:
            others = others.repeat(-(-2 * half // len(others)), *(1,) * (others.ndim - 1))
            unknown = Batch((others,), None, torch.arange(len(others)))
        pseudo = self._labelled(unknown, teachers)
        u_p, u_q, z_p, z_q = others[:half], others[half : 2 * half], pseudo[:half], pseudo[half : 2 * half]
        both = {
            INWARD: _batch(mixed(x_j, u_p, mask), y_j, z_p, 1.0, self._alpha, mask),
            OUTWARD: _batch(mixed(u_q, x_i, mask), z_q, y_i, self._alpha, 1.0, mask),
        }
        return {name: both[name] for name in self._directions}

    def _labelled(self, unknown: Batch, teachers: Mapping[str, Teacher]) -> Tensor:
        output = teachers["teacher"].observe(unknown).output
        pseudo = output.argmax(1)
        return largest_components(pseudo, output.shape[1]) if self._component else pseudo


def _batch(image: Tensor, labels: Tensor, box: Tensor, weight: float, box_weight: float, mask: Tensor) -> Batch:
    ones = torch.ones(len(image), device=image.device)
    extras = {"box_labels": box, "image_weight": weight * ones, "box_weight": box_weight * ones}
    return Batch((image,), labels, torch.arange(len(image)), extras, {"mask": mask})
