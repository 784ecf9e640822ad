"""Follow the teacher as far as it is sure of the label, sample by sample.

Source: the adaptive mixing of Lukasik, Bhojanapalli, Menon, Kumar, "Teacher's pet: understanding and mitigating biases
in distillation", TMLR 2022, arXiv:2106.10494, in the form in which it is a baseline (ADA) of arXiv:2312.15112: the
teacher's probability of the label, less the mean probability of the other classes, and never below 0.
"""

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.terms import labels_for, positive_temperature, shared_loss


def margin_ratio(teacher: Tensor, labels: Tensor) -> Tensor:
    """max(0, p - (1 - p) / (C - 1)) with p the teacher's probability of the label.

    Args:
        teacher: logits, (B, C), C >= 2.
        labels: class indices, (B,).

    Returns:
        (B,) in [0, 1]: 1 where the teacher is certain of the label, 0 where it is no better than chance.
    """
    p = teacher.detach().softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    return (p - (1.0 - p) / (teacher.shape[1] - 1)).clamp(min=0.0)


class AdaptiveRatio(Objective):
    """`margin_ratio` * T^2 KL(teacher || student) + the rest of 1 * the task's loss on labels.

    Args:
        temperature: of the teacher's term, > 0.

    Raises:
        RecipeError: it is not.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = positive_temperature("adaptive_ratio", temperature)

    def prepare(self, preparation: Preparation) -> None:
        """Take the task's loss, with the recipe's label smoothing."""
        self._supervised = preparation.supervised

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no labels.
        """
        share, labels = self.ratio(student, teacher, batch), labels_for("adaptive_ratio", batch)
        return shared_loss(share, student.output, teacher.output, labels, self.temperature, self._supervised)

    def ratio(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """The teacher's share of each sample's loss, (B,), without gradient."""
        labels = labels_for("adaptive_ratio", batch)
        with torch.no_grad():
            return margin_ratio(teacher.output, labels)
