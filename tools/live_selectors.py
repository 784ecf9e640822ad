"""Hold selectors that make plans of their own against a table of fully trained students: they train as they ask.

    python -m tools.live_selectors tests/data/students_digits.json --work FOLDER
    python -m tools.live_selectors tests/data/students_spoken_digits.json --data ../shared/data/fsdd --work FOLDER

The bed of `tools/student_table` trains every student by the table's protocol. Each selector gets the table's training
budget (a fiftieth of training all) and its latency budgets. What it chooses is trained fully with the table's two
seeds; regret is points of accuracy (validation and test examples together) below the best student of the table within
the same latency, so a choice that beats the table has a negative one. Students over the table's largest
multiply-accumulates are out (`--any-size` lets them in): on a target where launches take the time, a network of the
teacher's size fits every budget, and no student of the table is that large.

Kendall's tau is between a selector's order of its first `--order` tried students and their full accuracy. There is none
over the table's students: these selectors know nothing of a student that they have not trained themselves.

Controls search a pool as large as the table, drawn from the one space that the selector searches.

Searches and trainings are kept in FOLDER, one line each; a stopped run goes on where it was.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from compress import catalog
from compress.contracts.selector import Selector
from compress.errors import RecipeError
from compress.selection.correlation import kendall
from compress.strict import read
from tools.bench_selectors import BUDGETS, LESS, SHORT
from tools.student_table.bed import PROTOCOLS, Bed
from tools.student_table.live import Limits, LiveProblem, Trainings, append, lines
from tools.student_table.problem import Table, accuracy, load

KEPT = 8  # of each search's tried students
SEEDS = (0, 1)  # of the table's full trainings


@dataclass(frozen=True)
class Arm:
    """One way to choose.

    Attributes:
        drawn_from: as `LiveProblem`.
        times: the budget of training that the others have.
    """

    selector: str
    settings: Mapping[str, Any]
    drawn_from: tuple[str, ...] = ()
    times: float = 1.0


SMALL: dict[str, Any] = {"search_channels": 8}
# Shares are of whole epochs, so that nothing is trained longer than it is charged.
ARMS: Mapping[str, Arm] = {
    # The budget is the only wish for size here; the paper's reward has one more.
    "n2n": Arm("n2n", {"share": SHORT, "params_exponent": 0.0}),
    "n2n_paper": Arm("n2n", {"share": SHORT}),
    # With its defaults it would need 10 trainings and more: the supernet costs 6 to 30 times a student of the table.
    "sd_darts": Arm("sd_darts", SMALL | {"share": 0.125, "epochs": 8, "batch_size": 16, "snapshots": 1, "sharp": 0}),
    "sd_darts_x10": Arm("sd_darts", SMALL | {"share": 1.0}, times=10.0),
    **{
        f"{name}/{space}": Arm(name, settings, (space,))
        for space in ("derived", "cells")
        for name, settings in (
            ("halving", {"share": SHORT}),
            ("random_choice", {"share": SHORT}),
            ("largest_that_fits", {}),
        )
    },
}


@dataclass(frozen=True)
class Tried:
    """A student that a search has ranked: its place is its place in the list."""

    space: str
    plan: Mapping[str, Any]
    identity: str
    macs: int
    params: int
    score: float | None
    fidelity: float


@dataclass(frozen=True)
class Found:
    """One search.

    Attributes:
        spent: full trainings asked for and charged.
        trained: the same by whole epochs.
        cpu_s: of the trials, when they were done.
        own_s: CPU seconds of the selector itself, such as a supernet's training and the costing.
        ranked: the first of those that keep to the budget.
        refused: why the selector would not search.
    """

    task: str
    target: str
    admitted: float
    arm: str
    seed: int
    most_macs: float
    spent: float
    trained: float
    cpu_s: float
    own_s: float
    ranked: tuple[Tried, ...]
    refused: str = ""

    @property
    def was_tried(self) -> bool:
        """Whether the choice was trained in the search. Otherwise it is the one student that the search could make
        within the budget, or it could make none, and the choice is one of the pool by size."""
        return self.ranked[0].score is not None


@dataclass(frozen=True)
class Bench:
    """A table, what trains by its protocol, and the file of finished searches."""

    table: Table
    trainings: Trainings
    searches: Path
    most_macs: float

    def limits(self, target: str, admitted: float) -> Limits:
        """Of latency and size."""
        return Limits(self.table.limit_ms(target, admitted), self.most_macs)

    def search(self, target: str, admitted: float, name: str, seed: int) -> Found:
        """Run one arm once, or read what it found."""
        asked = (target, admitted, name, seed, self.most_macs)
        for row in lines(self.searches):
            if (row["target"], row["admitted"], row["arm"], row["seed"], row["most_macs"]) == asked:
                return Found(**{**row, "ranked": tuple(Tried(**one) for one in row["ranked"])})
        arm = ARMS[name]
        began = time.process_time()
        problem = LiveProblem(
            self.trainings,
            self.table,
            target,
            self.limits(target, admitted),
            training=arm.times * len(self.table.rows) / LESS,
            seed=seed,
            drawn_from=arm.drawn_from,
        )
        selector: Selector = read(catalog.load("compress.selectors", arm.selector).SELECTOR, arm.settings, name)
        ranked, refused = [], ""
        try:
            ranked = [c for c in selector(problem).ranked if c.rejected is None][:KEPT]
        except RecipeError as error:
            refused = error.what
        own_s = time.process_time() - began - problem.training_s
        found = Found(
            self.table.task,
            target,
            admitted,
            name,
            seed,
            self.most_macs,
            problem.spent,
            problem.trained,
            problem.cpu_s,
            own_s,
            tuple(
                Tried(c.space, c.plan.to_json(), c.identity, c.cost.macs, c.cost.params, c.score, c.fidelity)
                for c in ranked
            ),
            refused,
        )
        append(self.searches, asdict(found))
        return found

    def full(self, student: Tried) -> float:
        """Accuracy after full trainings with the table's seeds, from the table for a student that is in it."""
        for row in self.table.rows:
            if row.identity == student.identity:
                return row.accuracy
        plan = self.trainings.bed.spaces[student.space].from_json(student.plan)
        done = [asdict(self.trainings(student.space, plan, 1.0, seed)) for seed in SEEDS]
        return accuracy(done, self.table.rows[0].examples)

    def regret(self, found: Found) -> float:
        """Points below the best student of the table within the same latency; negative above it."""
        limit = self.table.limit_ms(found.target, found.admitted)
        best = max(row.accuracy for row in self.table.rows if row.costs[found.target].latency_ms <= limit)
        return 100 * (best - self.full(found.ranked[0]))

    def tau(self, found: Found, order: int) -> float:
        """Of the first `order` tried students; NaN below two."""
        tried = [one for one in found.ranked if one.score is not None][:order]
        if len(tried) < 2:
            return math.nan
        return kendall([-float(place) for place in range(len(tried))], [self.full(one) for one in tried])

    def everyone_s(self, found: Found) -> float:
        """CPU seconds, as recorded in the table, of training every admitted student once, fully."""
        limit = self.table.limit_ms(found.target, found.admitted)
        full = [row.scores[1.0].values() for row in self.table.rows if row.costs[found.target].latency_ms <= limit]
        return sum(statistics.fmean(one["cpu_s"] for one in seeds) for seeds in full)


