"""The train split, shuffled, with the task's own augmentation."""

from collections.abc import Mapping

import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher


class Plain(DataStrategy):
    """One stream, "train".

    Args:
        augment: False leaves examples as they are, so that a teacher's answers may be cached.
    """

    def __init__(self, augment: bool = True) -> None:
        self.augments = augment

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0}

    @property
    def deterministic(self) -> bool:
        return True

    def transform(
        self,
        batches: Mapping[str, Batch],
        teachers: Mapping[str, Teacher],
        clock: Clock,
        generator: torch.Generator,
    ) -> Mapping[str, Batch]:
        return {name: self.augmented(batch, generator) for name, batch in batches.items()}
