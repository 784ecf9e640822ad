"""Run a builder in a process of its own, with limits on time and memory.

A TensorRT builder can crash its process on a bad graph, and a crash must cost one model, not the run. Its plans also
depend on the order of pointers, so a child that turns address randomisation off gives the same bytes every time.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ADDR_NO_RANDOMIZE = 0x0040000  # linux/personality.h
ASK_PERSONALITY = 0xFFFFFFFF
PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG, linux/prctl.h
POLL_SECONDS = 0.02
EVERY_SECONDS = 5.0
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        code: exit status; negative is the signal that ended it.
        ended: "by itself", "time limit" or "memory limit".
        seconds: wall-clock time.
        peak_bytes: largest resident memory seen.
        text: last part of what it wrote to standard output and error.
    """

    code: int
    ended: str
    seconds: float
    peak_bytes: int
    text: str

    def why(self) -> str | None:
        """What went wrong, in words; None where the child ended well."""
        if self.ended != "by itself":
            return f"reached its {self.ended} after {self.seconds:.0f} s and {self.peak_bytes >> 20} MiB"
        if self.code < 0:
            try:
                name = signal.Signals(-self.code).name
            except ValueError:
                name = f"signal {-self.code}"
            return f"crashed ({name})"
        if self.code > 0:
            return f"ended with status {self.code}"
        return None


def run(
    command: Sequence[str],
    *,
    folder: Path,
    seconds: float,
    memory_bytes: int,
    environment: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
    every: float = EVERY_SECONDS,
) -> Outcome:
    """Run `command` in `folder` and wait for it; on a limit, end it and every process that it started.

    Args:
        command: program and arguments; no shell sees them.
        folder: working directory, where also the text it writes is kept ("child.txt").
        seconds: wall-clock limit.
        memory_bytes: limit on resident memory. Address space is not limited: CUDA reserves more than it uses.
        environment: the child's whole environment; None hands on ours.
        progress: gets what the child writes, line by line as it comes, and after `every` seconds of silence a line
            that says how long it has been at it and how much memory it holds.
    """
    written = folder / "child.txt"
    started = time.monotonic()
    ended, peak = "by itself", 0
    heard = started
    with open(written, "wb") as sink, open(written, "rb") as source:
        process = subprocess.Popen(
            list(command),
            cwd=folder,
            env=None if environment is None else dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                peak = max(peak, resident := _resident(process.pid))
                if peak > memory_bytes:
                    ended = "memory limit"
                elif time.monotonic() - started > seconds:
                    ended = "time limit"
                if ended != "by itself":
                    break
                if progress is not None:
                    if _hand_on(source, progress):
                        heard = time.monotonic()
                    elif time.monotonic() - heard > every:
                        heard = time.monotonic()
                        progress(f"{heard - started:.0f} s, {resident >> 20} MiB")
                time.sleep(POLL_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if progress is not None:
            _hand_on(source, progress)
    return Outcome(
        code=process.returncode,
        ended=ended,
        seconds=time.monotonic() - started,
        peak_bytes=peak,
        text=_tail(written),
    )


def _hand_on(source: IO[bytes], progress: Callable[[str], None]) -> bool:
    """Hand on whole lines that were written since the last look; whether there were any."""
    found = False
    while True:
        position = source.tell()
        line = source.readline()
        if not line.endswith(b"\n"):
            source.seek(position)
            return found
        found = True
        progress(line.decode("utf-8", "replace").rstrip("\n"))


def python(module: str, *arguments: str) -> list[str]:
    """Command line that runs a module of this package in a fresh interpreter."""
    return [sys.executable, "-B", "-m", module, *arguments]


def plain_environment(**more: str) -> dict[str, str]:
    """An environment that is the same for every child: what libraries need to be found, and a fixed hash seed."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "LD_LIBRARY_PATH", "HOME", "CUDA_VISIBLE_DEVICES")
        if name in os.environ
    }
    root = str(Path(__file__).resolve().parents[1])
    return {**kept, "PYTHONPATH": root, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8", **more}


def fix_addresses() -> bool:
    """In a child: start this program again without address randomisation; True where that is (already) so.

    Some containers forbid the system call; then nothing changes and the answer is False.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    current = libc.personality(ASK_PERSONALITY)
    if current == -1:
        return False
    if current & ADDR_NO_RANDOMIZE:
        return True
    if libc.personality(current | ADDR_NO_RANDOMIZE) == -1:
        return False
    # Where exec itself fails its OSError ends the child; where it works nothing returns.
    raise SystemExit(os.execv(sys.executable, sys.orig_argv))


def end_with_parent() -> None:
    """In a child: be killed when the parent dies, so that no build outlives a run that was stopped."""
    if sys.platform.startswith("linux"):
        parent = os.getppid()
        ctypes.CDLL(None, use_errno=True).prctl(PARENT_DEATH_SIGNAL, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died in between
            os._exit(1)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _tail(path: Path, size: int = 8000) -> str:
    with open(path, "rb") as handle:
        handle.seek(0, os.SEEK_END)
        handle.seek(max(0, handle.tell() - size))
        return handle.read().decode("utf-8", "replace")
