"""Kill a whole pipeline with SIGKILL at random moments and inside its file writes, until it ends, again and again.

    .venv/bin/python -m tools.kill_anywhere [--kills 300] [--out FOLDER] [--seed 0] [--at-once 2]

Half of the kills come at a random moment of the run. The others come inside the writing of a file: with half of its
bytes written, before or after they are on the disk, before or after the file has its final name. After each kill, every
file under a final name must be whole, and the next command must not repeat a finished stage. A run that has ended must
hold the same files with the same hashes as an undisturbed one, and nothing else. Prints one line per run, then kills by
stage and by place. Exit status 1 where a promise was broken.
"""

import argparse
import collections
import concurrent.futures
import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from compress.integrity import examine
from compress.manifest import read_manifest
from compress.records import RECORD, STAGES, folder_name, intact, read_record
from compress.store import BEGUN
from profiles.atomic import TEMPORARY_MARK, sha256

PROJECT = """
recipe = "default"
target = "jetson"
[teacher]
epochs = 2
[budget]
accuracy_drop = 0.9
[select]
spaces = ["int8_conv"]
candidates = 8
training = 0.7
finalists = 1
settings = { share = 0.34 }
[distill]
epochs = 2
learning_rate = 8e-3
[quantize]
epochs = 1
[verify]
within_one_step = 0.9 # what this raw network computes is not the point
accuracy_change = 0.1
top1_agreement = 0.8
"""
# Hold times of measurements and of the run itself; everything else must be the same to the bit.
TIMED = ("1_select/search.json", "5_build/check_sm86.build.log", "6_verify/", "7_report/", "report.")
CACHES = ("evaluations.", ".lock")  # kept beside the artifacts: parsed after a kill, not compared
IMPORTED = ("compress.cli.main", "compress.pipeline", "compress.spaces.derived", "sklearn.datasets", "onnxscript")
POINTS = ("half", "before", "after")


@dataclass(frozen=True)
class Place:
    """Where a process kills itself: at its n-th call of fsync or replace, and how."""

    call: int
    point: str


