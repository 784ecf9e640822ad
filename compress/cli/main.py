"""`compress`: parse, call, print; turn what a user can mend into one message and an exit code."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from compress import __version__
from compress.cli import (
    bisect,
    doctor,
    init,
    lint,
    listing,
    parity,
    pipeline,
    profile,
    reproduce,
    sbom,
    sensitivity,
    stage,
    targets,
    verify,
)
from compress.errors import GateError, full_disk
from profiles.errors import UserError

COMMANDS = (
    pipeline,
    stage,
    verify,
    sbom,
    sensitivity,
    parity,
    bisect,
    profile,
    lint,
    targets,
    init,
    listing,
    reproduce,
    doctor,
)
GATE_FAILED, USER_ERROR, INTERRUPTED = 1, 2, 130


class _Interrupted(KeyboardInterrupt):
    """Ctrl-C, under a name of its own.

    CPython ends the process by SIGINT, whatever status it was given, once a KeyboardInterrupt (that very class) left
    code run by `exec`, caught further out or not; dataclasses and torch run such code while they are imported.
    """


class _Parser(argparse.ArgumentParser):
    """Says what to do as our other messages do."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(message, fix=f"see: {self.prog} --help")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = _Parser(
        prog="compress",
        description="From a trained teacher and data to a small model proven on its target.",
        epilog="Start with: compress pipeline --target jetson",
    )
    top.add_argument("--version", action="version", version=f"compress {__version__}")
    top.set_defaults(code=0)  # a command that has an answer and fails all the same sets another
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 1 where a finished run failed a gate, or a target refuses the model that was linted; 2 for what the user
        can mend; 130 after Ctrl-C.
    """
    if arguments is None:
        _name_interrupts()
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        options = parser().parse_args(given)
        result, text = options.run(options)
        if result:  # only one of several processes speaks
            print(json.dumps(result, indent=1, default=str) if as_json else text, flush=True)
        return int(options.code)
    except GateError as error:
        _complain(error, as_json)
        return GATE_FAILED
    except UserError as error:
        _complain(error, as_json)
        return USER_ERROR
    except KeyboardInterrupt:
        print("compress: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        full = full_disk(error, "finished stages")
        if full is None:
            raise
        _complain(full, as_json)
        return USER_ERROR


def _name_interrupts() -> None:
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a process in the background may be deaf to it

        def interrupt(number: int, frame: FrameType | None) -> NoReturn:
            raise _Interrupted

        signal.signal(signal.SIGINT, interrupt)


def _complain(error: UserError, as_json: bool) -> None:
    if as_json:
        content: dict[str, Any] = {"error": {"kind": type(error).__name__, "what": error.what, "fix": error.fix}}
        print(json.dumps(content, indent=1))
    print(f"compress: {error.what}\n  fix: {error.fix}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
