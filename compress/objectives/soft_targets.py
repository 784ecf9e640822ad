"""Match the teacher's softened class probabilities.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2.
"""

from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.similarity import soft_target_loss as soft_target_loss
from compress.terms import positive_temperature


class SoftTargets(Objective):
    """`soft_target_loss` of the first outputs.

    Args:
        temperature: > 0. Hinton's own experiments use 2 to 20; at scale 1 does well (arXiv:2305.15781).

    Raises:
        RecipeError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = positive_temperature("soft_targets", temperature)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats."""
        return soft_target_loss(student.output, teacher.output, self.temperature)
