"""Kill a search with SIGKILL at random moments, go on with the same command, and compare with an undisturbed one.

    .venv/bin/python -m tools.kill_search [--out FOLDER] [--kills 20] [--workers serial]

What is in FOLDER is used: an undisturbed search runs once. One that ends before its moment is compared, and another is
begun, until there were as many kills. Prints one line
per kill, and at the end whether every search chose the same and had the same scores, whether a finished evaluation was
run again, and whether a worker outlived its driver. Exit status 1 where one of these is wrong.
"""

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from tools import small_search as search


def main() -> int:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/kill_search"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", default="serial")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of killing")
    options = parser.parse_args()
    project = search.recipe(options.out)
    prepared, calm = options.out / "prepared", options.out / "undisturbed"
    for folder in (prepared, calm):  # of other code, whose evaluations have other keys
        shutil.rmtree(folder, ignore_errors=True)
    search.finish(project, prepared, "serial", until="prepare")
    shutil.copytree(prepared, calm)
    search.finish(project, calm, options.workers)
    seconds = search.seconds(calm)
    expected, scores = search.choice(calm), search.scores(calm)
    print(f"undisturbed: {seconds:.1f} s, {len(scores)} evaluations, chose {expected}", flush=True)

    rng = random.Random(options.seed)
    kills, searches, good = 0, 0, True
    while kills < options.kills:
        out = options.out / f"killed-{searches}"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(prepared, out)
        searches += 1
        while True:
            moment = rng.uniform(0.0, seconds) if kills < options.kills else None
            line = one(search.command(project, out, options.workers), out, moment)
            if line is None:
                break
            kills += 1
            print(f"kill {kills:2d}: {line}", flush=True)
        counts, _ = search.evaluations(out)
        same = search.choice(out) == expected and search.scores(out) == scores
        good &= same and counts.again == 0 and counts.finished == len(scores)
        print(
            f"search {searches}: same choice and scores: {same}; {counts.finished} evaluations finished of "
            f"{counts.claimed} begun, {counts.taken_over} cut by a kill; {counts.again} finished ones run again",
            flush=True,
        )
    left = [process.pid for process in psutil.process_iter() if is_worker(process)]
    good &= not left
    print(f"workers that outlived their driver: {len(left)}")
    print(f"{kills} kills in {searches} searches:", "same choice, nothing repeated" if good else "FAILED")
    return 0 if good else 1


def one(command: list[str], out: Path, moment: float | None) -> str | None:
    """Run the command, and kill it `moment` seconds after its search has begun; None where it ended before."""
    before = search.begun(out)  # left by the attempt that was killed
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while moment is not None and process.poll() is None and search.begun(out) in (None, before):
        time.sleep(0.002)
    try:
        process.wait(timeout=moment)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished = len(search.scores(out)) if (out / search.FILE).exists() else 0
        return f"{moment:.2f} s after the search began, {finished} evaluations finished"
    if process.returncode != 0:
        raise SystemExit(f"the search ended with status {process.returncode}")
    return None


def is_worker(process: psutil.Process) -> bool:
    """Whether it is a worker whose driver is gone."""
    try:
        return "compress.workers.child" in process.cmdline() and process.ppid() == 1
    except psutil.Error:
        return False


if __name__ == "__main__":
    sys.exit(main())
