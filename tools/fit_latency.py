"""Fit the constants of the GPU latency model on published latencies and say how far off it is.

    python tools/fit_latency.py published_latency.csv hardware.csv > profiles/latency/nvidia_gpu.toml

Rows of known architectures are rebuilt as graphs (tools/architectures) and costed with the very functions that
`profiles` predicts with. Every group of devices starts from a fit over all rows and is pulled towards it, so that few
rows cannot bend many constants. Errors are those of leave-one-model-family-out: a family is predicted with constants
that were fitted without it, on any device. Prints one TOML table per group of devices, and the error by family, by
precision and of leave-one-device-out as comments.
"""

import argparse
import csv
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
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
KINDS = ("dense", "gemm", "attention", "matmul", "grouped", "depthwise")
# name: expected, lowest, highest, and how far off the expectation may be (standard deviation of its logarithm). Totals
# alone cannot tell a launch floor from a cost per inference, nor bandwidth from efficiency, so every fit is also drawn
# towards what single kernels are known to reach.
BOUNDS = {
    "dense": (0.7, 0.02, 1.0, 0.3),
    "gemm": (0.8, 0.02, 1.0, 0.2),
    "attention": (0.35, 0.02, 1.0, 0.4),
    "matmul": (0.12, 0.005, 1.0, 0.6),
    "grouped": (0.2, 0.005, 1.0, 0.5),
    "depthwise": (0.35, 0.01, 1.0, 0.4),
    "half_depth": (150.0, 10.0, 1500.0, 0.6),
    "bandwidth": (0.75, 0.3, 0.95, 0.2),
    "cache_speedup": (2.0, 1.0, 5.0, 0.4),
    "overlap": (0.7, 0.02, 1.0, 0.3),
    "launch_us": (8.0, 2.0, 30.0, 0.4),
    "light_launch_us": (4.0, 0.5, 20.0, 0.4),
    "fixed_us": (30.0, 5.0, 200.0, 0.4),
}
PROTOCOL = 0.4  # spread of log latencies between sources that measure the same thing: 35 to 50 %
ROW = 0.25  # spread of a row's log error beside its source's
# A submission to MLPerf is tuned by hand: the same ResNet-50 takes 0.66 of an ordinary int8 engine's time on an A100 at
# batch 1 and 0.73 at batch 256. The constants are those of an ordinary build.
TUNED = ("mlcommons/", 0.75)
INSIDE = 0.9  # share of unseen rows that the interval should hold
GROUPS = {
    "a100": ("8.0",),
    "jetson": ("8.7",),
    "jetson-xavier": ("7.2",),
    "jetson-cuda-cores": ("5.3", "6.2"),
}
NO_ROWS = ("9.0",)  # too few rows for constants of its own: predicted from the first group
PRECISIONS: dict[str, Precision] = {"fp32": "fp32", "tf32": "fp32", "fp16": "fp16", "int8": "int8"}


@dataclass(frozen=True)
class Row:
    """One published latency with its graph's kernels."""

    identity: str
    model: str
    family: str
    device: str
    source: str  # repository and runtime: one way of measuring
    capability: str
    hardware: Hardware
    batch: int
    latency_ms: float  # of the whole batch
    kernels: tuple[Kernel, ...]
    precision: str = ""

    @property
    def is_tensorrt(self) -> bool:
        """Whether a TensorRT engine ran; another runtime's kernels say nothing about the constants of this one."""
        return re.search(r"TensorRT|TRT", self.source.split(" / ")[1]) is not None

    @property
    def habit(self) -> float:
        """Logarithm of what this way of measuring is expected to take of an ordinary build's time."""
        prefix, share = TUNED
        return float(np.log(share)) if self.source.startswith(prefix) else 0.0


@dataclass(frozen=True)
class Fit:
    """Logarithms of the constants, and of each source's factor on the predicted time."""

    logs: Array
    habits: Mapping[str, float]

    def errors(self, rows: Sequence[Row], known: bool = False) -> Array:
        """log(predicted / measured) per row; with the factor of its source where that is known."""
        habits = [self.habits.get(row.source, row.habit) if known else row.habit for row in rows]
        return np.asarray(Batch(rows).log_error(self.logs) + np.array(habits))


