"""Weights that change while training runs. Recipes write a number, or a table that names one of these."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compress import strict
from compress.contracts.clock import Clock
from compress.errors import RecipeError

Weight = float | Callable[[Clock], float]
"""An objective's weight: the same all the time, or a function of the phase's clock."""


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` along a straight line over the phase."""

    start: float
    end: float

    def __call__(self, clock: Clock) -> float:
        return self.start + (self.end - self.start) * clock.progress


@dataclass(frozen=True)
class Cosine:
    """From `start` to `end` along half a cosine over the phase: flat at both ends."""

    start: float
    end: float

    def __call__(self, clock: Clock) -> float:
        return self.end + (self.start - self.end) * 0.5 * (1.0 + math.cos(math.pi * clock.progress))


@dataclass(frozen=True)
class Step:
    """`start`, multiplied by `factor` after every `epochs` epochs of the phase."""

    start: float
    factor: float
    epochs: int

    def __call__(self, clock: Clock) -> float:
        return self.start * self.factor ** (clock.epoch // self.epochs)


@dataclass(frozen=True)
class Decay:
    """`start`, multiplied by `factor` after every step of the phase."""

    start: float
    factor: float

    def __call__(self, clock: Clock) -> float:
        return self.start * self.factor**clock.step


SCHEDULES: Mapping[str, type[Linear] | type[Cosine] | type[Step] | type[Decay]] = {
    "linear": Linear,
    "cosine": Cosine,
    "step": Step,
    "decay": Decay,
}


def weight_at(weight: Weight, clock: Clock) -> float:
    """The weight's value at this step."""
    return weight(clock) if callable(weight) else weight


def read_weight(data: Any, where: str) -> Weight:
    """A weight from a recipe: a number, or a table such as `{schedule = "linear", start = 1.0, end = 0.0}`.

    Args:
        data: as TOML gives it.
        where: the file and key, for messages.

    Raises:
        RecipeError: neither; an unknown schedule or key; a weight that is negative or not finite; no whole epoch.
    """
    if isinstance(data, int | float) and not isinstance(data, bool):
        return _checked(float(data), "weight", where)
    if not isinstance(data, Mapping) or data.get("schedule") not in SCHEDULES:
        raise RecipeError(
            f"{where}: the weight must be a number or a table with schedule = one of {', '.join(SCHEDULES)}, "
            f"and is {data!r}",
            fix='write a number, or {schedule = "linear", start = 1.0, end = 0.0}',
        )
    numbers = {name: value for name, value in data.items() if name != "schedule"}
    schedule = strict.read(SCHEDULES[data["schedule"]], numbers, where)
    for name, value in vars(schedule).items():
        _checked(value, name, where)
    if isinstance(schedule, Step) and schedule.epochs < 1:
        raise RecipeError(f"{where}: epochs is {schedule.epochs}", fix="write epochs as 1 or more")
    return schedule


def _checked(value: float, name: str, where: str) -> float:
    if not math.isfinite(value) or value < 0:
        raise RecipeError(f"{where}: {name} is {value}", fix="write a finite number that is 0 or more")
    return value
