"""The train split, shuffled, with the task's own augmentation."""

from collections.abc import Mapping
from dataclasses import replace

import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.strategy import DataStrategy
from compress.contracts.task import Task
from compress.contracts.teacher import Teacher


class Plain(DataStrategy):
    """One stream, "train".

    Args:
        task: gives the augmentation, where it has one.
        augment: False leaves examples as they are, so that a teacher's answers may be cached.
    """

    def __init__(self, task: Task, augment: bool = True) -> None:
        self._task = task
        self._augments = augment and task.augments

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0}

    @property
    def deterministic(self) -> bool:
        return not self._augments

    def transform(
        self,
        batches: Mapping[str, Batch],
        teachers: Mapping[str, Teacher],
        clock: Clock,
        generator: torch.Generator,
    ) -> Mapping[str, Batch]:
        if not self._augments:
            return batches
        return {name: replace(self._task.augment(batch, generator), stream="") for name, batch in batches.items()}