class Batch:
    """The rows' kernels as flat arrays: the formula of `nvidia_gpu.kernel_ms` over all of them at once."""

    def __init__(self, rows: Sequence[Row]) -> None:
        flat = [(row.hardware, run.once, run.repeats) for row in rows for run in row.kernels]
        self.starts = np.cumsum([0, *(len(row.kernels) for row in rows)])[:-1]
        self.kind = np.array([KINDS.index(nvidia_gpu.kind_of(k)) for _, k, _ in flat])
        # Seconds at an efficiency of 1, in milliseconds.
        self.compute = np.array(
            [
                2e-9 * k.macs * nvidia_gpu.widened(k) / (nvidia_gpu.peak_tops(k, h) * nvidia_gpu.occupancy(k, h))
                if k.macs
                else 0.0
                for h, k, _ in flat
            ]
        )
        self.depth = np.array([max(k.depth, 1) if nvidia_gpu.is_deep(k) else np.inf for _, k, _ in flat])
        self.rate = np.array([h.bandwidth_gbs * 1e6 for h, _, _ in flat])
        self.moved = np.array([k.activation_bytes for _, k, _ in flat], float)
        self.cached = np.array([k.activation_bytes <= h.cache_kib * 1024 for h, k, _ in flat])
        self.weights = np.array([k.weight_bytes for _, k, _ in flat], float)
        self.heavy = np.array([k.kind in nvidia_gpu.HEAVY for _, k, _ in flat])
        self.clock = np.array([h.clock_mhz for h, _, _ in flat])
        self.repeats = np.array([repeats for _, _, repeats in flat], float)
        self.measured = np.log([row.latency_ms for row in rows])

    def log_error(self, logs: Array) -> Array:
        """log(predicted / measured) per row, for the constants' logarithms."""
        value = dict(zip(NAMES, np.exp(logs), strict=True))
        share = np.array([value[name] for name in KINDS])[self.kind] / (1.0 + value["half_depth"] / self.depth)
        compute = self.compute / share
        rate = self.rate * value["bandwidth"]
        memory = self.weights / rate + self.moved / (rate * np.where(self.cached, value["cache_speedup"], 1.0))
        launch = np.where(self.heavy, value["launch_us"], value["light_launch_us"]) / self.clock
        each = compute + memory - value["overlap"] * np.minimum(compute, memory) + launch
        total = np.add.reduceat(each * self.repeats, self.starts) + value["fixed_us"] / 1e3
        return np.asarray(np.log(total) - self.measured)


def fit(rows: Sequence[Row], towards: Array | None = None) -> Fit:
    """Constants for the rows of TensorRT. A row weighs less where many of its family are from one device."""
    rows = [row for row in rows if row.is_tensorrt]
    batch = Batch(rows)
    keys = Counter((row.family, row.device) for row in rows)
    weights = np.array([keys[row.family, row.device] ** -0.25 for row in rows])
    if towards is None:
        towards = np.log([BOUNDS[name][0] for name in NAMES])
    low, high = (np.log([BOUNDS[name][side] for name in NAMES]) for side in (1, 2))
    pull = ROW / np.array([BOUNDS[name][3] for name in NAMES])

    # A source's habits (host copies, Python around the engine, kernels tuned by hand) are a factor of its own, drawn
    # towards what is expected: they must not end up in the constants.
    expected = {row.source: row.habit for row in rows}
    sources = sorted(expected)
    usual = np.array([expected[source] for source in sources])
    source = np.array([sources.index(row.source) for row in rows])
    count, constants = len(rows), len(NAMES)

    def residuals(free: Array) -> Array:
        logs, habits = free[:constants], free[constants:]
        errors = (batch.log_error(logs) + habits[source]) * weights
        return np.concatenate([errors, (habits - usual) * ROW / PROTOCOL, pull * (logs - towards)])

    def slopes(free: Array) -> Array:
        found = np.zeros((count + len(sources) + constants, constants + len(sources)))
        here = batch.log_error(free[:constants])
        for index in range(constants):
            moved = free[:constants].copy()
            moved[index] += 1e-5
            found[:count, index] = (batch.log_error(moved) - here) / 1e-5 * weights
        found[np.arange(count), constants + source] = weights
        habits = np.arange(len(sources))
        found[count + habits, constants + habits] = ROW / PROTOCOL
        own = np.arange(constants)
        found[count + len(sources) + own, own] = pull
        return found

    start = np.concatenate([np.clip(towards, low + 1e-6, high - 1e-6), usual])
    ends = [np.concatenate([low, np.full(len(sources), -1.5)]), np.concatenate([high, np.full(len(sources), 1.5)])]
    found = least_squares(residuals, start, slopes, bounds=ends, loss="soft_l1", f_scale=0.3, max_nfev=60)
    factors = dict(zip(sources, found.x[constants:].tolist(), strict=True))
    return Fit(np.asarray(found.x[:constants]), factors)


