"""Dice and cross-entropy of a picture that was put together from two, each in its own region.

Source: Bai, Chen, Li, Shen, Wang, "Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation", CVPR 2023,
arXiv:2305.00673, equations of section 3.3. Both prediction and target are masked, for every class, background too.
"""

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals

Variant = Literal["batch_sq", "sample_lin"]


def masked_cross_entropy(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions of the region.

    Args:
        logits: (B, C, *S).
        labels: (B, *S) int64.
        mask: (*S), 1 in the region and 0 elsewhere.

    Returns:
        (B,), in nats; 0 where the region is empty.
    """
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return (losses * mask).flatten(1).sum(1) / (mask.sum() + 1e-16)


def masked_dice(logits: Tensor, labels: Tensor, mask: Tensor, variant: Variant = "batch_sq") -> Tensor:
    """1 - Dice of the softmax in the region, mean over all classes.

    Args:
        logits, labels, mask: as in `masked_cross_entropy`.
        variant: "batch_sq" has one value per class for the whole batch, with squared probabilities (the source's 2-D
            scripts); "sample_lin" one per sample and class, without squares (its 3-D scripts).

    Returns:
        (B,) in [0, 1]; with "batch_sq" all are equal.
    """
    p = logits.softmax(1)
    target = functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(p.dtype)
    space = tuple(range(2, logits.ndim))
    if variant == "sample_lin":
        overlap, both = (p * target * mask).sum(space), ((p + target) * mask).sum(space)
        return (1 - (2 * overlap + 1e-5) / (both + 1e-5)).mean(1)
    everything = (0, *space)
    overlap = (p * target * mask).sum(everything)
    both = (p.square() * mask).sum(everything) + (target * mask).sum(everything)
    return (1 - (2 * overlap + 1e-10) / (both + 1e-10)).mean().expand(len(logits))


def region_loss(logits: Tensor, labels: Tensor, mask: Tensor, variant: Variant = "batch_sq") -> Tensor:
    """(Dice + cross-entropy) / 2 in one region, (B,)."""
    return (masked_dice(logits, labels, mask, variant) + masked_cross_entropy(logits, labels, mask)) / 2


class Regions(Objective):
    """`region_loss` of picture and box, each with its weight.

    The batch brings `labels` of the picture, extras "box_labels" (B, *S), "image_weight" and "box_weight" (B,), and
    common "mask" (*S), 0 in the box.

    Args:
        variant: of the Dice term, see `masked_dice`.

    Raises:
        ValueError: no such variant.
    """

    def __init__(self, variant: str = "batch_sq") -> None:
        super().__init__()
        if variant not in get_args(Variant):
            raise ValueError(f"variant {variant!r}; there are {', '.join(get_args(Variant))}")
        self.batch_wide = variant == "batch_sq"
        self._variant: Variant = "batch_sq" if variant == "batch_sq" else "sample_lin"

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,)."""
        mask = batch.common["mask"].to(student.output.dtype)
        labels = batch.labels
        assert labels is not None
        image = region_loss(student.output, labels, mask, self._variant)
        box = region_loss(student.output, batch.extras["box_labels"], 1 - mask, self._variant)
        total: Tensor = batch.extras["image_weight"] * image + batch.extras["box_weight"] * box
        return total.to(torch.float32) if total.dtype != torch.float64 else total
