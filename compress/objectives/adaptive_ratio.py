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
from compress.errors import RecipeError, TaskError
from compress.similarity import soft_target_loss


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
        if not 0.0 < temperature < float("inf"):
            raise RecipeError(
                f"adaptive_ratio has the temperature {temperature}", fix="write a temperature above 0, such as 4.0"
            )
        self.temperature = temperature

    def prepare(self, preparation: Preparation) -> None:
        """Take the task's loss, with the recipe's label smoothing."""
        self._supervised = preparation.supervised

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no labels.
        """
        ratio = self.ratio(student, teacher, batch)
        assert batch.labels is not None
        soft = soft_target_loss(student.output, teacher.output, self.temperature)
        return ratio * soft + (1.0 - ratio) * self._supervised(student.output, batch.labels)

    def ratio(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """The teacher's share of each sample's loss, (B,), without gradient."""
        if batch.labels is None:
            raise TaskError(
                "the objective 'adaptive_ratio' met a stream without labels", fix="give it a labelled stream"
            )
        with torch.no_grad():
            return margin_ratio(teacher.output, batch.labels)
