"""What the system says about a machine before and after a measurement, and what that means for the measurement.

Every figure comes from /proc and /sys and needs no privileges; what a system does not offer is left out, never guessed.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from profiles import system_files
from profiles.cores import beside, busy_ticks, usable

LEAST_S = 0.2  # the kernel counts by whole ticks, so over a shorter time its counters say little
OTHER_WORK = 0.05  # share of the cores' time taken by other processes that is worth a word
STOLEN = 0.01  # share of the time that the host of a virtual machine kept for itself
CLOCK_CHANGE = 0.05  # relative change of a core's clock
HOT_C = 90.0  # degrees Celsius from which processors commonly slow down
_NOT_THROTTLING = ("fan", "lcd", "tcc offset")  # cooling devices whose state says nothing about the clocks


@dataclass(frozen=True)
class State:
    """One moment. Counters count since boot; None, or empty, is what the system does not tell."""

    seconds: float  # of a clock that only rises
    own_seconds: float  # processor time that this process has used
    cores: tuple[int, ...]
    busy_s: float | None = None  # time that `cores` worked, for any process
    beside_s: float | None = None  # time that the other halves of their physical cores worked; None without any
    stolen_s: float | None = None  # time that a virtual machine's host kept from all cores
    load: float | None = None  # runnable processes, mean of the last minute
    quota_stops: int | None = None  # periods in which the control group was stopped for using up its share
    overheated: int | None = None  # times that a core was slowed down because of heat
    over_current: int | None = None  # times that the board slowed down because it drew too much
    governor: str = ""
    clock_mhz: float | None = None  # mean of `cores` now
    highest_mhz: float | None = None  # that they may reach
    hottest_c: float | None = None
    cooling: tuple[str, ...] = field(default=())  # devices that hold the clocks down now


def read(cores: Sequence[int] = (), root: Path = Path("/")) -> State:
    """The state now.

    Args:
        cores: logical cores that the measurement runs on; empty means all that this thread may use.
        root: where /proc and /sys are.
    """
    on = tuple(cores) or usable()
    others = beside(cores, root) if cores else ()
    tick = 1 / os.sysconf("SC_CLK_TCK")
    busy = busy_ticks(root)
    clocks = [system_files.number(root / _cpu(core) / "cpufreq/scaling_cur_freq") for core in on]
    limits = [system_files.number(root / _cpu(core) / "cpufreq/scaling_max_freq") for core in on]
    governors = {system_files.text(root / _cpu(core) / "cpufreq/scaling_governor") for core in on} - {""}
    stat = system_files.text(root / "proc/stat").splitlines()[:1]
    total = stat[0].split() if stat else []
    loads = system_files.text(root / "proc/loadavg").split()
    zones = [system_files.number(path / "temp") for path in sorted((root / "sys/class/thermal").glob("thermal_zone*"))]
    degrees = [zone / 1000 for zone in zones if zone is not None and 0 < zone < 150_000]
    return State(
        seconds=time.perf_counter(),
        own_seconds=time.process_time(),
        cores=on,
        busy_s=sum(busy[core] for core in on) * tick if on and all(core in busy for core in on) else None,
        beside_s=sum(busy[core] for core in others) * tick if others and all(core in busy for core in others) else None,
        stolen_s=int(total[8]) * tick if len(total) > 8 else None,
        load=float(loads[0]) if loads else None,
        quota_stops=_quota_stops(root),
        overheated=_sum(root, "sys/devices/system/cpu/cpu*/thermal_throttle/*_throttle_count"),
        over_current=_sum(root, "sys/class/hwmon/hwmon*/oc*_event_cnt"),
        governor=" and ".join(sorted(governors)),
        clock_mhz=_mean(clocks),
        highest_mhz=_mean(limits),
        hottest_c=max(degrees, default=None),
        cooling=_cooling(root),
    )


def setting(state: State) -> str:
    """The clock settings in words; "" where the system does not tell them."""
    parts = []
    if state.governor:
        parts.append(f"governor {state.governor}")
    if state.clock_mhz is not None:
        limit = f" of at most {state.highest_mhz:.0f}" if state.highest_mhz else ""
        parts.append(f"clock {state.clock_mhz:.0f}{limit} MHz")
    return ", ".join(parts)


def disturbances(before: State, after: State) -> tuple[str, ...]:
    """What happened between two moments that a measurement should say: sentences, none on a quiet machine."""
    wall = max(after.seconds - before.seconds, 1e-9)
    found = []
    stolen = _rise(before.stolen_s, after.stolen_s) / (wall * max(len(usable()), 1))
    if stolen > STOLEN:
        found.append(f"the host of this virtual machine kept {stolen:.0%} of the processor time for itself")
    if (other := other_work(before, after)) > OTHER_WORK:
        found.append(f"other processes took {other:.0%} of the time of the cores it ran on")
    halves = _rise(before.beside_s, after.beside_s) / (wall * max(len(after.cores), 1))
    if halves > OTHER_WORK and wall > LEAST_S:
        found.append(f"the other halves of its physical cores were busy for {min(halves, 1):.0%} of the time")
    if stops := _rise(before.quota_stops, after.quota_stops):
        found.append(f"the container's processor quota stopped it {stops:.0f} times")
    if heat := _rise(before.overheated, after.overheated):
        found.append(f"cores were slowed down {heat:.0f} times because of heat")
    if current := _rise(before.over_current, after.over_current):
        found.append(f"the board slowed down {current:.0f} times because it drew too much current")
    if held := sorted({*before.cooling, *after.cooling}):
        found.append(f"cooling held the clocks down: {', '.join(held)}")
    if before.clock_mhz and after.clock_mhz and abs(after.clock_mhz / before.clock_mhz - 1) > CLOCK_CHANGE:
        found.append(f"the clock went from {before.clock_mhz:.0f} to {after.clock_mhz:.0f} MHz meanwhile")
    if after.hottest_c is not None and after.hottest_c >= HOT_C:
        found.append(f"the hottest sensor read {after.hottest_c:.0f} degrees Celsius")
    if after.load is not None and len(usable()) and after.load > len(usable()) + 0.5:
        found.append(f"the load average was {after.load:.1f} on {len(usable())} cores")
    return tuple(found)


def other_work(before: State, after: State) -> float:
    """The share of the cores' time that other processes took between two moments, 0 to 1; 0 where nothing is known."""
    wall = after.seconds - before.seconds
    if after.busy_s is None or before.busy_s is None or before.cores != after.cores or not after.cores:
        return 0.0
    if wall < LEAST_S:
        return 0.0
    own = after.own_seconds - before.own_seconds
    return min(max((after.busy_s - before.busy_s - own) / (wall * len(after.cores)), 0.0), 1.0)


