"""How probable the teacher finds the true class: a figure to watch, not to train on.

Where a loss weighs its label term by this probability (PLD), a teacher that is sure of something else switches the
label off. A weight of 0 keeps the figure in the learning curve and out of the loss.
"""

from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import RecipeError


class TrueClass(Objective):
    """The teacher's probability of the label.

    Args:
        temperature: of the teacher's probabilities, > 0; that of the loss which is watched.

    Raises:
        RecipeError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0.0 < temperature < float("inf"):
            raise RecipeError(
                f"true_class has the temperature {temperature}", fix="write a temperature above 0, such as 1.0"
            )
        self._temperature = temperature

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,), in [0, 1], without gradient; positions of a map are averaged. 0 where there are no labels."""
        if batch.labels is None:
            return teacher.output.new_zeros(len(teacher.output))
        p = (teacher.output.detach() / self._temperature).softmax(dim=1)
        return p.gather(1, batch.labels.unsqueeze(1)).flatten(1).mean(dim=1)
