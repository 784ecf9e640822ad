"""Fit what `profiles.totals` predicts with, and say how far off it is with and without anchors.

    python tools/fit_totals.py > profiles/latency/totals.toml
    python tools/fit_totals.py --evaluate

A row's logarithm is that of the family's line, plus what its protocol (device, source, runtime and precision) adds to
`scale` and to `fixed`, plus a residual; the factors and the three spreads are those of the greatest likelihood, where
effects of protocols are normally distributed. Rows: tools/latency. `--evaluate` leaves model families out in folds, so
neither the factors nor the spreads have seen a row's family, and gives each protocol so many anchors, drawn at random
among the rows that are not judged. Needs scipy.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
import latency_memory
from fit_protocols import protocol, thinned
from latency_memory import fold_of
from latency_rows import Array, Row, engine, gpu_of, gpus

from profiles.totals import Spread, fit_line

CORES = ("cortex-m0", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55", "other")
X86 = {"Intel i9-10940X": (2.96, 94.0), "Intel i7-12700H": (1.15, 76.8)}  # fp32 TFLOPS of all cores, GB/s: data sheets
EXPECTED = {"compute": 2.0, "activations": 2.0, "weights": 2.0, "fixed": 100.0, "cycles": 4.0, "float": 2.0}


@dataclass(frozen=True)
class Table:
    """Rows of one family as a design: time = design @ exp(logs), the last column being `fixed`."""

    names: tuple[str, ...]
    design: Array  # (rows, names), milliseconds per batch at a factor of one
    logs: Array  # (rows,), of the measured milliseconds
    rows: tuple[Row, ...]


def gpu_table(rows: Sequence[Row], measured: Array) -> Table:
    """TensorRT on NVIDIA GPUs."""
    known = gpus()
    kept, design, logs = [], [], []
    for row, ms in zip(rows, measured, strict=True):
        gpu = row.table == "published" and row.line != "MCU"
        if not (gpu and row.usual and row.gmacs and row.batch and engine(row.runtime) == "tensorrt"):
            continue
        device = gpu_of(row, known)
        width = 1.0 if "int8" in row.precision else 2.0 if "16" in row.precision else 4.0
        elements = (row.macts_m or 8.0 * row.gmacs**0.7) * row.batch
        rate = device.bandwidth_gbs
        design.append(
            [
                2 * row.gmacs * row.batch / device.tops(row.precision), elements * width / rate,
                (row.params_m or 0.0) * width / rate, 1.0 / device.clock_mhz,
            ]
        )  # fmt: skip
        logs.append(math.log(ms * row.batch))
        kept.append(row)
    return Table(("compute", "activations", "weights", "fixed"), np.array(design), np.array(logs), tuple(kept))


def mcu_table(rows: Sequence[Row], measured: Array) -> Table:
    """int8 and float networks on Cortex-M cores."""
    kept, design, logs = [], [], []
    for row, ms in zip(rows, measured, strict=True):
        if (
            "Cortex-M" not in row.device
            or "+ Sil" in row.device
            or "DSP" in row.device
            or not row.gmacs
            or not row.clock_mhz
        ):
            continue
        number = row.device.split("Cortex-M")[1].rstrip(")+")
        core = f"cortex-m{ {'85': '55'}.get(number, number) }".replace(" ", "")
        milliseconds = row.gmacs * 1e6 / row.clock_mhz
        line = [milliseconds if name == core else 0.0 for name in CORES]
        design.append([*line, 0.05])
        logs.append(math.log(ms) - (math.log(EXPECTED["float"]) if "fp" in row.precision else 0.0))
        kept.append(row)
    return Table((*CORES, "fixed"), np.array(design), np.array(logs), tuple(kept))


def x86_table(rows: Sequence[Row], measured: Array) -> Table:
    """fp32 at batch 1 on all cores of two processors."""
    kept, design, logs = [], [], []
    for row, ms in zip(rows, measured, strict=True):
        found = next((figures for name, figures in X86.items() if row.device.startswith(name)), None)
        if found is None or not (row.gmacs and row.macts_m and row.params_m):
            continue
        tflops, rate = found
        design.append([2 * row.gmacs / tflops, row.macts_m * 4 / rate, row.params_m * 4 / rate, 1e-3])
        logs.append(math.log(ms))
        kept.append(row)
    return Table(("compute", "activations", "weights", "fixed"), np.array(design), np.array(logs), tuple(kept))


def likelihood(table: Table, free: Array, start: Array, groups: Sequence[NDArray[np.int_]]) -> float:
    """Minus the log likelihood of the logarithms of factors and spreads, with weak priors."""
    factors, spreads = free[: len(table.names)], np.exp(2 * free[len(table.names) :])
    parts = table.design * np.exp(factors)
    total = parts.sum(axis=1)
    error = table.logs - np.log(total)
    fixed = parts[:, -1] / total
    value = 0.5 * float(np.sum(np.square((free - start) / 1.0)))
    for members in groups:
        e, f = error[members], fixed[members]
        covariance = spreads[0] * np.outer(1 - f, 1 - f) + spreads[1] * np.outer(f, f) + spreads[2] * np.eye(len(e))
        value += 0.5 * float(e @ np.linalg.solve(covariance, e) + np.linalg.slogdet(covariance)[1])
    return value


def learn(table: Table, index: NDArray[np.int_]) -> tuple[Array, Spread]:
    """Factors and spreads from some of the rows, no more than four of each device, model and precision."""
    few = index[thinned([table.rows[i] for i in index.tolist()], 4, 400)]
    part = Table(table.names, table.design[few], table.logs[few], tuple(table.rows[i] for i in few.tolist()))
    names = np.array([protocol(row) for row in part.rows])
    groups = [np.flatnonzero(names == name) for name in np.unique(names)]
    factors = [EXPECTED["cycles"] if name in CORES else EXPECTED[name] for name in table.names]
    start = np.log([*factors, 0.3, 0.3, 0.25])
    found = minimize(lambda x: likelihood(part, x, start, groups), start, method="L-BFGS-B", options={"maxiter": 60})
    scale, fixed, residual = np.exp(found.x[-3:])
    return np.asarray(found.x[: len(table.names)]), Spread(float(scale), float(fixed), float(residual))


@dataclass(frozen=True)
class LeftOut:
    """One row per prediction of a row whose model family was left out."""

    error: Array  # absolute, as a fraction
    off: Array  # of the logarithm, in the prediction's own deviations
    deviation: Array
    fold: Array

    def reach(self, without: int | None = None) -> float:
        """Deviations that hold nine in ten, of all folds or of all but one."""
        used = self.off if without is None else self.off[self.fold != without]
        return float(np.quantile(used, min(0.9 * (len(used) + 1) / len(used), 1.0)))

    def inside(self) -> Array:
        """Whether a row is inside an interval whose reach the other folds said."""
        return np.array([off <= self.reach(fold) for off, fold in zip(self.off, self.fold, strict=True)], float)


def leave_out(table: Table, anchors: int, seed: int, folds: int = 5) -> LeftOut:
    """Predict the rows of families left out, in folds, each protocol by so many of its rows drawn at random."""
    rng = np.random.default_rng(seed)
    fold = np.array([fold_of(row.family, folds) for row in table.rows])
    names = np.array([protocol(row) for row in table.rows])
    found = []
    for number in range(folds):
        factors, prior = learn(table, np.flatnonzero(fold != number))
        parts = table.design * np.exp(factors)
        body, fixed = parts[:, :-1].sum(axis=1), parts[:, -1]
        for name in np.unique(names[fold == number]):
            here = np.flatnonzero(names == name)
            drawn = set(rng.choice(here, min(anchors, len(here) - 1), replace=False)) if anchors else set()
            line = fit_line([(body[i], fixed[i], math.exp(table.logs[i])) for i in sorted(drawn)], prior)
            for i in here:
                if fold[i] == number and i not in drawn:
                    ms, deviation = line.predict(body[i], fixed[i])
                    off = table.logs[i] - math.log(ms)
                    found.append((abs(math.exp(-off) - 1), abs(off) / deviation, deviation, number))
    error, off, away, which = np.array(found, float).T
    return LeftOut(error, off, away, which)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--evaluate", action="store_true", help="print errors of families left out, write nothing")
    parser.add_argument("--draws", type=int, default=3, help="of anchors")
    options = parser.parse_args()
    rows, measured = latency_memory.stored()
    tables = {
        "nvidia-gpu": gpu_table(rows, measured), "cortex-m": mcu_table(rows, measured),
        "x86-cpu": x86_table(rows, measured),
    }  # fmt: skip
    if options.evaluate:
        print("family       anchors  rows  median     p90  inside  width")
        for family, table in tables.items():
            for anchors in (0, 2, 4):
                found = [leave_out(table, anchors, seed) for seed in range(options.draws if anchors else 1)]
                error, inside = np.concatenate([f.error for f in found]), np.concatenate([f.inside() for f in found])
                width = np.median(np.concatenate([np.exp(2 * f.reach() * f.deviation) for f in found]))
                print(
                    f"{family:12} {anchors:7d}  {len(found[0].error):4d}  {np.median(error):6.1%}  "
                    f"{np.percentile(error, 90):6.1%}  {np.mean(inside):6.1%}  {width:4.1f}x"
                )
        return
    print(
        "# Written by tools/fit_totals.py; what the keys mean is in profiles/totals.py. Spreads are standard deviations"
    )
    print("# of natural logarithms: between protocols, and of one network within a protocol.\n")
    for family, table in tables.items():
        factors, prior = learn(table, np.arange(len(table.rows)))
        value = dict(zip(table.names, np.exp(factors), strict=True))
        families = {row.family for row in table.rows}
        protocols = {protocol(row) for row in table.rows}
        print(f"[{family}]")
        print(
            f'origin = "{len(table.rows)} published rows, {len(families)} model families, {len(protocols)} protocols"'
        )
        if family == "cortex-m":
            print(f"fixed_us = {50 * value['fixed']:.4g}\nfloat = {EXPECTED['float']}")
        else:
            print("\n".join(f"{name} = {value[name]:.4g}" for name in table.names[:-1]))
            print(f"fixed_us = {value['fixed'] if family == 'nvidia-gpu' else 1e-3 * value['fixed'] * 3000:.4g}")
        reach = max(leave_out(table, anchors, 0).reach() for anchors in (0, 2))
        scale = max(prior.scale, 0.4) if len(protocols) < 5 else prior.scale  # two processors cannot show a spread
        print(
            f"scale_spread = {scale:.3f}\nfixed_spread = {prior.fixed:.3f}\nresidual = {prior.residual:.3f}\n"
            f"reach = {reach:.3f}\n"
        )
        if family == "cortex-m":
            print("[cortex-m.cycles_per_mac]")
            print("\n".join(f"{name} = {value[name]:.4g}" for name in CORES) + "\n")


if __name__ == "__main__":
    main()
