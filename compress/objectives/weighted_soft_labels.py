"""Follow the teacher where it knows the label better than the student does, sample by sample.

Source: Zhou, Song, Chen, Zhou, Wang, Yuan, Zhang, "Rethinking Soft Labels for Knowledge Distillation: A Bias-Variance
Tradeoff Perspective", ICLR 2021, arXiv:2102.00650, in the form in which it is a baseline (WLS) of arXiv:2312.15112: the
weight of the teacher is 1 - exp(-CE_student / CE_teacher), and the label has the rest.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.terms import labels_for, positive_temperature, shared_loss


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


class WeightedSoftLabels(Objective):
    """`relative_ratio` * T^2 KL(teacher || student) + the rest of 1 * the task's loss on labels.

    Args:
        temperature: of the teacher's term, > 0.

    Raises:
        RecipeError: it is not.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = positive_temperature("weighted_soft_labels", temperature)

    def prepare(self, preparation: Preparation) -> None:
        """Take the task's loss, with the recipe's label smoothing."""
        self._supervised = preparation.supervised

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no labels.
        """
        share, labels = self.ratio(student, teacher, batch), labels_for("weighted_soft_labels", batch)
        return shared_loss(share, student.output, teacher.output, labels, self.temperature, self._supervised)

    def ratio(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """The teacher's share of each sample's loss, (B,), without gradient."""
        labels = labels_for("weighted_soft_labels", batch)
        with torch.no_grad():
            return relative_ratio(student.output, teacher.output, labels)