def in_group(rows: Iterable[Row], capabilities: Sequence[str]) -> list[Row]:
    """The rows of the devices with one of these compute capabilities."""
    return [row for row in rows if row.capability in capabilities]


def left_out(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, tuple[float, float]]:
    """Row -> log(predicted / measured), by constants that never saw a row with the same key.

    First without the source's factor, then with it where other rows of the source have given it. Where a group of
    devices has no other row, the fit over all other rows predicts.
    """
    errors: dict[str, tuple[float, float]] = {}
    for value in sorted({key(row) for row in rows}):
        others = [row for row in rows if key(row) != value]
        joint = fit(others)
        for capabilities in _groups():
            asked = [row for row in in_group(rows, capabilities) if key(row) == value]
            if not asked:
                continue
            seen = in_group(others, capabilities)
            found = fit(seen, joint.logs) if any(row.is_tensorrt for row in seen) else joint
            pairs = zip(found.errors(asked).tolist(), found.errors(asked, known=True).tolist(), strict=True)
            errors.update(zip((row.identity for row in asked), pairs, strict=True))
    return errors


def _groups() -> list[tuple[str, ...]]:
    return [*GROUPS.values(), NO_ROWS]


def physics(latencies: Path, hardware: Path) -> dict[str, tuple[float, float]]:
    """Row -> milliseconds per item by constants that never saw the row's model family, and by the final ones.

    Covers the rows that can be fitted on: their architecture, clocks and precision are known. No source's factor is in
    them.
    """
    rows = read(latencies, hardware)
    unseen = left_out(rows, lambda row: row.family)
    joint = fit(rows)
    found: dict[str, tuple[float, float]] = {}
    for capabilities in _groups():
        group = in_group(rows, capabilities)
        if not group:
            continue
        final = fit(in_group(rows, GROUPS["a100"] if capabilities == NO_ROWS else capabilities), joint.logs)
        for row, seen in zip(group, final.errors(group), strict=True):
            measured = row.latency_ms / row.batch * np.exp(-row.habit)
            found[row.identity] = float(measured * np.exp(unseen[row.identity][0])), float(measured * np.exp(seen))
    return found


# Images per launch where the source says no more than "large" or nothing: throughput hardly depends on it any more.
LARGE = {"resnet50-v1.5": 256, "ssd-mobilenet-v1": 256, "ssd-resnet34-1200": 32, "retinanet-resnext50": 16}
UNSTATED = 64


def batch_of(record: Mapping[str, str]) -> int:
    """The batch of a table row; a guess where the row does not state it."""
    return int(record["batch"]) if record["batch"].isdigit() else LARGE.get(record["model"], UNSTATED)


def read(latencies: Path, hardware: Path) -> list[Row]:
    """The rows whose architecture and device are known."""
    with hardware.open(newline="", encoding="utf-8") as handle:
        devices = list(csv.DictReader(handle))
    rows = []
    with latencies.open(newline="", encoding="utf-8") as handle:
        for index, record in enumerate(csv.DictReader(handle)):
            if record["fit_ok"] != "1" or record["precision"] not in PRECISIONS:
                continue
            device = device_of(record, devices)
            if device is None:
                continue
            batch = batch_of(record)
            graph = architectures.graph_of(record["model"], record["input_shape"], batch)
            if graph is None:
                continue
            plan = fuse(graph, "nvidia-gpu", PRECISIONS[record["precision"]])
            rows.append(
                Row(
                    identity=record.get("row_id") or str(index),
                    model=record["model"],
                    family=record["family"],
                    device=record["device"],
                    source=f"{re.sub(r'_v[0-9.]+$', '', record['source_repo'])} / {record['runtime']}",
                    capability=device[0],
                    hardware=device[1],
                    batch=batch,
                    latency_ms=float(record["ms_per_item"]) * batch,
                    kernels=plan.kernels,
                    precision=record["precision"],
                )
            )
    return rows


