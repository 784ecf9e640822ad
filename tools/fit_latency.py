"""Fit the constants of the GPU latency model on published latencies and say how far off it is.

    python tools/fit_latency.py published_latency.csv hardware.csv > profiles/latency/nvidia_gpu.toml

Rows of known architectures are rebuilt as graphs (tools/architectures) and costed with the very functions that
`profiles` predicts with. Every group of devices starts from a fit over all rows and is pulled towards it, so that few
rows cannot bend many constants. Errors are those of leave-one-model-family-out: a family is predicted with constants
that were fitted without it. Prints one TOML table per group of devices.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

sys.path.insert(0, str(Path(__file__).parent))
import architectures

from profiles.cost import Precision
from profiles.fuse import Kernel, fuse
from profiles.latency import nvidia_gpu
from profiles.latency.nvidia_gpu import Constants
from profiles.target import Hardware

Array = NDArray[np.float64]
NAMES = [field.name for field in fields(Constants)]
# name: expected, lowest, highest. Totals alone cannot tell a launch floor from a cost per inference, nor bandwidth from
# efficiency, so every fit is also drawn towards what single kernels are known to reach.
BOUNDS = {
    "dense": (0.6, 0.02, 1.0),
    "gemm": (0.6, 0.02, 1.0),
    "matmul": (0.12, 0.005, 1.0),
    "grouped": (0.2, 0.005, 1.0),
    "depthwise": (0.35, 0.01, 1.0),
    "half_depth": (200.0, 10.0, 1500.0),
    "bandwidth": (0.65, 0.3, 0.95),
    "cache_speedup": (1.5, 1.0, 4.0),
    "launch_us": (7.0, 2.0, 20.0),
    "light_launch_us": (4.0, 0.5, 12.0),
    "fixed_us": (40.0, 5.0, 200.0),
}
PROTOCOL = 0.35  # spread of log latencies between sources that measure the same thing, each with its own habits
PULL = 1.0  # weight of one constant's log distance from what is expected, in units of one row's log error
GROUPS = {
    "a100": ("8.0",),
    "jetson": ("7.2", "8.7"),
    "jetson-cuda-cores": ("5.3", "6.2"),
}
PRECISIONS: dict[str, Precision] = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "int8": "int8"}


@dataclass(frozen=True)
class Row:
    """One published latency with its graph's kernels."""

    model: str
    family: str
    device: str
    source: str  # repository and runtime: one way of measuring
    capability: str
    hardware: Hardware
    batch: int
    latency_ms: float
    kernels: tuple[Kernel, ...]


class Batch:
    """The rows' kernels as flat arrays: the formula of `nvidia_gpu.kernel_ms` over all of them at once."""

    def __init__(self, rows: Sequence[Row]) -> None:
        kinds = ["dense", "gemm", "matmul", "grouped", "depthwise"]
        flat = [(row.hardware, kernel) for row in rows for kernel in row.kernels]
        self.starts = np.cumsum([0, *(len(row.kernels) for row in rows)])[:-1]
        self.kind = np.array([kinds.index(k.kind) if k.kind in kinds else 2 for _, k in flat])
        self.macs = np.array([k.macs for _, k in flat], float)
        self.depth = np.array([k.depth for _, k in flat], float)
        self.occupancy = np.array([nvidia_gpu.occupancy(k, hardware) for hardware, k in flat])
        self.peak = np.array([nvidia_gpu.peak_tops(k, hardware) for hardware, k in flat])
        self.rate = np.array([hardware.bandwidth_gbs * 1e6 for hardware, _ in flat])
        self.moved = np.array([k.activation_bytes for _, k in flat], float)
        self.cached = np.array([k.activation_bytes <= hardware.cache_kib * 1024 for hardware, k in flat])
        self.weights = np.array([k.weight_bytes for _, k in flat], float)
        self.heavy = np.array([k.kind in nvidia_gpu.HEAVY for _, k in flat])
        self.clock = np.array([hardware.clock_mhz for hardware, _ in flat])
        self.measured = np.log([row.latency_ms for row in rows])

    def log_error(self, logs: Array) -> Array:
        """log(predicted / measured) per row, for the constants' logarithms."""
        value = dict(zip(NAMES, np.exp(logs), strict=True))
        share = np.array([value[name] for name in ("dense", "gemm", "matmul", "grouped", "depthwise")])[self.kind]
        share = share * np.where(self.kind == 4, 1.0, self.depth / (self.depth + value["half_depth"]))
        compute = np.where(self.macs > 0, 2e-9 * self.macs / np.maximum(self.peak * share * self.occupancy, 1e-30), 0.0)
        rate = self.rate * value["bandwidth"]
        memory = self.weights / rate + self.moved / (rate * np.where(self.cached, value["cache_speedup"], 1.0))
        launch = np.where(self.heavy, value["launch_us"], value["light_launch_us"]) / self.clock
        total = np.add.reduceat(compute + memory + launch, self.starts) + value["fixed_us"] / 1e3
        return np.log(total) - self.measured


