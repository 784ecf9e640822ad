"""Processes that stand where a new interpreter stands after its imports, without the seconds that those take.

The first one starts a server that imports what is heavy and computes nothing; each process is a fork of the server.
Everything that is done to a process (kill, interrupt, ranks of a group) is done to it as to any other. What an
interpreter does before its first line is not tested with them.
"""

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

IMPORTED = ("compress.cli.main", "compress.pipeline", "compress.spaces.derived", "sklearn.datasets", "onnxscript")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(list(IMPORTED))


def forked(
    function: Callable[..., Any],
    *arguments: Any,
    environment: Mapping[str, str] | None = None,
    said: Path | None = None,
) -> ForkServerProcess:
    """Start function(*arguments) in a process of its own with one thread; an int that it returns is its status.

    Args:
        function: one that another process can import.
        environment: variables beside those of the tests.
        said: file that takes what it writes to stdout and stderr; None for the tests' own.
    """
    process = _context.Process(target=_enter, args=(function, arguments, dict(environment or {}), said))
    process.start()
    return process


def run_script(path: Path, *arguments: str) -> None:
    """For `forked`: what `python path arguments...` does."""
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")


def _enter(
    function: Callable[..., Any], arguments: tuple[Any, ...], environment: dict[str, str], said: Path | None
) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server is deaf to it
    os.environ.update(environment)
    torch.set_num_threads(1)
    if said is not None:
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, 1)
        os.dup2(file, 2)
    status = function(*arguments)
    sys.exit(status if isinstance(status, int) else 0)
