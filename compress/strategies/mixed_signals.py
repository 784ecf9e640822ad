"""Signals laid over each other at random levels; whoever teaches labels what comes out.

Source: Kounadis-Bastian et al. 2024, arXiv:2408.13920: a teacher labels augmented and mixed audio as well, for nothing.
How often and how loud was not found: half of the signals, 0 to 20 dB below, are proposed.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.errors import RecipeError


class MixedSignals(DataStrategy):
    """One stream, "train", without its labels: they are of no use to a mixture, and a method that has this strategy
    learns from its teacher alone.

    Args:
        share: of the signals that get another of the same batch laid over them, in [0, 1]. With 0 a teacher's answers
            may be cached.
        quietest_db: level of the other signal is drawn evenly from this to 0 dB, <= 0.
        augment: whether the task's augmentation comes first, where it has one.

    Raises:
        RecipeError: a number out of its range.
    """

    def __init__(self, share: float = 0.5, quietest_db: float = -20.0, augment: bool = True) -> None:
        if not 0.0 <= share <= 1.0:
            raise RecipeError(f"the strategy has share {share}", fix="write a share from 0.0 to 1.0")
        if not -float("inf") < quietest_db <= 0.0:
            raise RecipeError(f"the strategy has quietest_db {quietest_db}", fix="write decibels, 0.0 or less")
        self._share, self._quietest = share, quietest_db
        self.augments = augment

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0}

    @property
    def deterministic(self) -> bool:
        return self._share == 0.0

    def transform(
        self,
        batches: Mapping[str, Batch],
        teachers: Mapping[str, Teacher],
        clock: Clock,
        generator: torch.Generator,
    ) -> Mapping[str, Batch]:
        bare = {name: replace(self.augmented(batch, generator), labels=None) for name, batch in batches.items()}
        if self._share == 0.0:
            return bare
        return {name: batch.with_inputs(self._mixed(batch.inputs[0], generator)) for name, batch in bare.items()}

    def _mixed(self, signal: Tensor, generator: torch.Generator) -> Tensor:
        count = len(signal)
        other = torch.randperm(count, generator=generator, device=generator.device).to(signal.device)
        draws = torch.rand(2, count, generator=generator, device=generator.device).to(signal.device)
        level = 10.0 ** (self._quietest * draws[0] / 20.0) * (draws[1] < self._share)
        return overlaid(signal, signal[other], level)


def overlaid(signal: Tensor, other: Tensor, level: Tensor) -> Tensor:
    """(signal + level * other) / (1 + level): stays within the range of the two.

    Args:
        signal, other: (B, ...).
        level: (B,), >= 0; 0 leaves the signal as it is.
    """
    gain = level.reshape(-1, *([1] * (signal.ndim - 1)))
    return (signal + gain * other) / (1.0 + gain)
