"""What a worker does, wherever it is: set up once, then call one function after another."""

import importlib
import os
import platform
import sys
import traceback
from dataclasses import dataclass
from typing import Any

from compress.contracts.workers import Call, Done, Failure, Resources, Task
from compress.errors import full_disk
from profiles.errors import UserError

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Raised:
    """An exception as plain text, which crosses processes whatever its class was.

    Attributes:
        what: one line.
        fix: of a `UserError`.
    """

    what: str
    traceback: str
    fix: str | None = None

    @property
    def error(self) -> Exception:
        """An exception that says the same: a `UserError` where it was one."""
        if self.fix is not None:
            return UserError(self.what, fix=self.fix)
        return RuntimeError(f"the setup of a worker raised {self.what}\n{self.traceback}")


def call_by_name(call: Call, *first: Any) -> Any:
    """Import the function and call it.

    Raises:
        UserError: there is no such module or function here.
    """
    module, _, name = call.function.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"a worker on {platform.node()} cannot import {call.function}: {error}",
            fix="install the same version of the code for every worker",
        ) from error
    return function(*first, **call.arguments)


def raised(error: BaseException) -> Raised:
    """Of the exception that is being handled."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, OSError):
        error = full_disk(error, "finished trials") or error
    if isinstance(error, UserError):
        return Raised(error.what, text, error.fix)
    return Raised(f"{type(error).__name__}: {error}".splitlines()[0], text)


def set_up(setup: Call | None) -> tuple[Any, ...] | Raised:
    """The first arguments of every task: the setup's state, or nothing where there is no setup."""
    if setup is None:
        return ()
    try:
        return (call_by_name(setup),)
    except Exception as error:  # told to the driver, which ends
        return raised(error)


def perform(call: Call, first: tuple[Any, ...], needs: Resources) -> Any | Raised:
    """What the function returns, or what it raised; the number of threads is afterwards what it was."""
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    limit_threads(needs)
    try:
        return call_by_name(call, *first)
    except Exception as error:  # told to the driver, which reports it
        return raised(error)
    finally:
        if torch is not None:
            torch.set_num_threads(before)


def limit_threads(needs: Resources) -> None:
    """As many threads as the task takes cores; torch only where it has been imported."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(max(1, int(needs.cpus)))


def answer(task: Task, value: Any, attempts: int, worker: str) -> Done | Failure:
    """A worker's answer as the driver gives it on."""
    if isinstance(value, Raised):
        return Failure(task.key, value.what, attempts, value.traceback, value.fix)
    return Done(task.key, value, attempts, worker)


def own_name() -> str:
    """The machine and the process."""
    return f"{platform.node()}/{os.getpid()}"
