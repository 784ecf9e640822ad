"""What this machine can find out about each target."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from profiles.runners import ESTIMATORS, gpu, processor, runner
from profiles.target import Target, names, target

Level = Literal["measure", "emulate", "estimate", "predict"]


@dataclass(frozen=True)
class Ability:
    """The best that this machine can do for one target.

    Attributes:
        level: measure (its artifact runs here, on the device or one of its kind), emulate, estimate (its vendor's own
            tool says what the artifact would cost; nothing runs, and the cost's origin is "predicted"), or predict.
        runner: the runner that does it; "" where the level is predict.
        missing: runner -> why it cannot run here and what to install.
    """

    target: str
    level: Level
    runner: str
    missing: dict[str, str]


def ability(device: Target) -> Ability:
    """Ask a target's runners, in order, whether they can run here."""
    missing: dict[str, str] = {}
    for name in device.runners:
        reason = runner(name).available()
        if reason is None and device.family == "nvidia-gpu":
            reason = gpu.misfit(device)
        if reason is None and device.family == "x86-cpu":
            reason = processor.misfit(device)
        if reason is None and name in ESTIMATORS:
            return Ability(device.name, "estimate", name, missing)
        if reason is None:
            # A core of the cortex-m family is never this machine: its runner emulates.
            return Ability(device.name, "emulate" if device.family == "cortex-m" else "measure", name, missing)
        missing[name] = reason
    return Ability(device.name, "predict", "", missing)


def abilities(search: Path | None = None) -> list[Ability]:
    """One entry per target, sorted by name."""
    return [ability(target(name, search)) for name in names(search)]