CACHE_KIB = {"9.0": 51200, "8.0": 40960, "8.7": 4096, "7.2": 512, "6.2": 512, "5.3": 256}  # L2; Orin Nano has 2048
MEMORY_MHZ = {"AGX Xavier": 2133.0, "Xavier NX": 1866.0, "Orin": 3200.0}  # at which hardware.csv states the bandwidth
ALIASES = {
    "A100 (form factor not stated)": "A100-SXM4-40GB",
    "A100-40GB (form factor not stated)": "A100-SXM4-40GB",
    "A100-SXM4-40GB MIG 1g.5gb": "A100 MIG 1g.10gb (80 GB part)",
    "A100-SXM4-80GB MIG 1g.10gb": "A100 MIG 1g.10gb (80 GB part)",
    "Jetson AGX Xavier": "Jetson AGX Xavier 32GB",
    "Jetson AGX Orin": "Jetson AGX Orin 64GB",
    "Jetson AGX Orin (memory size not stated)": "Jetson AGX Orin 64GB",
    "Jetson Nano 2GB": "Jetson Nano 4GB",
    "Jetson Orin Nano Super 8GB": "Jetson Orin Nano 8GB (Super)",
}
SLICE_GBS = {"A100-SXM4-40GB MIG 1g.5gb": 194.4}  # an eighth of the 40 GB part's


def device_of(record: Mapping[str, str], devices: Sequence[Mapping[str, str]]) -> tuple[str, Hardware] | None:
    """Compute capability and figures of a row's device in its power mode, scaled by the clocks where they are stated.

    None where the device is not in `devices` (the rows of hardware.csv) or its clocks cannot be known.
    """
    name, mode = ALIASES.get(record["device"], record["device"]), record["power_mode"]
    # The "max power" of the published rows is the 918 MHz of JetPack 6.1: they take a tenth longer than those of an
    # Orin Nano at 1020 MHz.
    if name == "Jetson Orin NX 16GB" and "SUPER" in mode:
        name = "Jetson Orin NX 16GB (Super mode)"
    if name == "Jetson AGX Orin 32GB" and ("MAXN" in mode or "MaxQ" in mode):
        name = "Jetson AGX Orin 64GB"  # the submissions' developer kit: 16 processors at 1.3 GHz, 32 GB of memory
    found = next((device for device in devices if device["name"] == name), None)
    if found is None or "(CC " not in found["compute_capability_or_core"]:
        return None
    capability = found["compute_capability_or_core"].split("CC ")[1].split(")")[0].split(";")[0]
    stated = record["core_clock_mhz"] or _megahertz("gpu", mode)
    if not stated and "MaxQ" in mode:
        return None
    clock = float(found["core_clock_mhz"])
    scale = float(stated) / clock if stated else 1.0
    columns = {"fp32": "fp32_tflops", "tf32": "tf32_tflops", "fp16": "fp16_tflops", "int8": "int8_tops"}
    bandwidth = SLICE_GBS.get(record["device"], float(found["mem_bw_gbs"]))
    if memory := _megahertz("emc", mode):
        fastest = next(mhz for key, mhz in MEMORY_MHZ.items() if key in name)
        bandwidth *= min(1.0, float(memory) / fastest)
    cache = 2048 if "Orin Nano" in name else CACHE_KIB[capability]
    hardware = Hardware(
        clock_mhz=clock * scale,
        units=int(found["sms_or_cores"].split()[0]),
        tops={key: float(found[column]) * scale for key, column in columns.items() if found[column]},
        bandwidth_gbs=bandwidth,
        cache_kib=cache // 8 if "MIG" in name else cache,
    )
    return capability, hardware


def _megahertz(part: str, mode: str) -> str:
    match = re.search(rf"\b{part} (\d+(?:\.\d+)?) MHz", mode)
    return match[1] if match else ""


