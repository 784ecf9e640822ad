"""What makes the student resemble the teacher."""

from abc import abstractmethod
from typing import Self

from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals


class Objective(nn.Module):
    """One term of the loss; it may own parameters, which are trained with the student and dropped afterwards.

    The training loop alone weights and averages, so "mean over what?" has one answer.
    """

    student_taps: tuple[str, ...] = ()
    """Module names whose outputs `forward` wants in `student.taps`; instances may set their own."""
    teacher_taps: tuple[str, ...] = ()

    @classmethod
    def example(cls) -> Self:
        """One for tests: for networks whose modules include "body", a feature map, and "pool", a vector."""
        return cls()

    def prepare(self, preparation: Preparation) -> None:
        """Called once before the first step: size projections, build class averages from the teacher's answers."""
        return

    @abstractmethod
    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """One value per sample, (B,); a term over sets (pairs, edges, the whole batch) gives one per set, (n,)."""
