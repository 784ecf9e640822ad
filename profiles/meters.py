"""Counters of energy: a processor package's, a GPU's, and the sensors on a Jetson's board.

They count everything that the counted part does, other work and idling included; `name` says what the part is.
"""

import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

from profiles import system_files
from profiles.measure import Meter

EVERY_S = 0.05  # between two looks at a sensor that tells power, not energy
LEAST_S = 0.2  # energy counters step; over a shorter time the steps are all one sees
_INPUT_RAIL = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "SYS5V", "VDD_GPU_SOC")  # of whole boards first


def of_processor(root: Path = Path("/")) -> Meter | None:
    """RAPL of every processor package; None where it is absent or only the administrator may read it."""
    packages = [
        path
        for path in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        if re.fullmatch(r"intel-rapl:\d+", path.name) and system_files.number(path / "energy_uj") is not None
    ]
    return Rapl(packages) if packages else None


def of_board(root: Path = Path("/")) -> Meter | None:
    """The INA3221 channel for the input of a Jetson module or board; None where there is none."""
    channels: dict[str, tuple[Path, Path]] = {}
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if system_files.text(folder / "name") == "ina3221":
            for label in sorted(folder.glob("in*_label")):
                channel = label.name.removeprefix("in").removesuffix("_label")
                channels[system_files.text(label)] = (folder / f"in{channel}_input", folder / f"curr{channel}_input")
    for name in _INPUT_RAIL:
        if name in channels and all(system_files.number(path) is not None for path in channels[name]):
            return Board(name, *channels[name])
    return None


class Rapl:
    """Microjoules that the packages count themselves, modulo the counter's range."""

    def __init__(self, packages: list[Path], clock: Callable[[], float] = time.perf_counter) -> None:
        self._packages = packages
        self._clock = clock
        self._began = 0.0
        self._before: list[float] = []
        many = f"{len(packages)} processor packages" if len(packages) > 1 else "the processor package"
        self.name = f"{many}, all work on it and its idling included, by RAPL"

    def start(self) -> None:
        """Read the counters."""
        self._began = self._clock()
        self._before = [system_files.number(path / "energy_uj") or 0.0 for path in self._packages]

    def stop(self) -> float | None:
        """Joules since `start`."""
        total = 0.0
        for path, before in zip(self._packages, self._before, strict=True):
            after = system_files.number(path / "energy_uj")
            if after is None:
                return None
            if after < before:
                after += system_files.number(path / "max_energy_range_uj") or 0.0
            total += max(after - before, 0.0)
        return total / 1e6 if total and self._clock() - self._began >= LEAST_S else None


class Board:
    """Voltage times current of one rail, looked at in turns and summed over time (trapezoids)."""

    def __init__(
        self,
        rail: str,
        millivolt: Path,
        milliampere: Path,
        every: float = EVERY_S,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.name = f"the board's rail {rail}, everything behind it included, by INA3221"
        self._paths = (millivolt, milliampere)
        self._every = every
        self._clock = clock
        self._seen: list[tuple[float, float]] = []
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._seen = []
        self._end.clear()
        self.look()
        self._thread = threading.Thread(target=self._watch, name="power", daemon=True)
        self._thread.start()

    def stop(self) -> float | None:
        """Joules since `start`."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self.look()
        if len(self._seen) < 2 or self._seen[-1][0] - self._seen[0][0] < LEAST_S:
            return None
        pairs = zip(self._seen, self._seen[1:], strict=False)
        return sum((there - here) * (first + second) / 2 for (here, first), (there, second) in pairs)

    def look(self) -> None:
        """Take one value."""
        volt, ampere = (system_files.number(path) for path in self._paths)
        if volt is not None and ampere is not None:
            self._seen.append((self._clock(), volt * ampere / 1e6))

    def _watch(self) -> None:
        while not self._end.wait(self._every):
            self.look()
