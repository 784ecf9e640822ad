"""Give thousands of damaged and hostile inputs to what reads them.

    .venv/bin/python -m tools.fuzz_inputs [KIND ...] [--cases 10000] [--seed 0] [--only NUMBER]

Kinds: projects, checkpoints, recordings, runs, commands (ONNX files: tools/fuzz_onnx.py). A child process with limits
on memory and time takes the cases one after the other. An input is taken, or refused with one message; whatever else
happens is a fault: another exception, a death of the process, more than 5 s, or more memory than the limit. Cases are
named by kind, seed and number; --only runs one of them and shows its traceback. Exit status 1 where there was a fault.
"""

import argparse
import contextlib
import importlib
import io
import os
import random
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from profiles.errors import UserError
from tools.fuzzing.kind import Kind

KINDS = ("projects", "checkpoints", "recordings", "runs", "commands")
CASE_SECONDS = 5.0
START_SECONDS = 120.0  # imports
MEMORY_BYTES = 1 << 30  # beyond what the process has mapped once all is imported
FAULTS = ("crash", "hang", "error")


@dataclass(frozen=True)
class Case:
    """What happened to one input."""

    number: int
    seconds: float
    outcome: str  # taken, refused, crash, hang, or error
    detail: str


def main() -> int:
    """Run, print, and say whether there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone and show where it fails")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    kinds = options.kinds or list(KINDS)
    if unknown := [name for name in kinds if name not in KINDS]:
        parser.error(f"no kind {unknown[0]!r}; there are {', '.join(KINDS)}")
    if options.child:
        first, last, folder = options.child
        child(kinds[0], options.seed, int(first), int(last), Path(folder))
        return 0
    if options.only is not None:
        with tempfile.TemporaryDirectory() as place:
            kind = kind_of(kinds[0])
            samples = kind.prepare(_made(Path(place) / "samples"))
            kind.examine(samples, _generator(kind.name, options.seed, options.only), _made(Path(place) / "case"))
        return 0
    faults = 0
    for name in kinds:
        start = time.monotonic()
        cases = run(name, options.seed, options.cases)
        counts = Counter(case.outcome for case in cases)
        slowest = max(cases, key=lambda case: case.seconds)
        told = ", ".join(f"{outcome} {counts[outcome]}" for outcome in ("taken", "refused", *FAULTS))
        print(
            f"{name}: {len(cases)} cases with seed {options.seed} in {time.monotonic() - start:.0f} s: {told}; "
            f"slowest {slowest.seconds:.2f} s (case {slowest.number})",
            flush=True,
        )
        found: dict[str, list[Case]] = {}
        for case in cases:
            if case.outcome in FAULTS:
                found.setdefault(case.detail.rpartition(" at ")[2], []).append(case)
        for alike in found.values():
            print(f"  {len(alike)} cases, first {alike[0].number}: {alike[0].outcome}: {alike[0].detail}")
        faults += sum(counts[outcome] for outcome in FAULTS)
    return 1 if faults else 0


def kind_of(name: str) -> Kind:
    """The kind that a file of tools/fuzzing defines."""
    found: Kind = importlib.import_module(f"tools.fuzzing.{name}").KIND
    return found


def run(name: str, seed: int, cases: int, first: int = 0) -> list[Case]:
    """Examine cases in child processes; one that dies or hangs is replaced."""
    done: list[Case] = []
    number = first
    while number < first + cases:
        with tempfile.TemporaryDirectory() as folder:
            words = ["--seed", str(seed), "--child", str(number), str(first + cases), folder]
            command = [sys.executable, "-m", "tools.fuzz_inputs", name, *words]
            root = Path(__file__).resolve().parents[1]
            quiet = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root, env=quiet
            ) as process:
                assert process.stdout is not None
                assert process.stderr is not None
                waited, begun = START_SECONDS, False
                while True:
                    ready, _, _ = select.select([process.stdout], [], [], waited)
                    line = process.stdout.readline() if ready else ""
                    if not line:
                        break
                    waited = 2 * CASE_SECONDS  # making a case takes time too
                    if line.startswith("ready"):
                        begun = True
                        continue
                    place, seconds, outcome, detail = line.rstrip("\n").split("\t", 3)
                    slow = float(seconds) > CASE_SECONDS
                    done.append(Case(int(place), float(seconds), "hang" if slow else outcome, detail))
                    number = int(place) + 1
                if number >= first + cases:
                    process.kill()
                    break
                hung = begun and process.poll() is None
                process.kill()
                words_left = (process.stderr.read() or "").strip().splitlines()
                process.wait()
                if not begun:
                    raise SystemExit(f"{name}: the child never began: {chr(10).join(words_left)}")
                why = "no answer" if hung else f"exit status {process.returncode}: {(words_left or [''])[-1][:200]}"
                done.append(Case(number, CASE_SECONDS, "hang" if hung else "crash", why))
                number += 1
    return done


def child(name: str, seed: int, first: int, last: int, folder: Path) -> None:
    """Examine cases one after the other; one line each."""
    told = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    kind = kind_of(name)
    samples, place = kind.prepare(_made(folder / "samples")), _made(folder / "case")
    with contextlib.suppress(Exception), contextlib.redirect_stderr(io.StringIO()):
        kind.examine(samples, _generator(name, seed, -1), place)  # imports are not part of the first case
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES,) * 2)
    print("ready", file=told, flush=True)
    for number in range(first, last):
        start = time.perf_counter()
        outcome, detail = _outcome(kind, samples, _generator(name, seed, number), place)
        line = f"{number}\t{time.perf_counter() - start:.4f}\t{outcome}\t{detail}"
        print(line.replace("\n", " "), file=told, flush=True)


def _outcome(kind: Kind, samples: object, rng: random.Random, place: Path) -> tuple[str, str]:
    try:
        kind.examine(samples, rng, place)
    except UserError as error:
        return ("refused", "") if error.what and error.fix else ("error", f"nothing said: {error!r}")
    except MemoryError as error:
        return "error", f"MemoryError: {error} at {_where(error)}"
    except Exception as error:
        return "error", f"{type(error).__name__}: {str(error)[:200]} at {_where(error)}"
    return "taken", ""


def _where(error: BaseException) -> str:
    """The last place of ours in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame for frame in frames if "/site-packages/" not in frame.filename and "/lib/python" not in frame.filename
    ]
    last = (ours or frames)[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno}"


def _generator(name: str, seed: int, number: int) -> random.Random:
    return random.Random(f"{name}:{seed}:{number}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if __name__ == "__main__":
    sys.exit(main())
