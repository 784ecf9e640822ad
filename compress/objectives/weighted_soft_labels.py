"""Follow the teacher where it knows the label better than the student does, sample by sample.

Source: Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang, "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance
Tradeoff Perspective", ICLR 2021, arXiv:2102.00650, in the form in which it is a baseline (WLS) of arXiv:2312.15112: the
weight of the teacher is 1 - exp(-CE_student / CE_teacher), and the label has the rest.
"""

from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.terms import SharedLoss


def relative_ratio(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """1 - exp(-CE_student / CE_teacher), cross-entropies at temperature 1.

    Args:
        student, teacher: logits, (B, C). No gradient flows into either.
        labels: class indices, (B,).

    Returns:
        (B,) in [0, 1]: 1 - 1/e where both know the label equally well, more where the teacher knows it better.
    """
    ours = F.cross_entropy(student.detach(), labels, reduction="none")
    theirs = F.cross_entropy(teacher.detach(), labels, reduction="none")
    # A teacher that is certain has the loss 0, which is divided by.
    return 1.0 - torch.exp(-ours / theirs.clamp(min=torch.finfo(theirs.dtype).tiny))


@final
class WeightedSoftLabels(SharedLoss):
    """`relative_ratio` * T^2 KL(teacher || student) + the rest of 1 * the task's loss on labels.

    Args:
        temperature: of the teacher's term, > 0.

    Raises:
        RecipeError: it is not.
    """

    name = "weighted_soft_labels"

    def share(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """`relative_ratio`."""
        return relative_ratio(student, teacher, labels)