def report(bench: Bench, found: Sequence[Found], order: int) -> list[str]:
    """Lines: per target and arm the means over budgets and seeds, with the standard deviation over seeds."""
    rows = [
        f"  {'':28}{'regret':>8}{'sd':>7}{'worst':>8}{'beats':>7}{'tried':>7}{'spent':>7}{'epochs':>8}{'of 68':>8}"
        f"{'CPU':>7}{'own':>6}{'tau':>7}{'MACs':>8}{'searches':>10}"
    ]
    for target in dict.fromkeys(one.target for one in found):
        for name in dict.fromkeys(one.arm for one in found):
            own = [one for one in found if (one.target, one.arm) == (target, name) and one.ranked]
            if not own:
                continue
            regrets = [bench.regret(one) for one in own]
            by_seed = [
                statistics.fmean(regret for regret, one in zip(regrets, own, strict=True) if one.seed == seed)
                for seed in dict.fromkeys(one.seed for one in own)
            ]
            taus = [tau for tau in (bench.tau(one, order) for one in own) if math.isfinite(tau)]
            spent = statistics.fmean(one.spent for one in own)
            cpu = statistics.fmean((one.cpu_s + one.own_s) / bench.everyone_s(one) for one in own)
            rows.append(
                f"  {f'{target} {name}':28}{statistics.fmean(by_seed):8.2f}"
                f"{statistics.stdev(by_seed) if len(by_seed) > 1 else math.nan:7.2f}{max(regrets):8.2f}"
                f"{100 * statistics.fmean(regret < 0 for regret in regrets):6.0f}%"
                f"{100 * statistics.fmean(one.was_tried for one in own):6.0f}%{spent:7.2f}"
                f"{statistics.fmean(one.trained for one in own):8.2f}{100 * spent / len(bench.table.rows):7.1f}%"
                f"{100 * cpu:6.1f}%{statistics.fmean(one.own_s for one in own):6.1f}"
                f"{statistics.fmean(taus) if taus else math.nan:7.2f}"
                f"{statistics.fmean(one.ranked[0].macs for one in own) / 1e3:7.0f}k{len(own):10}"
            )
    return rows


