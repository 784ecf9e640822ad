"""Which examples a step sees, and what is done to them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits
from compress.contracts.preparation import Preparation, as_it_is
from compress.contracts.task import Task
from compress.contracts.teacher import Teacher


class DataStrategy(ABC):
    """Names a step's streams and transforms their batches: two-stream sampling, mixing, curricula, pseudo-labels.

    Attributes:
        augments: whether it wants the task's augmentation; instances may set their own.
        augmented: gives a batch with the task's augmentation, drawn from the generator; it is of no stream any more.
            The batch as it is where the task has none, or `augments` is false. For `transform`, before mixing or once
            for each view.
    """

    augments: bool = False
    augmented: Callable[[Batch, torch.Generator], Batch] = staticmethod(as_it_is)

    @property
    @abstractmethod
    def streams(self) -> Mapping[str, float]:
        """Stream name -> its batch size as a factor of the recipe's; the first stream's length makes an epoch."""

    @property
    @abstractmethod
    def deterministic(self) -> bool:
        """True where the strategy itself leaves examples unchanged; see `unchanged`."""

    def unchanged(self, task: Task) -> bool:
        """Whether examples of this task reach the networks as they are: only then may a cache answer for them."""
        return self.deterministic and not (self.augments and task.augments)

    def splits(self, splits: Splits) -> Splits:
        """What is trained with: as it is, or cut anew, such as into labelled and unlabelled or held-out streams.

        Called before everything else. A part keeps the positions of the whole in `Batch.index`, and the name of its
        stream, so that a teacher's cache goes on answering for it.
        """
        return splits

    def prepare(self, preparation: Preparation) -> None:
        """Called once before the first step. It takes up the task's augmentation: an override calls this one too."""
        if self.augments:
            self.augmented = preparation.augment

    def order(self, stream: str, length: int, clock: Clock, generator: torch.Generator) -> torch.Tensor:
        """Positions of an epoch, (n,) int64: a permutation by default; a curriculum gives fewer or weighted ones, a
        continual method those of its phase. `clock` stands at the epoch's first step."""
        return torch.randperm(length, generator=generator)

    @abstractmethod
    def transform(
        self,
        batches: Mapping[str, Batch],
        teachers: Mapping[str, Teacher],
        clock: Clock,
        generator: torch.Generator,
    ) -> Mapping[str, Batch]:
        """What the step trains on. `generator` is the only source of randomness: a resumed run draws the same."""

    def learn(self, batches: Mapping[str, Batch], feedback: Mapping[str, Tensor]) -> None:
        """Called after an update that gives feedback: pools of hard examples and running statistics follow here.

        Where several processes train, all are told the same: the batches and the feedback of all of them.
        """
        return

    def state(self) -> Mapping[str, Tensor]:
        """What `learn` has gathered, for checkpoints; empty where nothing is."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        return