def agrees(rows: Sequence[Row], logs: Array) -> bool:
    """Whether the vectorised formula equals the one that `profiles` predicts with."""
    constants = Constants(*np.exp(logs))
    one_by_one = [
        sum(nvidia_gpu.kernel_ms(k.once, row.hardware, constants)[0] * k.repeats for k in row.kernels)
        + constants.fixed_us / 1e3
        for row in rows
    ]
    together = np.exp(Batch(rows).log_error(logs)) * [row.latency_ms for row in rows]
    return bool(np.allclose(one_by_one, together, rtol=1e-9))


def family_weights(rows: Sequence[Row]) -> Array:
    """A row of a large family weighs less: one over the square root of the family's rows."""
    count = Counter(row.family for row in rows)
    return np.array([count[row.family] ** -0.5 for row in rows])


def is_mostly_launch(row: Row, logs: Array) -> bool:
    """Whether more than half of the predicted time is that of kernels which wait for their own start."""
    constants = Constants(*np.exp(logs))
    times = [(*nvidia_gpu.kernel_ms(k.once, row.hardware, constants), k.repeats) for k in row.kernels]
    fixed = constants.fixed_us / 1e3
    waiting = fixed + sum(time * repeats for time, bound, repeats in times if bound == "launch")
    return waiting > (fixed + sum(time * repeats for time, _, repeats in times)) / 2


def launch_interval(errors: Array) -> tuple[float, float]:
    """Factors for networks that are mostly launch, from all generations together: each has few such rows."""
    return interval(errors, np.ones(len(errors)))


def interval(errors: Array, weights: Array) -> tuple[float, float]:
    """Factors on a prediction that hold nine in ten of what was measured.

    Half-way between the ends for rows as they come and those for rows that weigh by their family: the first would leave
    a new kind of network to the families that were measured most, the second rests on families of one row.

    Args:
        errors: log(predicted / measured) of rows that the prediction had not seen.
        weights: of the rows.
    """
    ends = np.array([_quantiles(-errors, side) for side in (weights, np.ones(len(errors)))])
    low, high = np.exp(ends.mean(axis=0)).tolist()
    return low, high


def _quantiles(values: Array, weights: Array) -> tuple[float, float]:
    """The two values between which the weighted share `INSIDE` lies, each end as far out as in the other tail."""
    order = np.argsort(values)
    ranks = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    # With n cases a quantile is known to 1 / (n + 1) (split-conformal prediction): the tails are that much thinner.
    tail = (1 - INSIDE) / 2 * (1 - 1 / (len(values) + 1))
    low, high = np.interp([tail, 1 - tail], ranks, values[order])
    return float(low), float(high)


def described(pairs: Sequence[tuple[float, float]]) -> str:
    """Errors of rows without and with the factor of their source."""
    without, known = (np.array(side) for side in zip(*pairs, strict=True))
    return f"{len(pairs)} rows, {_described(without)}; source known: {_described(known)}"


def _described(errors: Array) -> str:
    """Median and 90th percentile of the absolute error, and the middle of predicted over measured."""
    absolute = np.abs(np.exp(errors) - 1)
    bias = np.exp(np.median(errors))
    return f"median {np.median(absolute):.0%}, p90 {np.percentile(absolute, 90):.0%}, middle {bias:.2f}"


def stretch(rows: Sequence[Row], unseen: Mapping[str, tuple[float, float]]) -> float:
    """How much further the interval's ends are on a generation of devices that no row is from.

    Each generation is predicted by constants that never saw it; the middle of the factors that would hold nine in ten
    of its rows.
    """
    elsewhere = left_out(rows, lambda row: row.capability)
    wider = []
    for capabilities in _groups():
        group = [row for row in in_group(rows, capabilities) if row.is_tensorrt]
        near = group if capabilities != NO_ROWS else in_group(rows, GROUPS["a100"])
        low, high = interval(_without(unseen, near), family_weights(near))
        own_low, own_high = interval(_without(elsewhere, group), family_weights(group))
        wider.append(max(low / own_low, own_high / high, 1.0))
    return float(np.median(wider))