def repeats(bench: Bench, rows: int = 3) -> list[str]:
    """Where short trainings and costs of the table's first students are not what the table says."""
    wrong = []
    for row in bench.table.rows[:rows]:
        plan = bench.trainings.bed.spaces[row.space].from_json(row.plan.to_json())
        share = min(row.scores)
        now = bench.trainings(row.space, plan, share, 0).val
        if round(now, 5) != row.scores[share][0]["val"]:
            wrong.append(f"{row.identity} scores {now:.5f}, in the table {row.scores[share][0]['val']}")
        for target, cost in row.costs.items():
            latency = bench.trainings.bed.cost(row.space, plan, target).latency_ms
            if not math.isclose(latency, cost.latency_ms, rel_tol=1e-6):
                wrong.append(f"{row.identity} takes {latency:.6g} ms on {target}, in the table {cost.latency_ms:.6g}")
    return wrong


def run(
    bench: Bench, arms: Iterable[str], targets: Sequence[str], budgets: Sequence[float], seeds: int, order: int
) -> list[Found]:
    """Every search with the full trainings of its choice, the first seed of everything first."""
    found = []
    for seed in range(seeds):
        for admitted in budgets:
            for target in targets:
                for name in arms:
                    one = bench.search(target, admitted, name, seed)
                    found.append(one)
                    told = one.refused or f"{bench.regret(one):+.2f} points, tau {bench.tau(one, order):.2f}"
                    print(
                        f"seed {seed}, {target}, {100 * admitted:.0f} %: {name}: {told}, {one.spent:.2f} trainings,"
                        f" {one.cpu_s:.1f} CPU s of trials, {one.own_s:.1f} of its own",
                        flush=True,
                    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("table", type=Path)
    parser.add_argument("--data", type=Path, help="the task's data")
    parser.add_argument("--work", type=Path, required=True, help="folder for the teacher, searches and trainings")
    parser.add_argument("--arms", default="n2n,sd_darts", help=", ".join(ARMS))
    parser.add_argument("--targets", default="jetson,hearing_aid")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)), help="parts of the table that are admitted")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--order", type=int, default=1, help="so many tried students of each search are trained fully")
    parser.add_argument("--any-size", action="store_true", help="only latency limits a student")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table, work = load(arguments.table), arguments.work
    protocol = PROTOCOLS[table.task]
    bed = Bed(protocol, arguments.data, work / "teacher", more_spaces=("cells",))
    bench = Bench(
        table,
        Trainings(bed, work / "trainings.jsonl"),
        work / "searches.jsonl",
        math.inf if arguments.any_size else protocol.macs[1],
    )
    wrong = repeats(bench)
    if wrong:
        raise SystemExit("this bed does not repeat the table:\n" + "\n".join(wrong))
    budgets = [float(part) for part in arguments.budgets.split(",")]
    arms, targets = arguments.arms.split(","), arguments.targets.split(",")
    found = run(bench, arms, targets, budgets, arguments.seeds, arguments.order)
    print(f"\n{table.task}, {len(table.rows)} students, {len(table.rows) / LESS:.2f} trainings may be spent")
    print("\n".join(report(bench, found, arguments.order)))
    if arguments.json is not None:
        figures = [
            asdict(one) | {"regret": bench.regret(one), "tau": bench.tau(one, arguments.order)}
            for one in found
            if one.ranked
        ]
        arguments.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
