"""The task's own loss on those examples of a stream whose labels are known."""

from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.graphs import KNOWN, UNKNOWN


class KnownLabels(Objective):
    """Supervised loss of the student where `Batch.extras["known_label"]` is not -1: one forward pass for all nodes."""

    batch_wide = True  # the mean is over the known ones, of which parts of a batch have unequal numbers

    def prepare(self, preparation: Preparation) -> None:
        """Take the task's loss, with the recipe's label smoothing."""
        self._loss = preparation.supervised

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(n,) of the examples with a label; one 0 where there is none.

        Raises:
            RecipeError: the batch does not say which labels are known.
        """
        if KNOWN not in batch.extras:
            raise RecipeError(
                f"the objective 'known_labels' met a batch without {KNOWN!r}",
                fix="train on a stream that says which labels are known, or use the objective 'labels'",
            )
        labels = batch.extras[KNOWN]
        known = labels != UNKNOWN
        if not bool(known.any()):
            return student.output.sum().reshape(1) * 0.0
        return self._loss(student.output[known], labels[known])
