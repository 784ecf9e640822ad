"""How far ways of measuring differ from each other, and networks within one, where the graph is known.

    python tools/fit_anchors.py published_latency.csv hardware.csv > profiles/latency/anchors.toml

The family's constants predict every published row without the row's own model family (tools/fit_latency.py). What is
left of its logarithm is explained by a factor on the kernels' time and one on the fixed time, both of the device, the
source, the runtime and the precision, and by the network; the three standard deviations are those of maximum
likelihood. They say how much two measured times can tell. Then anchors are drawn from each such group, many times, and
the others' errors are printed without and with them. Families without such rows are taken over as they stand.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).parent))
import fit_latency

from profiles.totals import Spread, fit_line

Array = NDArray[np.float64]
LEAST, ANCHORS, DRAWS = 4, 2, 40
INSIDE = 0.9
OTHERS = """
[cortex-m]
origin = "derived: 90 % of published cycles are 0.73 to 1.94 times the core's (scale); medians of networks left out, 9 to 22 % (residual)"
scale_spread = 0.297
fixed_spread = 1.000
residual = 0.150
reach = 1.645

[x86-cpu]
origin = "derived: 90 % of 937 networks on two processors are 0.61 to 2.27 times as slow on one (scale); totals.toml (residual)"
scale_spread = 0.400
fixed_spread = 1.000
residual = 0.223
reach = 1.645

[other]
origin = "assumed: wider than any family that was measured"
scale_spread = 0.600
fixed_spread = 1.000
residual = 0.300
reach = 1.645
"""  # noqa: E501


@dataclass(frozen=True)
class Case:
    """One published row as two parts of its prediction, and what was measured; milliseconds."""

    way: str  # device, source, runtime and precision
    body: float
    fixed: float
    measured: float


def cases(latencies: Path, hardware: Path) -> list[Case]:
    """TensorRT's rows, each predicted by constants that never saw its model family."""
    rows = fit_latency.read(latencies, hardware)
    fixed = float(np.exp(fit_latency.fit(rows).logs[fit_latency.NAMES.index("fixed_us")])) / 1e3
    predicted = fit_latency.physics(latencies, hardware)
    return [
        Case(
            f"{row.device} | {row.source} | {row.precision}",
            predicted[row.identity][0] * row.batch - fixed,
            fixed,
            row.latency_ms,
        )
        for row in rows
        if row.is_tensorrt and predicted[row.identity][0] * row.batch > fixed
    ]


def by_way(found: Sequence[Case]) -> Mapping[str, list[Case]]:
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in found:
        groups[case.way].append(case)
    return groups


def likeliest(found: Sequence[Case]) -> Spread:
    """Deviations of scale, fixed time and network; a group of many rows counts as much as one of twenty."""
    groups = [
        (
            np.array([np.log(c.measured / (c.body + c.fixed)) for c in members]),
            np.array([[c.body, c.fixed] for c in members]) / np.array([[c.body + c.fixed] for c in members]),
        )
        for members in by_way(found).values()
        if len(members) >= 2
    ]

    def cost(logs: Array) -> float:
        scale, fixed, residual = np.exp(logs)
        total = 0.0
        for y, share in groups:
            covariance = share @ np.diag([scale**2, fixed**2]) @ share.T + residual**2 * np.eye(len(y))
            _, determinant = np.linalg.slogdet(covariance)
            total += (y @ np.linalg.solve(covariance, y) + determinant) * min(1.0, 20 / len(y))
        return float(total)

    best = minimize(cost, np.log([0.3, 0.5, 0.2]), method="Nelder-Mead")
    scale, fixed, residual = np.exp(best.x)
    return Spread(float(scale), float(min(fixed, 1.0)), float(residual))


def drawn(found: Sequence[Case], prior: Spread, anchors: int) -> tuple[Array, Array]:
    """log(measured / predicted) of the rows that were not drawn, and the deviation that was expected of each."""
    rng = np.random.default_rng(0)
    errors, expected = [], []
    for members in by_way(found).values():
        if len(members) < LEAST:
            continue
        draws = DRAWS if anchors else 1
        for _ in range(draws):
            chosen = set(rng.choice(len(members), anchors, replace=False).tolist())
            line = fit_line([(members[i].body, members[i].fixed, members[i].measured) for i in chosen], prior)
            for index, case in enumerate(members):
                if index not in chosen:
                    ms, deviation = line.predict(case.body, case.fixed)
                    errors.append(np.log(case.measured / ms))
                    expected.append(deviation)
    return np.array(errors), np.array(expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("latencies", type=Path)
    parser.add_argument("hardware", type=Path)
    options = parser.parse_args()
    found = cases(options.latencies, options.hardware)
    prior = likeliest(found)
    errors, expected = drawn(found, prior, ANCHORS)
    reach = float(np.quantile(np.abs(errors) / expected, INSIDE))
    ways = sum(len(members) >= LEAST for members in by_way(found).values())
    print("# Written by tools/fit_anchors.py: standard deviations of natural logarithms; reach: how many hold 90 %.")
    for line in ("A100", "Jetson", ""):
        mine = [case for case in found if case.way.startswith(line)]
        for count in (0, 1, ANCHORS, 3):
            off, deviation = drawn(mine, prior, count)
            share = np.mean(np.abs(off) <= reach * deviation)
            absolute = np.abs(np.exp(-off) - 1)
            print(
                f"#   {line or 'all'}, {count} anchors: median {np.median(absolute):.0%}, p90 "
                f"{np.percentile(absolute, 90):.0%}, {share:.0%} inside {np.median(np.exp(2 * reach * deviation)):.1f}x"
            )
    print("\n[nvidia-gpu]")
    print(
        f'origin = "{len(found)} published rows predicted without their model family; two anchors drawn {DRAWS} times '
        f'from each of {ways} devices and ways of measuring"'
    )
    print(f"scale_spread = {prior.scale:.3f}\nfixed_spread = {prior.fixed:.3f}")
    print(f"residual = {prior.residual:.3f}\nreach = {reach:.3f}")
    print(OTHERS, end="")


if __name__ == "__main__":
    main()
