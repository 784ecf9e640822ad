"""Where knowledge comes from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.contracts.stages import Stage


class Teacher(ABC):
    """Answers batches. Frozen networks, moving averages of the student, ensembles, black boxes and caches all do.

    No gradient flows out of a teacher unless a method's own step asks for it.
    """

    @property
    @abstractmethod
    def cacheable(self) -> bool:
        """Whether the same input always gets the same answer, so that a disk may remember it."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever the answers may: caches are keyed by it."""

    @abstractmethod
    def observe(self, batch: Batch) -> Signals:
        """The teacher's answers to a batch, detached."""

    @property
    def stages(self) -> Mapping[str, Stage]:
        """Where the stages end that taps asked for, by the taps' names; known after the first answer."""
        return {}

    def modules(self) -> Mapping[str, nn.Module]:
        """Networks that must move to the device and, where they change, into checkpoints. None by default."""
        return {}

    def after_step(self, students: Mapping[str, nn.Module]) -> None:
        """Called after every optimiser step; a moving average follows the student here."""
        return

    def after_epoch(self, students: Mapping[str, nn.Module]) -> None:
        """Called after every epoch; a bank of snapshots takes one here."""
        return
