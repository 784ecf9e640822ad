"""Fit the latency model of GAP9-class chips to published results of MLPerf Tiny.

    python tools/fit_riscv_cluster.py published_latency.csv > profiles/latency/riscv_cluster.toml

Four networks and as many constants: the interval is what each network, left out, is missed by, widened by a quarter on
both sides because four errors say little of the largest.
"""

import argparse
import csv
import itertools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import mlperf_tiny
import numpy as np

import profiles
from profiles.fuse import Kernel, fuse
from profiles.latency.riscv_cluster import Constants, kernel_ms
from profiles.target import Hardware

DEVICE = "GreenWaves GAP9"
FLOAT_MAC = 4.0  # four shared floating-point units, one operation each
FEW = 1.25  # on both ends of the interval
CLOCK = Hardware(clock_mhz=1.0, units=1, tops={"int8": 1.0}, bandwidth_gbs=1.0)  # milliseconds are thousands of cycles
Layers = Mapping[str, Sequence[Kernel]]


def main() -> None:
    """Read the table, print the constants."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("published", type=Path, help="published_latency.csv")
    measured = published(command.parse_args().published)
    nets = networks()
    best = fit(measured, nets)
    errors = {}
    for name in measured:
        others = fit({other: cycles for other, cycles in measured.items() if other != name}, nets)
        errors[name] = measured[name] / cycles_of(nets[name], others)
    in_sample = statistics.fmean(
        abs(math.log(cycles / cycles_of(nets[name], best))) for name, cycles in measured.items()
    )
    print("# Written by tools/fit_riscv_cluster.py; what the constants mean is in riscv_cluster.py.")
    print(
        "# interval: factors on the predicted median: the errors of networks left out, widened because they are four."
    )
    for name, error in errors.items():
        print(f"#   {name}: {error:.2f} of the prediction when left out")
    worst = max(abs(math.log(error)) for error in errors.values())
    print(f"""
[gap9]
origin = "published MLPerf Tiny v1.0 latencies of GAP9: {len(measured)} networks at two clocks, each left out once: \
median error {100 * math.expm1(statistics.median(abs(math.log(error)) for error in errors.values())):.0f}%, \
largest {100 * math.expm1(worst):.0f}%; in sample {100 * math.expm1(in_sample):.0f}%\"""")
    for key, value in asdict(best).items():
        print(f"{key} = {value:.4g}")
    print(f"interval = [{min(errors.values()) / FEW:.3f}, {max(errors.values()) * FEW:.3f}]")


def published(path: Path) -> dict[str, float]:
    """Network -> thousands of cycles, mean over clocks."""
    found: dict[str, list[float]] = {}
    with path.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if row["device"].startswith(DEVICE):
                found.setdefault(row["model"], []).append(float(row["ms_per_item"]) * float(row["core_clock_mhz"]))
    return {name: statistics.fmean(values) for name, values in found.items()}


def networks() -> dict[str, tuple[Kernel, ...]]:
    """Kernels of the networks of MLPerf Tiny."""
    found = {}
    for name, build in mlperf_tiny.NETWORKS.items():
        rng = np.random.default_rng(0)
        found[name] = fuse(profiles.read(mlperf_tiny.quantised(build(rng), rng)), "riscv-cluster", "int8").kernels
    return found


def cycles_of(kernels: Sequence[Kernel], constants: Constants) -> float:
    """Thousands of cycles of one network."""
    return sum(kernel_ms(kernel, CLOCK, constants)[0] for kernel in kernels)


def fit(measured: Mapping[str, float], nets: Layers) -> Constants:
    """Least mean absolute log error."""

    def loss(constants: Constants) -> float:
        return sum(abs(math.log(cycles_of(nets[name], constants) / cycles)) for name, cycles in measured.items())

    return min(_grid(), key=loss)


def _grid() -> Iterator[Constants]:
    axes = (
        np.geomspace(20, 160, 14),
        (4, 8, 12, 16),  # of the engine's 16 input channels a depthwise layer uses one; cores share the work
        np.geomspace(2, 16, 10),
        np.geomspace(500, 15000, 14),
    )
    for dense, share, rate, layer in itertools.product(*axes):
        yield Constants(float(dense), float(dense / share), FLOAT_MAC, float(rate), float(layer))


if __name__ == "__main__":
    main()
