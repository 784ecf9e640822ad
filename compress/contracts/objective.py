"""What makes the student resemble the teacher."""

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
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
    """Module names whose outputs `forward` wants in `student.taps`; instances may set their own. Where no name can be
    known, because the student is chosen by a search, ask for `contracts.stages.stages(4)`."""
    teacher_taps: tuple[str, ...] = ()
    network_taps: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """The same of students and modules of the method by their names, where networks differ: a student that is named
    here is tapped there instead of at `student_taps`, which all others are."""
    batch_wide: bool = False
    """Whether a value depends on more than its own sample: correlations, similarity matrices, norms over the batch.

    Where several processes train, each has a part of the batch. An objective that says so is given the outputs, taps,
    labels and extras of all parts (not their inputs), so that loss and gradients are those of the whole batch; of the
    (B,) values that it then returns, each process averages its own."""

    @classmethod
    def example(cls) -> Self:
        """One for tests: for networks whose modules include "body", a feature map, and "pool", a vector."""
        return cls()

    def prepare(self, preparation: Preparation) -> None:
        """Called once before the first step: size projections, build class averages from the teacher's answers."""
        return

    def take_up(self, state: Mapping[str, Tensor]) -> None:
        """Called after `prepare` where a trained student is fine-tuned for its quantised form, and by reports, without
        `prepare`: the state dict that this objective had when the student's training ended. By default it starts anew.
        """
        return

    def ratio(self, student: Signals, teacher: Signals, batch: Batch) -> Tensor | None:
        """For reports: the teacher's share of each sample's loss, (B,) in [0, 1], without gradient; None where samples
        do not differ in it."""
        return None

    @abstractmethod
    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """One value per sample, (B,); a term over sets (pairs, edges, the whole batch) gives one per set, (n,), and is
        `batch_wide`."""