def _rise(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else max(after - before, 0.0)


def _quota_stops(root: Path) -> int | None:
    """`nr_throttled` of this process's control group and those around it (version 2, or version 1)."""
    stops: list[int] = []
    for line in system_files.text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        folder = base / path.lstrip("/")
        for candidate in (folder, *folder.parents):
            if base not in (candidate, *candidate.parents):
                break
            for entry in system_files.text(candidate / "cpu.stat").splitlines():
                key, _, value = entry.partition(" ")
                if key == "nr_throttled" and value.strip().isdigit():
                    stops.append(int(value))
    return max(stops, default=None)


def _cooling(root: Path) -> tuple[str, ...]:
    found = set()
    for device in (root / "sys/class/thermal").glob("cooling_device*"):
        name = system_files.text(device / "type")
        passive = name and not any(word in name.lower() for word in _NOT_THROTTLING)
        # Idle injection reports -1 where it is switched off.
        if passive and (system_files.number(device / "cur_state") or 0) > 0:
            found.add(name)
    return tuple(sorted(found))


def _sum(root: Path, pattern: str) -> int | None:
    values = [value for path in root.glob(pattern) if (value := system_files.number(path)) is not None]
    return int(sum(values)) if values else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value / 1000 for value in values if value is not None]  # the kernel counts in kHz
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _cpu(core: int) -> str:
    return f"sys/devices/system/cpu/cpu{core}"
