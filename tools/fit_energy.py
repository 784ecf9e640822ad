"""Fit what a device draws while a network runs to published measurements, and write profiles/energy.toml.

    python tools/fit_energy.py published_latency.csv hardware.csv > profiles/energy.toml

Microcontrollers: energy per inference over its latency is a power, and divided by the clock nearly a constant of a part
at one supply voltage. The medians per part are printed as comments: they stand in the targets' files as `uw_per_mhz`
with their source, and this file holds only how far such a figure is off on another submission.

Integrated GPUs: watts = base + per_sm_ghz * processors * clock, over rows of one GPU without its other accelerators.

Intervals are split-conformal: order statistics of errors of rows that were left out contain 90 % of unseen ones
(V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005, section 4.1).
"""

import argparse
import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Row = Mapping[str, str]
SHARE = 0.9  # of unseen cases inside the interval
PROCESSORS = {  # of hardware.csv: the board of the submissions has all of its processors on, whatever its memory
    "Jetson AGX Orin 32GB": "Jetson AGX Orin 64GB",
    "Jetson Orin Nano Super 8GB": "Jetson Orin Nano 8GB",
}
OTHER_ACCELERATORS = ("Offline", "MultiStream")  # these scenarios run GPU and DLAs together


@dataclass(frozen=True)
class Draw:
    """One measurement of a board with one GPU."""

    device: str
    processors_ghz: float  # processors that are on, times their clock
    watts: float


def main() -> None:
    """Read the tables, print the constants."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("published", type=Path, help="published_latency.csv")
    command.add_argument("hardware", type=Path, help="hardware.csv")
    options = command.parse_args()
    rows = _read(options.published)
    parts = microcontrollers(rows)
    print("# Written by tools/fit_energy.py; what the constants mean is in energy.py.")
    print("# interval: factors on the drawn power that contain 90 % of unseen cases.")
    print("# Median microwatts per MHz, which the targets' files carry as uw_per_mhz:")
    for (part, clock), configurations in sorted(parts.items()):
        figures = [figure for values in configurations.values() for figure in values]
        print(
            f"#   {part} at {clock:g} MHz: {part_median(configurations):.0f}, {len(figures)} rows of "
            f"{len(configurations)} submissions, {min(figures):.0f} to {max(figures):.0f}"
        )
    errors = [error for configurations in parts.values() for error in left_out(configurations)]
    low, high = conformal(errors)
    print(f"""
[microcontroller]
origin = "published MLPerf Tiny energies: {len(errors)} rows of {len(parts)} parts and clocks, each submission left \
out once: median error {100 * statistics.median(map(math.expm1, map(abs, errors))):.0f}%; \
{100 * _covered(errors, low, high):.0f}% of the rows inside"
interval = [{low:.3f}, {high:.3f}]""")
    draws = jetsons(rows, _read(options.hardware))
    base, slope = fit(draws)
    outside = [error for device in sorted({draw.device for draw in draws}) for error in without(device, draws)]
    low, high = conformal(outside)
    print(f"""
[jetson]
origin = "published power of boards under TensorRT, batch 1, GPU alone: {len(draws)} rows of \
{len({draw.device for draw in draws})} devices (MLPerf Power at the wall, module sensors of the Orin Nano), each \
device left out once: median error {100 * statistics.median(map(math.expm1, map(abs, outside))):.0f}%; \
{100 * _covered(outside, low, high):.0f}% of the rows inside"
base_w = {base:.4g}
per_sm_ghz_w = {slope:.4g}
interval = [{low:.3f}, {high:.3f}]""")


def microcontrollers(rows: Iterable[Row]) -> dict[tuple[str, float], dict[str, list[float]]]:
    """(part, MHz) -> submission with its supply -> microwatts per MHz of its rows."""
    found: dict[tuple[str, float], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["energy_uj"] and row["core_clock_mhz"]:
            clock = float(row["core_clock_mhz"])
            milliwatts = float(row["energy_uj"]) / float(row["ms_per_item"])
            submission = " / ".join((row["runtime_version"], row["runtime"], row["power_mode"]))
            found[row["device"], clock][submission].append(1e3 * milliwatts / clock)
    return {key: dict(value) for key, value in found.items()}


def part_median(configurations: Mapping[str, Sequence[float]]) -> float:
    """Every submission counts once, however many networks it ran."""
    return statistics.median(statistics.median(values) for values in configurations.values())


def left_out(configurations: Mapping[str, Sequence[float]]) -> list[float]:
    """Log errors of rows against the part's other submissions; against its other rows where there is one submission."""
    if len(configurations) == 1:
        (values,) = configurations.values()
        return [
            math.log(value / statistics.median([*values[:index], *values[index + 1 :]]))
            for index, value in enumerate(values)
            if len(values) > 1
        ]
    errors = []
    for name, values in configurations.items():
        known = part_median({other: rest for other, rest in configurations.items() if other != name})
        errors += [math.log(value / known) for value in values]
    return errors


def jetsons(rows: Iterable[Row], hardware: Iterable[Row]) -> list[Draw]:
    """Rows with power and GPU clock in which the GPU works alone."""
    processors: dict[str, int] = {}  # of the mode with all of them on
    for row in hardware:
        if row["class"] == "jetson":
            processors[row["name"]] = max(processors.get(row["name"], 0), int(row["sms_or_cores"].split()[0]))
    found = []
    for row in rows:
        runtime = row["runtime"]
        if not (row["avg_power_w"] and row["core_clock_mhz"] and runtime.startswith("TensorRT")):
            continue
        if any(scenario in runtime for scenario in OTHER_ACCELERATORS):
            continue
        device = row["device"]
        units = processors[PROCESSORS.get(device, device)]
        watts = float(row["avg_power_w"])
        found.append(Draw(PROCESSORS.get(device, device), units * float(row["core_clock_mhz"]) / 1e3, watts))
    return found


def fit(draws: Sequence[Draw]) -> tuple[float, float]:
    """Base and slope of least mean absolute log error; every device counts the same. The base is 1 to 10 W."""
    count: dict[str, int] = defaultdict(int)
    for draw in draws:
        count[draw.device] += 1

    def loss(base: float, slope: float) -> float:
        return sum(
            abs(math.log(draw.watts / (base + slope * draw.processors_ghz))) / count[draw.device] for draw in draws
        )

    grid = [(base / 10, slope / 50) for base in range(10, 101, 5) for slope in range(10, 201)]
    return min(grid, key=lambda pair: loss(*pair))


def without(device: str, draws: Sequence[Draw]) -> list[float]:
    """Log errors on one device of the constants that the others give."""
    base, slope = fit([draw for draw in draws if draw.device != device])
    return [math.log(draw.watts / (base + slope * draw.processors_ghz)) for draw in draws if draw.device == device]


def conformal(errors: Sequence[float]) -> tuple[float, float]:
    """Factors between which 90 % of unseen cases are, half of the rest on each side."""
    ordered = sorted(errors)
    outside = math.floor((1 - SHARE) / 2 * (len(ordered) + 1) + 1e-9)  # 0: too few rows, the widest seen
    cut = max(outside - 1, 0)
    return math.exp(ordered[cut]), math.exp(ordered[len(ordered) - 1 - cut])


def _covered(errors: Sequence[float], low: float, high: float) -> float:
    return statistics.fmean(low <= math.exp(error) <= high for error in errors)


def _read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


if __name__ == "__main__":
    main()
