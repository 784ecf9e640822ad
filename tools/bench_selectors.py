"""Hold every selector against a table of fully trained students: regret, cost, and rank correlation.

    python -m tools.bench_selectors tests/data/students_*.json

For each table, target and latency budget, every selector chooses with the same number of full trainings to spend, once
per seed. Regret is points of accuracy (on validation and test data, mean of the table's full trainings) below the best
student that the budget admits. Kendall's tau is between a selector's order of the admitted students and that accuracy.
Training is counted in full trainings, and in CPU seconds as recorded in the table, as a share of training every
admitted student once; the final training of the chosen student, which everyone pays, is not in it.
"""

import argparse
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress import catalog
from compress.contracts.selector import Selector
from compress.selection.correlation import kendall
from compress.selection.foresight import foretold
from compress.selection.ranking import capacity
from compress.strict import read
from tools.student_table.bed import PROTOCOLS, Bed
from tools.student_table.problem import Table, TableProblem, load

LESS = 50.0  # times less training than training everyone
SHORT = 1 / 16
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "halving": {"share": SHORT},
    "random_choice": {"share": SHORT},
    "largest_that_fits": {},
    "nsga2": {"share": SHORT},
    "tpe": {"share": SHORT},
    "capacity_gap_law": {"share": SHORT},
    "diswot": {"share": SHORT},
}
BUDGETS = (0.4, 0.6, 0.8, 1.0)  # share of the students that the latency budget admits


@dataclass(frozen=True)
class Result:
    """One search."""

    task: str
    target: str
    admitted: float
    selector: str
    seed: int
    regret: float  # points
    trainings: float
    cpu_s: float
    everyone_s: float
    students: int
    tau: float


def search(
    table: Table,
    target: str,
    admitted: float,
    name: str,
    settings: Mapping[str, Any],
    seed: int,
    training: float,
    bed: Bed | None = None,
    finals: int = 1,
) -> Result:
    """Run one selector once; of its best `finals` that one is chosen which scores most after a full training."""
    problem = TableProblem(table, target, table.limit_ms(target, admitted), training=training, seed=seed, bed=bed)
    if name == "capacity_gap_law":
        settings = {**settings, "teacher_m": table.teacher_params / 1e6}
    selector: Selector = read(catalog.load("compress.selectors", name).SELECTOR, settings, name)
    ranked = [c for c in selector(problem).ranked if c.rejected is None]
    order = [-float(place) for place in range(len(ranked))]
    chosen = ranked[0]
    if finals > 1:
        chosen = max(ranked[:finals], key=lambda c: problem.rows[c.identity].scores[1.0][seed % 2]["val"])
    return Result(
        table.task,
        target,
        admitted,
        name,
        seed,
        problem.regret(chosen),
        problem.spent + (finals if finals > 1 else 0),
        problem.cpu_s,
        problem.everyone,
        len(ranked),
        kendall(order, [problem.rows[c.identity].accuracy for c in ranked]),
    )


def cheap_scores(table: Table) -> list[str]:
    """Lines: how well cheap scores foretell the accuracy among all students, and how far seeds are apart."""
    truth = [row.accuracy for row in table.rows]
    lines = [f"  capacity: tau {kendall([capacity(c.cost) for c in table.at('jetson')], truth):.2f}"]
    slope = read(catalog.load("compress.selectors", "halving").SELECTOR, {}, "halving").slope
    for share in sorted(table.rows[0].scores)[:-1]:
        seeds = range(len(table.rows[0].scores[share]))
        tried = [
            [
                replace(c, score=row.scores[share][seed]["val"], fidelity=share)
                for c, row in zip(table.at("jetson"), table.rows, strict=True)
            ]
            for seed in seeds
        ]
        plain = statistics.fmean(kendall([c.score or 0.0 for c in found], truth) for found in tried)
        added = statistics.fmean(
            kendall([foretold(replace(c, cost=replace(c.cost, macs=row.macs)), slope) for c, row in both], truth)
            for both in (list(zip(found, table.rows, strict=True)) for found in tried)
        )
        lines.append(
            f"  score after {share:g} of the training: tau {plain:.2f}, with the added term {added:.2f} "
            f"(mean of {len(seeds)} seeds)"
        )
    spread = statistics.fmean(
        statistics.variance([one["test"] for one in row.scores[1.0].values()]) for row in table.rows
    )
    lines.append(
        f"  seeds of one student, full training: standard deviation {100 * math.sqrt(spread):.2f} points on test data"
    )
    return lines


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """Means over seeds and budgets, with the standard error over seeds."""
    by_seed: dict[int, list[float]] = {}
    for one in results:
        by_seed.setdefault(one.seed, []).append(one.regret)
    means = [statistics.fmean(values) for values in by_seed.values()]
    return {
        "regret": statistics.fmean(means),
        "regret_sd": statistics.stdev(means) if len(means) > 1 else math.nan,
        "worst": max(one.regret for one in results),
        "within_half": statistics.fmean(one.regret <= 0.5 for one in results),
        "trainings": statistics.fmean(one.trainings for one in results),
        "share_of_cpu": statistics.fmean(one.cpu_s / one.everyone_s for one in results),
        "tau": float(np.nanmean([one.tau for one in results])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Hold every selector against tables of fully trained students.")
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--targets", default="jetson,hearing_aid")
    parser.add_argument("--selectors", default=",".join(SETTINGS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--finals", type=int, default=1, help="the best so many are trained fully, and counted")
    parser.add_argument("--bed", type=Path, help="the task's data, for selectors that look at networks")
    parser.add_argument("--work", type=Path, help="folder for the bed's teacher; makes the bed")
    arguments = parser.parse_args()
    everything: list[Result] = []
    for path in arguments.tables:
        table = load(path)
        training = len(table.rows) / LESS
        bed = None if arguments.work is None else Bed(PROTOCOLS[table.task], arguments.bed, arguments.work)
        print(
            f"\n{table.task}: {len(table.rows)} students, teacher {100 * table.teacher_test:.2f} %, best "
            f"{100 * max(row.accuracy for row in table.rows):.2f} %; a search may spend {training:.2f} full trainings"
        )
        print("\n".join(cheap_scores(table)))
        for target in arguments.targets.split(","):
            print(
                f"{target}\n  {'selector':20}{'regret':>8}{'sd':>7}{'worst':>8}{'<=0.5':>7}{'trainings':>11}"
                f"{'of all':>9}{'tau':>7}"
            )
            for name in arguments.selectors.split(","):
                if name not in catalog.names("compress.selectors"):
                    continue
                own = [
                    search(table, target, admitted, name, SETTINGS.get(name, {}), seed, training, bed, arguments.finals)
                    for admitted in BUDGETS
                    for seed in range(arguments.seeds)
                ]
                everything += own
                row = summary(own)
                print(
                    f"  {name:20}{row['regret']:8.2f}{row['regret_sd']:7.2f}{row['worst']:8.2f}"
                    f"{100 * row['within_half']:6.0f}%{row['trainings']:11.2f}{100 * row['share_of_cpu']:8.1f}%"
                    f"{row['tau']:7.2f}"
                )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(one) for one in everything], indent=1))


if __name__ == "__main__":
    main()
