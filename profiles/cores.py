"""Which processor cores a measurement runs on, and keeping it there.

A thread that moves between cores starts over with cold caches, and one that shares a physical core with its sibling
gets about half of it. So a measurement is pinned to one logical core per thread, each on a physical core of its own,
the fastest kind that there is and, among equals, the one with the least other work.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from profiles import system_files

LOOK_S = 0.05  # how long other work is watched before a core is chosen
_CPUS = "sys/devices/system/cpu"


_before_pinning: list[set[int]] = []  # what this process might use before each `pinned` that lasts


def usable() -> tuple[int, ...]:
    """Logical cores that this process may run on where nothing is pinned, ascending; empty if the system is silent."""
    if sys.platform != "linux":
        return ()
    return tuple(sorted(_before_pinning[0] if _before_pinning else os.sched_getaffinity(0)))


def choose(
    threads: int,
    allowed: Sequence[int] | None = None,
    root: Path = Path("/"),
    pause: Callable[[float], object] = time.sleep,
) -> tuple[int, ...]:
    """The cores for `threads` threads, ascending.

    Args:
        threads: >= 1.
        allowed: logical cores to choose among; None takes those that this thread may use.
        root: where /proc and /sys are.
        pause: waits between two looks at the load of the cores.

    Returns:
        One core per thread, siblings only where there are more threads than physical cores. Empty where the system does
        not say which cores there are, or where there are fewer than `threads`: then nothing should be pinned.
    """
    cores = usable() if allowed is None else tuple(sorted(allowed))
    if len(cores) < threads:
        return ()
    before = busy_ticks(root)
    pause(LOOK_S)
    after = busy_ticks(root)
    speed = {core: _speed(core, root) for core in cores}
    # Interrupts are usually served by core 0: between equals a higher number is the quieter one.
    order = sorted(cores, key=lambda core: (-speed[core], after.get(core, 0) - before.get(core, 0), -core))
    first: list[int] = []
    rest: list[int] = []
    seen: set[str] = set()
    for core in order:
        siblings = _siblings(core, root)
        (rest if siblings in seen else first).append(core)
        seen.add(siblings)
    return tuple(sorted((*first, *rest)[:threads]))


@contextmanager
def pinned(cores: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Keep this thread, and every thread that starts meanwhile, on `cores`; gives the cores that it is on, () if none.

    Afterwards this thread and those that started meanwhile may run again where this one could before. Empty `cores`, or
    a system that refuses, leave everything as it is.
    """
    if sys.platform != "linux" or not cores:
        yield ()
        return
    before = os.sched_getaffinity(0)
    running = _threads()
    try:
        os.sched_setaffinity(0, cores)
    except OSError:
        yield ()
        return
    _before_pinning.append(before)
    try:
        yield tuple(sorted(cores))
    finally:
        _before_pinning.pop()
        os.sched_setaffinity(0, before)
        for thread in _threads() - running:
            try:
                os.sched_setaffinity(thread, before)
            except OSError:  # it has ended
                continue


def busy_ticks(root: Path = Path("/")) -> dict[int, int]:
    """Clock ticks that each logical core has worked since boot, for whatever process."""
    found = {}
    for line in system_files.text(root / "proc/stat").splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and len(fields) >= 5:
            user, nice, system, _, _, *rest = (int(field) for field in fields[:8])
            found[int(name[3:])] = user + nice + system + sum(rest)
    return found


def beside(cores: Sequence[int], root: Path = Path("/")) -> tuple[int, ...]:
    """Logical cores that share a physical core with one of `cores`, without these, ascending."""
    found: set[int] = set()
    for core in cores:
        for part in _siblings(core, root).split(","):
            first, _, last = part.partition("-")
            if first.isdigit():
                found |= set(range(int(first), int(last if last.isdigit() else first) + 1))
    return tuple(sorted(found - set(cores)))


def _siblings(core: int, root: Path) -> str:
    """The logical cores of one physical core, such as "0,4" or "0-1"."""
    return system_files.text(root / _CPUS / f"cpu{core}/topology/thread_siblings_list") or str(core)


def _speed(core: int, root: Path) -> int:
    """Larger is faster: the scheduler's capacity on ARM, the highest clock elsewhere; 0 where neither is told."""
    folder = root / _CPUS / f"cpu{core}"
    return int(
        system_files.text(folder / "cpu_capacity") or system_files.text(folder / "cpufreq/cpuinfo_max_freq") or 0
    )


def _threads() -> set[int]:
    try:
        return {int(name) for name in os.listdir("/proc/self/task")}
    except OSError:
        return set()
