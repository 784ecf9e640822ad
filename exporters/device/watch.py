"""A build in a process of its own: a line every few seconds, limits on its time and memory, survived if it dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .files import write_whole

POLL_SECONDS = 0.05
EVERY_SECONDS = 5.0
PROGRESS = ".progress.json"
LEAST_DONE = 0.02  # of a phase, before its rest is worth an estimate


class Reporter:
    """Of the child: writes how far the build is, where the parent looks for it."""

    def __init__(self, folder: Path, every: float = 0.5) -> None:
        self.path = folder / PROGRESS
        self.every = every
        self.written = 0.0
        self.outer = ""

    def told(self, phase: str, step: int, steps: int) -> None:
        """Remember a step; the outermost phase is the first that was begun."""
        if not self.outer:
            self.outer = phase
        now = time.monotonic()
        if now - self.written < self.every and step not in (0, steps):
            return
        self.written = now
        write_whole(self.path, json.dumps({"phase": phase, "step": step, "steps": steps}).encode("utf-8"))


def progress_line(what: str, seconds: float, resident: int, state: dict[str, Any], begun: float) -> str:
    """What a person reads: elapsed time, memory, phase, and an estimate where the phase's steps allow one.

    Args:
        state: "phase", "step", "steps" as `Reporter` wrote them, or empty.
        begun: when the phase was first seen, in seconds of the build.
    """
    text = f"{what}: {seconds:.0f} s, {resident >> 20} MiB"
    if not state:
        return text
    text += f", {state['phase']}"
    step, steps = int(state["step"]), int(state["steps"])
    if steps > 0:
        text += f" {step} of {steps}"
        share = step / steps
        if LEAST_DONE <= share < 1.0 and seconds > begun:
            text += f", about {(seconds - begun) * (1.0 - share) / share:.0f} s of it left"
    return text


def run(
    command: list[str],
    folder: Path,
    what: str,
    seconds: float,
    memory_bytes: int,
    say: Callable[[str], None],
    every: float = EVERY_SECONDS,
) -> tuple[int, str]:
    """Run a command; its exit status (negative: the signal that ended it), and why it was stopped or "".

    On a limit the command and everything that it started are ended.
    """
    (folder / PROGRESS).unlink() if (folder / PROGRESS).exists() else None
    started = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    stopped, peak, said, phase, begun = "", 0, started, "", 0.0
    try:
        while process.poll() is None:
            now = time.monotonic()
            resident = resident_bytes(process.pid)
            peak = max(peak, resident)
            if resident > memory_bytes:
                stopped = f"took more than {memory_bytes >> 20} MiB of memory"
            elif now - started > seconds:
                stopped = f"did not end within {seconds:.0f} s"
            if stopped:
                break
            if now - said >= every:
                said = now
                state = _state(folder)
                if state and state["phase"] != phase:
                    phase, begun = state["phase"], now - started
                say(progress_line(what, now - started, resident, state, begun))
            time.sleep(POLL_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (folder / PROGRESS).exists():
            (folder / PROGRESS).unlink()
    return process.returncode, stopped


def _state(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / PROGRESS).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 where the system does not tell."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def say_aloud(line: str) -> None:
    """To standard error, at once: ssh hands it on as it comes."""
    print(line, file=sys.stderr, flush=True)