def _without(errors: Mapping[str, tuple[float, float]], rows: Iterable[Row]) -> Array:
    return np.array([errors[row.identity][0] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latencies", type=Path)
    parser.add_argument("hardware", type=Path)
    options = parser.parse_args()
    rows = read(options.latencies, options.hardware)
    joint = fit(rows)
    if not agrees(rows, joint.logs):
        raise SystemExit("the vectorised formula differs from profiles.latency.nvidia_gpu")
    unseen = left_out(rows, lambda row: row.family)
    elsewhere = left_out(rows, lambda row: row.device)
    wider = stretch(rows, unseen)
    small = {row.identity for row in rows if row.is_tensorrt and is_mostly_launch(row, joint.logs)}
    least = launch_interval(_without(unseen, [row for row in rows if row.identity in small]))
    print("# Written by tools/fit_latency.py; what the constants mean is in nvidia_gpu.py.")
    print(
        "# interval: factors on the predicted median that contain 90 % of unseen cases; stretch: how much further its"
    )
    print(
        "# ends are on a device of a generation that no row is from. Errors below are of leave-one-family-out; middle"
    )
    print(
        "# is predicted over measured. launch_interval: for networks most of whose time is the starting of kernels.\n"
    )
    for name, capabilities in GROUPS.items():
        every = in_group(rows, capabilities)
        group = [row for row in every if row.is_tensorrt]
        final = fit(group, joint.logs)
        errors = _without(unseen, group)
        short = np.array([row.identity in small for row in group])
        longer = [row for row in group if row.identity not in small]
        low, high = interval(errors[~short], family_weights(longer))
        whole = interval(errors, family_weights(group))
        launch_low, launch_high = min(whole[0], least[0]), max(whole[1], least[1])
        factors = np.exp(-errors)
        inside = np.mean(
            np.where(short, (factors >= launch_low) & (factors <= launch_high), (factors >= low) & (factors <= high))
        )
        absolute = np.abs(np.exp(errors) - 1)
        seen = np.abs(np.exp(final.errors(group)) - 1)
        families = len({row.family for row in group})
        print(f"[{name}]")
        print(f"compute_capabilities = {list(capabilities)}".replace("'", '"'))
        print(
            f'origin = "published TensorRT latencies: {len(group)} rows of {families} model families, '
            f"leave-one-family-out absolute error: median {np.median(absolute):.0%}, 90th percentile "
            f'{np.percentile(absolute, 90):.0%}; {inside:.0%} of the rows inside; in sample {np.median(seen):.0%}"'
        )
        for constant, fitted in zip(NAMES, np.exp(final.logs), strict=True):
            print(f"{constant} = {fitted:.4g}")
        print(f"interval = [{low:.3f}, {high:.3f}]")
        print(f"launch_interval = [{launch_low:.3f}, {launch_high:.3f}]")
        print(f"stretch = {wider:.2f}")
        for part, key in (("family", _family), ("precision", _precision), ("source", _source)):
            for value in sorted({key(row) for row in every}):
                print(f"#   {part} {value}: {described([unseen[row.identity] for row in every if key(row) == value])}")
        print(f"#   all: {described([unseen[row.identity] for row in group])}")
        for text, some, ends in (
            ("mostly launch", short, (launch_low, launch_high)), ("the others", ~short, (low, high)),
        ):  # fmt: skip
            held = (factors[some] >= ends[0]) & (factors[some] <= ends[1])
            print(f"#   {text}: {some.sum()} rows, {np.mean(held) if some.any() else 1:.0%} inside")
        print()
    print("# Leave-one-family-out by class of devices, TensorRT's rows.")
    for line in ("A100", "H100", "Jetson"):
        own = [unseen[row.identity] for row in rows if row.device.startswith(line) and row.is_tensorrt]
        print(f"#   {line}: {described(own)}")
    print("# Leave-one-device-out: a device predicted by constants fitted without any of its rows.")
    for device in sorted({row.device for row in rows}):
        print(f"#   {device}: {described([elsewhere[row.identity] for row in rows if row.device == device])}")
    print(f"#   all: {described(list(elsewhere.values()))}")


def _family(row: Row) -> str:
    return row.family


def _precision(row: Row) -> str:
    return row.precision


def _source(row: Row) -> str:
    return row.source


if __name__ == "__main__":
    main()
