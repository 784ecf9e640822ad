"""The task's own loss on its labels."""

from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.errors import TaskError


class Labels(Objective):
    """Supervised loss of the student: cross-entropy in classification, whatever the task says elsewhere."""

    def prepare(self, preparation: Preparation) -> None:
        """Take the task's loss, with the recipe's label smoothing."""
        self._loss = preparation.supervised

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,).

        Raises:
            TaskError: the stream has no labels.
        """
        if batch.labels is None:
            raise TaskError(
                "the objective 'labels' met a stream without labels",
                fix="use a labelled stream, or a method without this term",
            )
        return self._loss(student.output, batch.labels)
