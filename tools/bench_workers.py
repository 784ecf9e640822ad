"""How many trials a minute workers do, how large the driver grows, how fast the file of evaluations is.

    .venv/bin/python -m tools.bench_workers [--candidates 100000] [--trials 60] [--only rates|memory|commits]

Rates: trials that mostly wait (0.3 s asleep, as for a GPU or another machine) and trials that compute (0.3 s of one
core), for 1, 2 and 4 workers, as processes and on a Ray cluster of this machine; startup is not counted. What computes
cannot be faster than the cores there are. Memory: the driver's resident size over many candidates that each give a
result, while every evaluation is remembered in the file. Commits: evaluations per second on the disk of --out.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from compress.contracts.workers import Call, Done, Task, Workers
from compress.evaluations import Evaluation, open_evaluations
from compress.workers.machine import cores
from compress.workers.never_twice import evaluate
from compress.workers.parse import parse

WAIT_S = COMPUTE_S = 0.3
COMMITS_S = 5.0


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench_workers"))
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--trials", type=int, default=60, help="per worker")
    parser.add_argument("--kinds", nargs="+", default=["serial", "processes", "ray"], help="of the driver's memory")
    parser.add_argument("--only", choices=["rates", "memory", "commits"])
    options = parser.parse_args()
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    if options.only in (None, "commits"):
        commits(options.out)
    if options.only in (None, "memory"):
        for kind in options.kinds:
            memory(kind, options.candidates)
    if options.only in (None, "rates"):
        rates(options.trials)
    return 0


def waits(number: int) -> dict[str, float]:
    """A trial that computes nothing."""
    time.sleep(WAIT_S)
    return {"score": float(number)}


def computes(number: int) -> dict[str, float]:
    """A trial that takes one core for `COMPUTE_S` CPU seconds."""
    end = time.process_time() + COMPUTE_S
    while time.process_time() < end:
        pass
    return {"score": float(number)}


def answers(number: int) -> dict[str, object]:
    """A result of usual size, at once."""
    return {"score": float(number), "curve": [0.1] * 40, "plan": {"widths": [16, 32, 48], "depths": [1, 2, 1]}}


def opened(kind: str, count: int) -> Workers:
    """Workers by their name, with `count` places; Ray's are of a cluster that is started here."""
    if kind != "ray":
        return parse(f"{kind}:{count}")(None)
    from compress.workers.on_ray import ENVIRONMENT, STORE_BYTES, OnRay

    os.environ.update(ENVIRONMENT)
    import ray

    ray.init(num_cpus=count, include_dashboard=False, object_store_memory=STORE_BYTES, log_to_driver=False)
    return OnRay()


def ended(kind: str) -> None:
    """Stop the cluster that `opened` started."""
    if kind == "ray":
        import ray

        ray.shutdown()


def rates(trials: int) -> None:
    """Trials per minute by kind, trial and number of workers."""
    print(f"trials per minute, {cores()} cores; load of others {os.getloadavg()[0]:.1f}")
    for kind in ("processes", "ray"):
        for name in ("waits", "computes"):
            found: list[float] = []
            for count in (1, 2, 4):
                with opened(kind, count) as workers:
                    warm = [
                        Task(f"warm{n}", Call("tools.bench_workers:waits", {"number": n})) for n in range(2 * count)
                    ]
                    for _ in workers.stream(warm):
                        pass
                    start = time.monotonic()
                    tasks = (
                        Task(f"{n}", Call(f"tools.bench_workers:{name}", {"number": n})) for n in range(trials * count)
                    )
                    done = sum(isinstance(result, Done) for result in workers.stream(tasks))
                    found.append(60 * done / (time.monotonic() - start))
                ended(kind)
            shown = "  ".join(f"{count}: {rate:6.0f}" for count, rate in zip((1, 2, 4), found, strict=True))
            print(f"{kind:<10} {name:<9} {shown}   (4 to 1: {found[2] / found[0]:.2f})", flush=True)


def memory(kind: str, candidates: int) -> None:
    """Resident size of the driver while it works through `candidates`, remembered in a file."""
    base = Path("/dev/shm") if Path("/dev/shm").is_dir() else Path()
    path = base / f"bench_workers-{os.getpid()}.db"  # in memory: the disk is measured by `commits`
    tasks: Iterator[Task] = (
        Task(f"k{n:064d}", Call("tools.bench_workers:answers", {"number": n})) for n in range(candidates)
    )
    marks = {max(1, candidates * percent // 100): percent for percent in (1, 10, 50, 100)}
    own, shown, began = psutil.Process(), [], time.process_time()
    workers = parse("serial")(None) if kind == "serial" else opened(kind, 2)
    try:
        with workers, open_evaluations(path) as evaluations:
            for number, _ in enumerate(evaluate(workers, evaluations, tasks, read), 1):
                if number in marks:
                    shown.append(f"{marks[number]} %: {own.memory_info().rss / 2**20:.1f} MiB")
            size = path.stat().st_size / 2**20
    finally:
        path.unlink(missing_ok=True)
        ended(kind)
    cpu_us = 1e6 * (time.process_time() - began) / candidates
    print(f"memory of the driver, {kind}, {candidates} candidates: {', '.join(shown)}; ", end="")
    print(f"file {size:.0f} MiB; {cpu_us:.0f} us CPU of the driver per candidate", flush=True)


def commits(folder: Path) -> None:
    """Evaluations per second through claim and put on this disk, one at a time and many by one write."""
    found = Evaluation(0.5, 1.0, 0, 1.0, "a", "b", "here", extra=answers(0))
    for together in (1, 32):
        with open_evaluations(folder / f"commits-{together}.db") as evaluations:
            start, cpu, count = time.monotonic(), time.process_time(), 0
            while time.monotonic() - start < COMMITS_S:
                keys = [f"k{count + number}" for number in range(together)]
                evaluations.claim_all(keys)
                evaluations.put_all(dict.fromkeys(keys, found))
                count += together
            wall, cpu = time.monotonic() - start, time.process_time() - cpu
        print(f"evaluations claimed and put, {together} by one write: {count / wall:.0f} per s ", end="")
        print(f"({2 * count / together / wall:.0f} commits per s), {1e6 * cpu / count:.0f} us CPU each", flush=True)


def read(done: Done) -> Evaluation:
    """The evaluation of an answer."""
    return Evaluation(done.value["score"], 1.0, 0, 0.0, "a", "b", done.worker, extra=done.value)


if __name__ == "__main__":
    sys.exit(main())
