"""What one inference takes from the battery: the power that the device draws while it works, times the latency.

Microcontrollers draw nearly the same for every network: clock times the part's microwatts per MHz, which its target
file states with a source. Integrated GPUs draw base + slope * processors * clock, fitted by tools/fit_energy.py on
published power of boards. For other devices no published power of single inferences was there to fit on, and nothing is
guessed.

The power is the whole board's or part's while the network runs; what it draws between two inferences is not in it.
"""

import math
import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # JetPack 6 has Python 3.10
    import tomli as tomllib

from profiles.cost import Cost
from profiles.target import Target

CONSTANTS = Path(__file__).with_suffix(".toml")
JETSONS = ("5.3", "6.2", "7.2", "8.7", "10.1", "11.0")  # compute capabilities of integrated GPUs
FITTED = ("7.2", "8.7")  # those that published power was there for
STRETCH = 1.5  # on both ends of the interval of a generation without a row


@dataclass(frozen=True)
class Power:
    """What a device draws while a network runs."""

    watts: float
    interval: tuple[float, float]  # factors on it that contain 90 % of unseen cases
    origin: str


@dataclass(frozen=True)
class Energy:
    """Of one run of the whole batch."""

    mj: float
    interval_mj: tuple[float, float]  # 90 % of unseen cases inside
    origin: str


def estimate(target: Target, latency_ms: float, interval_ms: tuple[float, float]) -> Energy | None:
    """Power times latency; None where no source says what the device draws (`unknown` says why).

    Args:
        latency_ms: > 0, of the batch.
        interval_ms: its interval; low <= latency_ms <= high. Errors of power and latency are taken to be independent,
            so their logarithms add as squares.
    """
    drawn = power(target)
    if drawn is None or latency_ms <= 0:  # a graph in which nothing runs
        return None
    low, high = (
        math.exp(sign * math.hypot(math.log(edge / latency_ms), math.log(factor)))
        for sign, edge, factor in zip((-1, 1), interval_ms, drawn.interval, strict=True)
    )
    mj = drawn.watts * latency_ms
    return Energy(mj, (mj * low, mj * high), drawn.origin)


def added(cost: Cost, target: Target) -> Cost:
    """A cost with the energy that its latency takes on `target`, and a note that says how it is known.

    A cost that has an energy, because it was measured, stays as it is.
    """
    if cost.energy_mj is not None:
        return cost
    taken = estimate(target, cost.latency_ms, cost.interval_ms)
    if taken is None:
        return replace(cost, notes=(*cost.notes, f"energy: {unknown(target)}"))
    return replace(
        cost,
        energy_mj=taken.mj,
        energy_interval_mj=taken.interval_mj,
        notes=(*cost.notes, f"energy, from power times latency: {taken.origin}"),
    )


def power(target: Target) -> Power | None:
    """What the device draws while it works; None where no source says it."""
    hardware = target.hardware
    if hardware.uw_per_mhz:
        table = _fitted()["microcontroller"]
        source = target.sources.get("uw_per_mhz", f"uw_per_mhz in the file of {target.name}")
        return Power(hardware.uw_per_mhz * hardware.clock_mhz * 1e-6, _pair(table), f"{source}; {table['origin']}")
    if target.family == "nvidia-gpu" and target.compute_capability in JETSONS:
        table = _fitted()["jetson"]
        watts = table["base_w"] + table["per_sm_ghz_w"] * hardware.units * hardware.clock_mhz / 1e3
        low, high = _pair(table)
        if target.compute_capability in FITTED:
            return Power(watts, (low, high), table["origin"])
        origin = f"{table['origin']}; none of them of this generation, so the interval is wider"
        return Power(watts, (low / STRETCH, high * STRETCH), origin)
    return None


def unknown(target: Target) -> str:
    """Why there is no energy figure, and what would give one; only where `power` is None."""
    if target.family == "cortex-m":
        return f"no published energy of {target.device} was found; uw_per_mhz in its target file would give one"
    return f"no published power of single inferences on {target.device} was there to fit on"


def _pair(table: dict[str, Any]) -> tuple[float, float]:
    low, high = table["interval"]
    return float(low), float(high)


@lru_cache(maxsize=1)
def _fitted() -> dict[str, dict[str, Any]]:
    return tomllib.loads(CONSTANTS.read_text(encoding="utf-8"))