@dataclass
class Found:
    """What one run of kills showed."""

    kills: list[tuple[str, str]] = field(default_factory=list)  # stage, place
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/kill_anywhere"))
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=1, help="runs that are killed at the same time")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing")
    options = parser.parse_args()
    found = kill_until(
        options.out, options.kills, options.seed, options.at_once, say=lambda line: print(line, flush=True)
    )
    for title, column in (("stage", 0), ("place", 1)):
        counts = collections.Counter(kill[column] for kill in found.kills)
        print(f"by {title}: " + ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    for fault in found.faults:
        print(f"FAULT: {fault}")
    print(f"{len(found.kills)} kills:", "FAILED" if found.faults else "same artifacts, nothing repeated, nothing left")
    return 1 if found.faults else 0


def kill_until(
    out: Path, kills: int, seed: int, at_once: int = 1, say: Callable[[str], object] = lambda line: None
) -> Found:
    """Kill runs below `out` until there were `kills`; each ends and is compared with an undisturbed one."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    project, calm = out / "project.toml", out / "undisturbed"
    project.write_text(PROJECT)
    os.environ["COMPRESS_CACHE"] = str(out / "cache")
    seconds, calls = undisturbed(project, calm, out / "calls")  # trains the teacher that all share, too
    shutil.rmtree(calm)
    seconds, calls = undisturbed(project, calm, out / "calls")
    say(f"undisturbed: {seconds:.1f} s, {calls} calls of fsync and replace, {len(read_manifest(calm))} artifacts")
    whole, number = Found(), 0
    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        while len(whole.kills) < kills:
            left = -(-(kills - len(whole.kills)) // at_once)
            jobs = []
            for _ in range(at_once):
                rng = random.Random(seed * 1_000_003 + number)
                place = out / f"killed-{number}"
                jobs.append((number, pool.submit(one_run, project, place, calm, seconds, calls, left, rng)))
                number += 1
            for name, job in jobs:
                found = job.result()
                whole.kills += found.kills
                whole.faults += [f"run {name}: {fault}" for fault in found.faults]
                ended = "as undisturbed" if not found.faults else "; ".join(found.faults)
                say(f"run {name:3d}: {len(found.kills)} kills, {len(whole.kills)} in all; {ended}")
    return whole


def undisturbed(project: Path, out: Path, calls: Path) -> tuple[float, int]:
    """Seconds and calls of a run that nobody kills."""
    start = time.monotonic()
    process = started(project, out, None, calls)
    process.join()
    if process.exitcode != 0:
        raise SystemExit(f"the undisturbed run ended with {process.exitcode}; see {out}.log")
    return time.monotonic() - start, int(calls.read_text())


def one_run(project: Path, out: Path, calm: Path, seconds: float, calls: int, kills: int, rng: random.Random) -> Found:
    """Kill, look, go on, until the run ends by itself; then compare."""
    found, start = Found(), time.monotonic()
    while True:
        place, moment = None, None
        if len(found.kills) < kills:
            if rng.random() < 0.5:
                moment = rng.uniform(0.0, seconds)
            else:
                place = Place(rng.randint(1, calls), rng.choice(POINTS))
        before = {stage: stamp(out, stage) for stage in STAGES if read_record(out / folder_name(stage)) is not None}
        process = started(project, out, place, None)
        process.join(moment)
        if moment is not None and process.exitcode is None:
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        repeated = [stage for stage, known in before.items() if stamp(out, stage) != known]
        if repeated:
            found.faults.append(f"finished stages repeated: {', '.join(repeated)}")
        if process.exitcode == 0:
            break
        if process.exitcode != -signal.SIGKILL:
            found.faults.append(f"ended with {process.exitcode}: {last_line(out)}")
            break
        found.kills.append((stage_in_work(out), place.point + " a write" if place else "any moment"))
        found.faults += broken_files(out, calm)
    found.faults += differences(calm, out)
    if not found.faults:
        shutil.rmtree(out)
        Path(f"{out}.log").unlink()
    found.seconds = time.monotonic() - start
    return found


def started(project: Path, out: Path, place: Place | None, calls: Path | None) -> ForkServerProcess:
    """The pipeline in a process of its own, which may kill itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    process = context.Process(target=pipeline, args=(project, out, place, calls))
    process.start()
    return process


def pipeline(project: Path, out: Path, place: Place | None, calls: Path | None) -> None:
    """What `compress pipeline PROJECT --out OUT` does."""
    import torch

    from compress.cli.main import main as compress

    torch.set_num_threads(1)
    log = os.open(f"{out}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    counted = watch_writes(place)
    status = compress(["pipeline", str(project), "--out", str(out), "--quiet"])
    if calls is not None:
        calls.write_text(str(counted()))
    sys.exit(status)


def watch_writes(place: Place | None) -> Callable[[], int]:
    """Count fsync and replace of this process, and die at `place`; gives how many there were."""
    count = 0
    fsync, replace = os.fsync, os.replace

    def due(point: str) -> bool:
        return place is not None and count == place.call and point == place.point

    def killing_fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if due("half"):
            if stat.S_ISREG(os.fstat(handle).st_mode):
                name = os.readlink(f"/proc/self/fd/{handle}")
                os.truncate(name, os.path.getsize(name) // 2)
            die()
        if due("before"):
            die()
        fsync(handle)
        if due("after"):
            die()

    def killing_replace(source: Any, goal: Any) -> None:
        nonlocal count
        count += 1
        if due("half") or due("before"):
            die()
        replace(source, goal)
        if due("after"):
            die()

    os.fsync, os.replace = killing_fsync, killing_replace  # type: ignore[assignment]
    return lambda: count


def die() -> None:
    """As if somebody had pulled the plug of this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def stamp(run: Path, stage: str) -> tuple[int, int]:
    """Changes whenever the stage's record is written again."""
    try:
        found = (run / folder_name(stage) / RECORD).stat()
    except FileNotFoundError:
        return 0, 0
    return found.st_ino, found.st_mtime_ns


def stage_in_work(run: Path) -> str:
    """The stage that a kill interrupted."""
    for stage in STAGES:
        if (run / folder_name(stage) / BEGUN).exists():
            return stage
    return "between stages"


def broken_files(run: Path, calm: Path) -> list[str]:
    """Files under final names that are not whole."""
    faults = []
    for stage in STAGES:
        record = read_record(run / folder_name(stage))
        if record is not None and not intact(run / folder_name(stage), record):
            faults.append(f"after a kill {stage} is recorded and not intact")
    for path in sorted(run.rglob("*")) if run.exists() else ():
        name = path.relative_to(run).as_posix()
        if not path.is_file() or TEMPORARY_MARK in name:
            continue
        twin = calm / name
        settled = twin.is_file() and not name.startswith((*TIMED, *CACHES)) and path.suffix not in (".json", ".toml")
        if settled and sha256(path) != sha256(twin):
            faults.append(f"after a kill {name} has other bytes than in the undisturbed run")
        elif (why := unreadable(path)) is not None:
            faults.append(f"after a kill {name} cannot be read: {why}")
    return faults


def unreadable(path: Path) -> str | None:
    """Why a file cannot be opened as what its name says; None where it can."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                list(file.keys())
        elif path.suffix == ".pt":
            import torch

            torch.load(path, weights_only=True)
        elif path.suffix == ".sqlite":
            with sqlite3.connect(path) as base:
                told = base.execute("pragma integrity_check").fetchone()[0]
            if told != "ok":
                return str(told)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def differences(calm: Path, run: Path) -> list[str]:
    """How a run that has ended differs from the undisturbed one."""
    faults = [f"{one.path} {one.what}" for one in examine(run).damages]
    left, right = read_manifest(calm), read_manifest(run)
    for name in sorted(left.keys() | right.keys()):
        if name not in left or name not in right:
            faults.append(f"{name} is only in {'the undisturbed run' if name in left else 'this one'}")
        elif left[name].sha256 != right[name].sha256 and not name.startswith(TIMED):
            faults.append(f"{name} has another hash")
    names = [{path.relative_to(folder).as_posix() for path in folder.rglob("*")} for folder in (calm, run)]
    strays = [name for name in sorted(names[1] - names[0]) if not name.startswith(CACHES)]
    if strays:
        faults.append(f"left behind: {', '.join(strays)}")
    return faults


def last_line(out: Path) -> str:
    """Of what the run said."""
    lines = Path(f"{out}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


if __name__ == "__main__":
    sys.exit(main())
