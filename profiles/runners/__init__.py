"""What every runner is: a module of `profiles.runners` that runs a target's artifact on this machine.

`Target.runners` names such modules by file name; `runner(name)` imports one. Importing a runner must be cheap and must
not need its runtime: `available` says what is missing.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from profiles.cost import Cost
from profiles.errors import ProfileError
from profiles.measure import Measurement
from profiles.target import Target

FOLDER = Path(__file__).parent
Arrays = Mapping[str, NDArray[np.generic]]
ESTIMATORS = frozenset({"on_vela"})  # runners that compile an artifact and say what it would cost; nothing runs


class WrongDeviceError(ProfileError):
    """The artifact is for another device than this one."""


class Loaded(Protocol):
    """A model that is ready to run."""

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name, batch first, for inputs by name."""
        ...


class Runner(Protocol):
    """The functions that a runner's module has."""

    def available(self) -> str | None:
        """None where it can run here; else the reason and what to install."""
        ...

    def load(self, path: Path) -> Loaded:
        """Make an artifact ready to run."""
        ...

    def measure(self, path: Path, target: Target, inputs: Arrays | None = None) -> Measurement | Cost:
        """Time an artifact. One that knows more than the time (an emulator, an estimator) returns the whole cost."""
        ...


class TimedRunner(Runner, Protocol):
    """A runner that times on a device, and can be told how."""

    def measure(
        self,
        path: Path,
        target: Target,
        inputs: Arrays | None = None,
        *,
        batch: int = 1,
        threads: int = 1,
        seconds: float = 1.0,
    ) -> Measurement:
        """Time an artifact.

        Args:
            batch: where `inputs` is None.
            threads: of the runtime, on processors.
            seconds: of one round.
        """
        ...


def names() -> list[str]:
    """The runners there are."""
    return sorted(path.stem for path in FOLDER.glob("on_*.py"))


def batch_of(inputs: Arrays, wanted: int | None = None) -> int:
    """The first dimension of the inputs.

    Args:
        wanted: the batch that was asked for.

    Raises:
        ProfileError: no input has `wanted` as its first dimension, so the model's own is fixed at another.
    """
    sizes = [int(value.shape[0]) for value in inputs.values() if value.ndim]
    if wanted is None or wanted in sizes:
        return wanted or next(iter(sizes), 1)
    if not sizes and wanted == 1:
        return 1
    raise ProfileError(
        f"batch {wanted} was asked for; the model's own is fixed at {sizes[0] if sizes else 1}",
        fix="export it with a dynamic batch dimension, or ask for that batch",
    )


def runner(name: str) -> Runner:
    """Import one runner.

    Raises:
        ProfileError: there is none of that name.
    """
    if name not in names():
        raise ProfileError(f"there is no runner {name!r}; there are {', '.join(names())}", fix="name one of these")
    return cast(Runner, importlib.import_module(f"profiles.runners.{name}"))
