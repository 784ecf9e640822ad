"""Which examples a step sees, and what is done to them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits
from compress.contracts.preparation import Preparation
from compress.contracts.teacher import Teacher


class DataStrategy(ABC):
    """Names a step's streams and transforms their batches: two-stream sampling, mixing, curricula, pseudo-labels."""

    @property
    @abstractmethod
    def streams(self) -> Mapping[str, float]:
        """Stream name -> its batch size as a factor of the recipe's; the first stream's length makes an epoch."""

    @property
    @abstractmethod
    def deterministic(self) -> bool:
        """True where examples reach the networks unchanged: only then may the teacher's answers be cached."""

    def splits(self, splits: Splits) -> Splits:
        """What is trained with: as it is, or cut anew, such as into labelled and unlabelled or held-out streams.

        Called before everything else. A part keeps the positions of the whole in `Batch.index`, and the name of its
        stream, so that a teacher's cache goes on answering for it.
        """
        return splits

    def prepare(self, preparation: Preparation) -> None:
        """Called once before the first step."""
        return

    def order(self, stream: str, length: int, epoch: int, generator: torch.Generator) -> torch.Tensor:
        """Positions of this epoch, (n,) int64: a permutation by default; a curriculum gives fewer or weighted ones."""
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
        """Called after an update that gives feedback: pools of hard examples and running statistics follow here."""
        return

    def state(self) -> Mapping[str, Tensor]:
        """What `learn` has gathered, for checkpoints; empty where nothing is."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        return
