"""What a training leaves beside the weights."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CurvePoint:
    """One epoch.

    Attributes:
        phase: its name.
        epoch: 0-based, in the phase; `epochs` is how many the phase has.
        loss: what was minimised, mean over the epoch's updates.
        terms: what the step logged, by name, mean over the updates that logged it; unweighted.
        validation: the task's metric on validation data, higher is better; None where there are no such data.
        learning_rate: of the epoch's last step.
        seconds: measured wall time of the epoch's steps, without validation.
    """

    phase: str
    epoch: int
    epochs: int
    loss: float
    terms: Mapping[str, float]
    validation: float | None
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """A finished training; the weights are in the modules that were passed in.

    Attributes:
        curve: one point per epoch, phase after phase.
        stopped: whether `stop` ended it before the last epoch.
        precision: what was used: fp32 or bf16.
        steps: optimiser steps of the loop that were taken, all phases together.
        kept: position in the curve of the epoch whose weights are in the modules; the last one's, -1, unless the best
            was asked for.
    """

    curve: tuple[CurvePoint, ...]
    stopped: bool
    precision: str
    steps: int
    kept: int = -1

    @property
    def validation(self) -> float | None:
        """The validation score of the epoch whose weights were kept; None where there is none."""
        return self.curve[self.kept].validation if self.curve else None


def plain(curve: Sequence[CurvePoint]) -> list[dict[str, Any]]:
    """For a file: without the seconds, so that equal trainings leave equal bytes."""
    return [{name: value for name, value in asdict(point).items() if name != "seconds"} for point in curve]
