"""Clocks, the reasons that hold them down, temperature and energy of an NVIDIA GPU, through its management library.

Jetsons have no such library, or one that answers little; `profiles.jetson` and `profiles.machine` read theirs.
"""

import ctypes
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from profiles import jetson, machine
from profiles.measure import Meter
from profiles.meters import LEAST_S, of_board
from profiles.runners import cuda_driver

_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_SM_CLOCK, _CELSIUS = 1, 0  # nvmlClockType_t, nvmlTemperatureSensors_t
# nvml.h, nvmlClocksEventReasons (throttle reasons before driver 535). Idling and clocks that a user set are none.
REASONS = {
    0x04: "the power limit",
    0x08: "the hardware (power or heat)",
    0x20: "heat",
    0x40: "heat, in hardware",
    0x80: "the power supply",
}


class Device:
    """One GPU's entry in the management library."""

    def __init__(self, library: Any, handle: Any) -> None:
        self._library = library
        self._handle = handle

    def clock_mhz(self) -> float | None:
        """Of the multiprocessors, now."""
        return self._number("nvmlDeviceGetClockInfo", ctypes.c_uint(), _SM_CLOCK)

    def highest_mhz(self) -> float | None:
        """That they may reach."""
        return self._number("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), _SM_CLOCK)

    def celsius(self) -> float | None:
        """Of the chip."""
        return self._number("nvmlDeviceGetTemperature", ctypes.c_uint(), _CELSIUS)

    def energy_mj(self) -> float | None:
        """Since the driver was loaded; Volta and later."""
        return self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())

    def held_by(self) -> tuple[str, ...]:
        """What holds the clocks below what was asked for, now."""
        mask = self._number("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        return tuple(name for bit, name in REASONS.items() if int(mask or 0) & bit)

    def _number(self, name: str, value: Any, *kind: int) -> float | None:
        call = getattr(self._library, name, None)  # a Jetson's library lacks some
        arguments = [ctypes.c_uint(item) for item in kind]
        if call is None or call(self._handle, *arguments, ctypes.byref(value)) != 0:
            return None
        return float(value.value)


def device() -> Device | None:
    """The GPU that the CUDA driver counts first; None where the library or the GPU does not answer."""
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError:
        return None
    return device_in(library, cuda_driver.bus_id())


def device_in(library: Any, bus_id: str) -> Device | None:
    """The GPU at a place on the bus: the library and the CUDA driver may count in different orders."""
    handle = ctypes.c_void_p()
    if not bus_id or library.nvmlInit_v2() != 0:
        return None
    if library.nvmlDeviceGetHandleByPciBusId_v2(bus_id.encode("ascii"), ctypes.byref(handle)) != 0:
        return None
    return Device(library, handle)


def state(gpu: Device | None) -> machine.State:
    """The machine's state with the GPU's clock, heat and limits in it."""
    found = machine.read()
    if gpu is None:
        now, most = jetson.gpu_clock_mhz()
        return replace(found, clock_mhz=now, highest_mhz=most)
    heats = [value for value in (found.hottest_c, gpu.celsius()) if value is not None]
    return replace(
        found,
        clock_mhz=gpu.clock_mhz(),
        highest_mhz=gpu.highest_mhz(),
        hottest_c=max(heats, default=None),
        cooling=(*found.cooling, *gpu.held_by()),
    )


def meter(gpu: Device | None) -> Meter | None:
    """What counts the GPU's energy: the GPU itself, or the sensors of a Jetson's board; None where nothing does."""
    if gpu is not None and gpu.energy_mj() is not None:
        return EnergyCounter(gpu)
    return of_board()


class EnergyCounter:
    """The millijoules that a GPU counts itself."""

    name = "the whole GPU board, its idling included, by its own counter"

    def __init__(self, gpu: Device, clock: Callable[[], float] = time.perf_counter) -> None:
        self._gpu = gpu
        self._clock = clock
        self._began = 0.0
        self._before: float | None = None

    def start(self) -> None:
        """Read the counter."""
        self._began = self._clock()
        self._before = self._gpu.energy_mj()

    def stop(self) -> float | None:
        """Joules since `start`."""
        after = self._gpu.energy_mj()
        if after is None or self._before is None or self._clock() - self._began < LEAST_S:
            return None
        return (after - self._before) / 1e3 if after > self._before else None