def fit(rows: Sequence[Row], towards: Array | None = None) -> Array:
    """Logarithms of the constants. Rows of one family on one device share the weight of a few."""
    batch = Batch(rows)
    keys = [(row.family, row.device) for row in rows]
    weights = np.array([1.0 / np.sqrt(keys.count(key)) for key in keys])
    if towards is None:
        towards = np.log([BOUNDS[name][0] for name in NAMES])
    start = towards
    low, high = (np.log([BOUNDS[name][side] for name in NAMES]) for side in (1, 2))

    # A source's habits (host copies, Python around the engine, kernels tuned by hand) are a factor of its own, drawn
    # towards 1: they must not end up in the constants.
    sources = sorted({row.source for row in rows})
    source = np.array([sources.index(row.source) for row in rows])

    def residuals(free: Array) -> Array:
        logs, habits = free[: len(NAMES)], free[len(NAMES) :]
        errors = (batch.log_error(logs) + habits[source]) * weights
        return np.concatenate([errors, habits / PROTOCOL, PULL * (logs - towards)])

    start = np.concatenate([np.clip(start, low + 1e-6, high - 1e-6), np.zeros(len(sources))])
    low, high = np.concatenate([low, np.full(len(sources), -1.5)]), np.concatenate([high, np.full(len(sources), 1.5)])
    found = least_squares(residuals, start, bounds=(low, high), loss="soft_l1", f_scale=0.3, max_nfev=200)
    return np.asarray(found.x[: len(NAMES)])


def leave_one_family_out(rows: Sequence[Row], group: Sequence[Row]) -> dict[str, Array]:
    """Family -> log errors of its rows, by constants that never saw the family, on any device."""
    errors = {}
    for family in sorted({row.family for row in group}):
        towards = fit([row for row in rows if row.family != family])
        seen = [row for row in group if row.family != family]
        logs = fit(seen, towards) if seen else towards
        errors[family] = Batch([row for row in group if row.family == family]).log_error(logs)
    return errors


def read(latencies: Path, hardware: Path) -> list[Row]:
    """The rows whose architecture, batch and device are known."""
    with hardware.open(newline="", encoding="utf-8") as handle:
        devices = list(csv.DictReader(handle))
    rows = []
    with latencies.open(newline="", encoding="utf-8") as handle:
        for row in csv.DictReader(handle):
            if row["fit_ok"] != "1" or not row["batch"].isdigit() or row["precision"] not in PRECISIONS:
                continue
            batch = int(row["batch"])
            graph = architectures.graph_of(row["model"], row["input_shape"], batch)
            device = _device(row, devices)
            if graph is None or device is None:
                continue
            plan = fuse(graph, "nvidia-gpu", PRECISIONS[row["precision"]])
            capability, hardware_ = device
            latency = float(row["ms_per_item"]) * batch
            source = f"{row['source_repo']} / {row['runtime']}"
            rows.append(
                Row(
                    row["model"],
                    row["family"],
                    row["device"],
                    source,
                    capability,
                    hardware_,
                    batch,
                    latency,
                    plan.kernels,
                )
            )
    return rows


CACHE_KIB = {"9.0": 51200, "8.0": 40960, "8.7": 4096, "7.2": 512, "6.2": 512, "5.3": 256}  # L2; Orin Nano has 2048


