"""What the tests let workers do; importable by name in their processes."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.contracts.workers import Call, Resources, Task
from profiles.errors import UserError


def square(number: int) -> int:
    """Plain."""
    return number * number


def task(name: str, key: str, needs: Resources | None = None, /, **arguments: Any) -> Task:
    """A call of a function of this file."""
    return Task(key, Call(f"{__name__}:{name}", arguments), needs or Resources())


def setup(name: str, /, **arguments: Any) -> Call:
    """A setup of this file."""
    return Call(f"{__name__}:{name}", arguments)


def load(folder: str, offset: int) -> Mapping[str, int]:
    """A setup that leaves a trace of each call."""
    (Path(folder) / f"loaded-{os.getpid()}-{time.monotonic_ns()}").touch()
    return {"offset": offset, "pid": os.getpid()}


def add(state: Mapping[str, int], number: int) -> list[int]:
    """Uses the state; [sum, process of the setup, own process]."""
    return [state["offset"] + number, state["pid"], os.getpid()]


def divide(number: int) -> float:
    """Raises for 0."""
    return 1 / number


def refuse() -> None:
    """What a user can mend."""
    raise UserError("there are no data", fix="bring some")


def broken_setup() -> None:
    """Raises no UserError."""
    raise KeyError("labels")


def refused_setup() -> None:
    """Raises one."""
    raise UserError("there is no teacher", fix="bring one")


def dying_setup() -> None:
    """Is killed."""
    os.kill(os.getpid(), signal.SIGKILL)


def sleep(seconds: float, folder: str, name: str) -> str:
    """Say when it begins and when it has ended."""
    with open(Path(folder) / "begun", "a", encoding="utf-8") as log:
        log.write(f"{name} {os.getpid()}\n")
    time.sleep(seconds)
    with open(Path(folder) / "ended", "a", encoding="utf-8") as log:
        log.write(f"{name}\n")
    return name


def hang(seconds: float, folder: str, name: str, file: str) -> str:
    """`sleep`, that takes a minute as long as the file is there: whoever runs it can be killed in the middle."""
    if (Path(folder) / file).exists():
        time.sleep(60)
    return sleep(seconds, folder, name)


def die(folder: str, times: int) -> str:
    """Is killed by SIGKILL the first `times` times."""
    for number in range(times):
        mark = Path(folder) / f"died-{number}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def leave(status: int) -> None:
    """End the process by itself."""
    os._exit(status)


def threads() -> list[Any]:
    """What libraries are told."""
    return [os.environ.get("OMP_NUM_THREADS"), os.environ.get("CUDA_VISIBLE_DEVICES")]


def torch_threads() -> int:
    """How many torch uses."""
    import torch

    return torch.get_num_threads()


def unsendable() -> Any:
    """Cannot cross a process."""
    return lambda: None


def chatter() -> str:
    """Writes to stdout."""
    print("to stdout", flush=True)
    return "said" if "torch" not in sys.modules else "with torch"
