"""What terms of a loss have in common: the temperature that they are given, the labels that they need, and how a
teacher and labels share one example's loss.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.errors import RecipeError, TaskError
from compress.similarity import soft_target_loss


def positive_temperature(objective: str, temperature: float, usual: float = 4.0) -> float:
    """The temperature, dimensionless.

    Args:
        objective: whose it is, for the message.
        usual: what the message proposes.

    Raises:
        RecipeError: it is not above 0, or infinite.
    """
    if not 0.0 < temperature < float("inf"):
        raise RecipeError(
            f"{objective} has the temperature {temperature}", fix=f"write a temperature above 0, such as {usual}"
        )
    return temperature


def labels_for(objective: str, batch: Batch) -> Tensor:
    """The batch's labels.

    Raises:
        TaskError: it has none.
    """
    if batch.labels is None:
        raise TaskError(f"the objective '{objective}' met a stream without labels", fix="give it a labelled stream")
    return batch.labels


class SharedLoss(Objective, ABC):
    """share * T^2 KL(teacher || student) + (1 - share) * the task's loss on labels, with a share for each sample.

    A file of `compress/objectives` names itself and its share.

    Args:
        temperature: T > 0.

    Raises:
        RecipeError: it is not.
    """

    name: ClassVar[str]

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = positive_temperature(self.name, temperature)

    @abstractmethod
    def share(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """The teacher's share, (B,) in [0, 1], from logits (B, C) and class indices (B,); asked without gradient."""

    def prepare(self, preparation: Preparation) -> None:
        """Take the task's loss, with the recipe's label smoothing."""
        self._supervised = preparation.supervised

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no labels.
        """
        share, labels = self.ratio(student, teacher, batch), labels_for(self.name, batch)
        soft = soft_target_loss(student.output, teacher.output, self.temperature)
        return share * soft + (1.0 - share) * self._supervised(student.output, labels)

    def ratio(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor:
        """The teacher's share of each sample's loss, (B,), without gradient."""
        labels = labels_for(self.name, batch)
        with torch.no_grad():
            return self.share(student.output, teacher.output, labels)