def _device(row: dict[str, str], devices: list[dict[str, str]]) -> tuple[str, Hardware] | None:
    """Compute capability and figures of the row's device in its power mode, scaled by the clock where one is stated."""
    name = row["device"]
    if name.startswith("A100") and "form factor" in name:
        name = "A100-SXM4-40GB"
    if "MIG" in name:
        name = "A100 MIG 1g.10gb (80 GB part)"
    name = {
        "Jetson AGX Xavier": "Jetson AGX Xavier 32GB",
        "Jetson AGX Orin (memory size not stated)": "Jetson AGX Orin 64GB",
        "Jetson Nano 2GB": "Jetson Nano 4GB",
        "Jetson Orin Nano Super 8GB": "Jetson Orin Nano 8GB (Super)",
    }.get(name, name)
    if name == "Jetson Orin NX 16GB" and "max power" in row["power_mode"]:
        name = "Jetson Orin NX 16GB (Super mode)"
    if "MaxQ" in row["power_mode"] and not row["core_clock_mhz"]:
        return None  # clocks unknown
    found = next((device for device in devices if device["name"] == name), None)
    if found is None or "(CC " not in found["compute_capability_or_core"]:
        return None
    capability = found["compute_capability_or_core"].split("CC ")[1].split(")")[0].split(";")[0]
    clock = float(found["core_clock_mhz"])
    scale = float(row["core_clock_mhz"]) / clock if row["core_clock_mhz"] else 1.0
    columns = {"fp32": "fp32_tflops", "tf32": "tf32_tflops", "fp16": "fp16_tflops", "int8": "int8_tops"}
    tops = {key: float(found[column]) * scale for key, column in columns.items() if found[column]}
    units = int(found["sms_or_cores"].split()[0])
    cache = 2048 if "Orin Nano" in name else CACHE_KIB[capability]
    return capability, Hardware(clock * scale, units, tops, float(found["mem_bw_gbs"]), cache)


def agrees(rows: Sequence[Row], logs: Array) -> bool:
    """Whether the vectorised formula equals the one that `profiles` predicts with."""
    constants = Constants(*np.exp(logs))
    one_by_one = [
        sum(nvidia_gpu.kernel_ms(kernel, row.hardware, constants)[0] for kernel in row.kernels)
        + constants.fixed_us / 1e3
        for row in rows
    ]
    together = np.exp(Batch(rows).log_error(logs)) * [row.latency_ms for row in rows]
    return bool(np.allclose(one_by_one, together, rtol=1e-9))


def describe(errors: dict[str, Array]) -> tuple[str, tuple[float, float]]:
    """A sentence on the errors, and the factors on a prediction that contain 90 % of them.

    A row of a large family weighs less, as one over the square root of the family's rows.
    """
    every = np.concatenate(list(errors.values()))
    absolute = np.abs(np.exp(every) - 1)
    weights = np.concatenate([np.full(len(part), 1 / np.sqrt(len(part))) for part in errors.values()])
    order = np.argsort(-every)  # measured / predicted, ascending
    cumulated = np.cumsum(weights[order]) / weights.sum()
    ratios = np.exp(-every[order])
    low = float(ratios[np.searchsorted(cumulated, 0.05)])
    high = float(ratios[min(np.searchsorted(cumulated, 0.95), len(ratios) - 1)])
    inside = np.mean((ratios >= low) & (ratios <= high))
    text = (
        f"{len(every)} rows of {len(errors)} model families, leave-one-family-out absolute error: median "
        f"{np.median(absolute):.0%}, 90th percentile {np.percentile(absolute, 90):.0%}; {inside:.0%} of the rows inside"
    )
    return text, (low, high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latencies", type=Path)
    parser.add_argument("hardware", type=Path)
    parser.add_argument("--by-family", action="store_true", help="also print the median error of each family")
    options = parser.parse_args()
    rows = read(options.latencies, options.hardware)
    print("# Written by tools/fit_latency.py; what the constants mean is in nvidia_gpu.py.")
    print("# interval: factors on the predicted median that contain 90 % of unseen cases.\n")
    joint = fit(rows)
    if not agrees(rows, joint):
        raise SystemExit("the vectorised formula differs from profiles.latency.nvidia_gpu")
    for name, capabilities in GROUPS.items():
        group = [row for row in rows if row.capability in capabilities]
        logs = fit(group, joint)
        errors = leave_one_family_out(rows, group)
        text, (low, high) = describe(errors)
        inside = np.abs(np.exp(Batch(group).log_error(logs)) - 1)
        print(f"[{name}]")
        print(f"compute_capabilities = {list(capabilities)}".replace("'", '"'))
        print(f'origin = "published TensorRT latencies: {text}; in sample {np.median(inside):.0%}"')
        for key, value in zip(NAMES, np.exp(logs), strict=True):
            print(f"{key} = {value:.4g}")
        print(f"interval = [{low:.3f}, {high:.3f}]\n")
        if options.by_family:
            for family, error in errors.items():
                off, bias = np.median(np.abs(np.exp(error) - 1)), np.exp(np.median(error))
                print(f"#   {family}: {len(error)} rows, median error {off:.0%}, predicted over measured {bias:.2f}")


if __name__ == "__main__":
    main()
