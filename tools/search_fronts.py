"""What choosing students by multiply-accumulates instead of the profiler's latency costs, on each target.

    python tools/search_fronts.py TABLE.json [--target jetson --target hearing_aid] [--share 1.0] [--json FILE]
        [--html FILE]

TABLE.json is what `tools/student_table` wrote: students, all fully trained, with their cost on each target. They are
chosen by their validation score and compared by their test score, each the mean over seeds; nothing is trained here.

For a latency budget the profiler admits the students whose latency is within it, and the best of them is chosen. A
budget of multiply-accumulates has to be calibrated to the same latency, which is done in two ways:

- kindly: of all budgets of multiply-accumulates, the one whose choice scores best and still meets the latency. Whoever
  has no profiler cannot know it; what is lost even so is the least that is lost.
- as one would: a power law is fitted to latency over multiply-accumulates, and gives the budget for the latency. Its
  choices may be over the latency; how often and how far is printed.

The choices for all latency budgets are the front of score and latency; those for all budgets of multiply-accumulates
are the front of score and multiply-accumulates, drawn where its students' latencies put it. Budgets are swept evenly
over the logarithm of the latency, once over the whole front and once over the part of it that is within `WITHIN` of the
best score. Intervals are percentile bootstraps over students (90 %).
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import numpy as np
import numpy.typing as npt

from compress.page import figure, numbers, shell
from compress.page.figure import Figure, hover
from compress.page.html import Markup, tag
from compress.page.plans import describe
from compress.selection.correlation import spearman
from profiles.atomic import write_text

Float = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]
BUDGETS = 25
RESAMPLES = 500
QUANTILES = (0.05, 0.95)
WITHIN = 0.1  # of the best score, a fraction: further below nobody would ship a student
TABLE_BUDGETS = 7  # of the swept ones, that are printed


class TableError(ValueError):
    """The table lacks what is asked for."""


@dataclass(frozen=True)
class Students:
    """A table's students on one target, one value each.

    Attributes:
        latency_ms: medians; `low_ms` and `high_ms` are the ends of their 90 % intervals.
        macs: of the whole model on the target.
        val, test: scores, fractions, means over seeds.
        origin: of the latencies.
    """

    names: tuple[str, ...]
    latency_ms: Float
    low_ms: Float
    high_ms: Float
    macs: Float
    val: Float
    test: Float
    origin: str

    def drawn(self, places: Places) -> "Students":
        """Those at the given places, some more than once."""
        return Students(
            tuple(self.names[place] for place in places),
            self.latency_ms[places],
            self.low_ms[places],
            self.high_ms[places],
            self.macs[places],
            self.val[places],
            self.test[places],
            self.origin,
        )


@dataclass(frozen=True)
class At:
    """The choices at one latency budget: positions of students; None where no student is admitted."""

    budget_ms: float
    profiler: int | None
    kindly: int | None
    fitted: int | None


@dataclass(frozen=True)
class Loss:
    """Points of the test score that choosing by multiply-accumulates loses against the profiler, over the sweep.

    Attributes:
        mean, worst: over the budgets at which both found a student.
        low, high: 90 % interval of the mean.
        budgets: of the sweep.
        none: budgets at which multiply-accumulates found no student although the profiler did.
    """

    mean: float
    low: float
    high: float
    worst: float
    budgets: int
    none: int


def read(table: Mapping[str, Any], target: str, share: str) -> Students:
    """The students of a table that were trained for this share and costed on this target.

    Raises:
        TableError: there is none; says what the table has.
    """
    rows = [row for row in table["students"] if target in row["costs"] and row["scores"].get(share)]
    if len(rows) < 2:
        targets = sorted({name for row in table["students"] for name in row["costs"]})
        shares = sorted({name for row in table["students"] for name in row["scores"]})
        raise TableError(
            f"{len(rows)} students were trained for a share of {share} and costed on {target!r}; "
            f"the table has the targets {', '.join(targets)} and the shares {', '.join(shares)}"
        )
    costs = [row["costs"][target] for row in rows]
    seeds = [list(row["scores"][share].values()) for row in rows]
    return Students(
        tuple(f"{row['space']}: {describe(row['plan'])}" for row in rows),
        np.array([cost["latency_ms"] for cost in costs]),
        np.array([cost["interval_ms"][0] for cost in costs]),
        np.array([cost["interval_ms"][1] for cost in costs]),
        np.array([float(cost["macs"]) for cost in costs]),
        np.array([np.mean([seed["val"] for seed in each]) for each in seeds]),
        np.array([np.mean([seed["test"] for seed in each]) for each in seeds]),
        "/".join(sorted({cost["origin"] for cost in costs})),
    )


def front(cost: Float, score: Float) -> list[int]:
    """Positions of the students that are chosen for some budget of this cost, the cheapest first: each scores more
    than all that cost no more. Of equal scores the cheaper one is chosen, of equal costs the better one."""
    found: list[int] = []
    best = -np.inf
    for place in np.lexsort((-score, cost)):
        if score[place] > best:
            best = score[place]
            found.append(int(place))
    return found


def swept(students: Students, within: float = 1.0, count: int = BUDGETS) -> Float:
    """Latency budgets, evenly over the logarithm: from the fastest student's to the last that changes a choice.

    Args:
        within: leave out budgets whose best student is further below the best of all, in fractions of the score.
    """
    places = [
        place
        for place in front(students.latency_ms, students.val)
        if students.val[place] >= students.val.max() - within
    ]
    line = students.latency_ms[places]
    return np.geomspace(line[0], max(line[-1], line[0] * 1.001), count) * (1 + 1e-9)


def choices(students: Students, budgets: Float) -> list[At]:
    """Who is chosen at each budget, by each way."""
    by_latency = front(students.latency_ms, students.val)
    by_macs = front(students.macs, students.val)
    slope, level = power_law(students.macs, students.latency_ms)
    found = []
    for budget in budgets:
        admitted = [place for place in by_latency if students.latency_ms[place] <= budget]
        kind = [place for place in by_macs if students.latency_ms[place] <= budget]
        most = (np.log(budget) - level) / slope if slope > 0 else np.inf  # logarithm: few students fit a flat law
        fitted = [place for place in by_macs if np.log(students.macs[place]) <= most]
        found.append(At(float(budget), *(places[-1] if places else None for places in (admitted, kind, fitted))))
    return found


def power_law(macs: Float, latency_ms: Float) -> tuple[float, float]:
    """Slope and level of log latency over log multiply-accumulates; slope 0 where they do not vary."""
    if float(np.ptp(macs)) == 0:
        return 0.0, float(np.mean(np.log(latency_ms)))
    slope, level = np.polyfit(np.log(macs), np.log(latency_ms), 1)
    return float(slope), float(level)


def differences(students: Students, found: Sequence[At]) -> Float:
    """Test score of the profiler's choice less that of the kindly calibrated one, where both chose."""
    both = [(at.profiler, at.kindly) for at in found if at.profiler is not None and at.kindly is not None]
    return np.array([students.test[profiler] - students.test[kindly] for profiler, kindly in both])


def loss(students: Students, budgets: Float, *, seed: int = 0, resamples: int = RESAMPLES) -> Loss:
    """What is lost over the sweep, and how sure that is."""
    found = choices(students, budgets)
    lost = differences(students, found)
    if not lost.size:
        raise TableError("by multiply-accumulates no student is within any of the budgets")
    rng = np.random.default_rng(seed)
    means = []
    for places in rng.integers(0, len(students.names), (resamples, len(students.names))):
        again = students.drawn(places)
        each = differences(again, choices(again, budgets))
        if each.size:
            means.append(float(each.mean()))
    low, high = np.quantile(means, QUANTILES)
    none = sum(at.kindly is None and at.profiler is not None for at in found)
    return Loss(float(lost.mean()), float(low), float(high), float(lost.max()), len(found), none)


def across(one: Students, other: Students, count: int = BUDGETS) -> dict[str, float]:
    """Whether two targets want the same students, at budgets of the same rank in each target's sweep.

    Returns:
        "differ": share of the sweep at which the choices differ. "over": share of it at which the choice for `one` is
        over the budget of `other`. "loss": mean points of test score that the choice for `one` is below the choice
        for `other`, where it is within the budget.
    """
    here, there = choices(one, swept(one, count=count)), choices(other, swept(other, count=count))
    place = {name: number for number, name in enumerate(other.names)}
    pairs = []
    for a, b in zip(here, there, strict=True):
        if a.profiler is not None and b.profiler is not None:
            pairs.append((place[one.names[a.profiler]], b.profiler, b.budget_ms))
    within = [(mine, own) for mine, own, budget in pairs if other.latency_ms[mine] <= budget]
    lost = [float(other.test[own] - other.test[mine]) for mine, own in within]
    return {
        "differ": float(np.mean([mine != own for mine, own, _ in pairs])),
        "over": 1 - len(within) / len(pairs),
        "loss": float(np.mean(lost)) if lost else float("nan"),
    }


def told(target: str, students: Students) -> tuple[dict[str, Any], str]:
    """One target's figures, for machines and for people."""
    budgets = swept(students)
    found, lost, near = choices(students, budgets), loss(students, budgets), loss(students, swept(students, WITHIN))
    fitted = [(at.budget_ms, at.fitted) for at in found if at.fitted is not None]
    ratios = [float(students.latency_ms[place]) / budget for budget, place in fitted]
    over = sum(ratio > 1 for ratio in ratios)
    rank = spearman(students.macs, students.latency_ms)
    fronts = {
        "latency": front(students.latency_ms, students.val),
        "macs": front(students.macs, students.val),
    }
    data = {
        "students": len(students.names),
        "origin": students.origin,
        "spearman_macs_latency": rank,
        "budgets": len(found),
        "loss_points": _points(lost),
        "loss_points_near_the_best": _points(near),
        "fitted_over_budget": over / len(found),
        "fitted_worst_ratio": max(ratios, default=float("nan")),
        "fronts": {name: [_row(students, place) for place in places] for name, places in fronts.items()},
        "sweep": [
            {"budget_ms": at.budget_ms}
            | {
                way: None if getattr(at, way) is None else _row(students, getattr(at, way))
                for way in ("profiler", "kindly", "fitted")
            }
            for at in found
        ],
    }
    lines = [
        f"{target}: {len(students.names)} students, latency {students.origin}, "
        f"Spearman of multiply-accumulates and latency {rank:.3f}",
        f"  by multiply-accumulates, kindly calibrated: {_lost(lost)}",
        f"  the same where the profiler's choice is within {100 * WITHIN:.0f} points of the best: {_lost(near)}",
        f"  by multiply-accumulates, from a fitted power law: over the budget at {over} of {len(found)}, "
        f"by {max(ratios, default=1.0):.2f} times at worst",
        f"  {'budget':>12}  {'profiler':>20}  {'MACs, kindly':>20}  {'MACs, fitted':>20}",
    ]
    for place in np.unique(np.linspace(0, len(found) - 1, TABLE_BUDGETS).astype(int)):
        at = found[place]
        cells = [_cell(students, choice) for choice in (at.profiler, at.kindly, at.fitted)]
        lines.append(f"  {at.budget_ms:>9.4g} ms  " + "  ".join(f"{cell:>20}" for cell in cells))
    return data, "\n".join(lines)


def _points(lost: Loss) -> dict[str, float]:
    points = {key: 100 * getattr(lost, key) for key in ("mean", "low", "high", "worst")}
    return points | {"budgets": lost.budgets, "no_student": lost.none}


def _lost(lost: Loss) -> str:
    return (
        f"{100 * lost.mean:+.2f} points lost on average over {lost.budgets} budgets ({100 * lost.low:+.2f} to "
        f"{100 * lost.high:+.2f}), {100 * lost.worst:.2f} at worst; no student at {lost.none} of them"
    )


def _row(students: Students, place: int) -> dict[str, Any]:
    return {
        "student": students.names[place],
        "latency_ms": float(students.latency_ms[place]),
        "interval_ms": [float(students.low_ms[place]), float(students.high_ms[place])],
        "macs": int(students.macs[place]),
        "val": float(students.val[place]),
        "test": float(students.test[place]),
    }


def _cell(students: Students, place: int | None) -> str:
    return "none" if place is None else f"{100 * students.test[place]:.2f} % {students.latency_ms[place]:.4g} ms"


def plot(target: str, students: Students) -> Markup:
    """Both fronts over latency, all students behind them."""
    texts = [
        hover(
            name,
            f"{numbers.percent(float(test))} test, {numbers.percent(float(val))} validation",
            f"{numbers.milliseconds(float(ms))} ({students.origin}, {low:.3g} to {high:.3g})",
            f"{numbers.count(float(macs))} MACs",
        )
        for name, ms, low, high, macs, val, test in zip(
            students.names,
            students.latency_ms,
            students.low_ms,
            students.high_ms,
            students.macs,
            students.val,
            students.test,
            strict=True,
        )
    ]
    looks = (
        ("all students", list(range(len(students.names))), "markers", "--rejected", "circle-open", "solid"),
        ("front by latency", front(students.latency_ms, students.val), "lines+markers", "--int8", "circle", "solid"),
        ("front by MACs", front(students.macs, students.val), "lines+markers", "--chosen", "diamond", "dot"),
    )
    traces = []
    for name, places, mode, color, symbol, dash in looks:
        trace: dict[str, Any] = {
            "name": name,
            "mode": mode,
            "x": [float(students.latency_ms[place]) for place in places],
            "y": [100 * float(students.test[place]) for place in places],
            "hovertext": [texts[place] for place in places],
            "hoverinfo": "text",
            "marker": {"symbol": symbol, "color": color, "size": 7 if mode == "markers" else 10},
            "line": {"color": color, "dash": dash, "width": 1.5},
        }
        if mode != "markers":
            trace["error_x"] = {
                "type": "data",
                "symmetric": False,
                "array": [float(students.high_ms[p] - students.latency_ms[p]) for p in places],
                "arrayminus": [float(students.latency_ms[p] - students.low_ms[p]) for p in places],
                "color": color,
                "thickness": 0.8,
                "width": 2,
            }
        traces.append(trace)
    layout = {
        "xaxis": {"title": {"text": f"latency on {target}, ms"}, "type": "log"},
        "yaxis": {"title": {"text": "test score, %"}},
        "showlegend": True,
    }
    caption = (
        "Students are put on a front by their validation score and drawn at their test score. Whiskers are the 90 % "
        f"intervals of the {students.origin} latencies."
    )
    box = figure.box(f"plot-{target}", Figure(traces, layout, 480), label=f"Two fronts on {target}", caption=caption)
    return tag("section", tag("h2", target), box)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 2 where the table lacks what is asked for."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("table", type=Path)
    parser.add_argument("--target", action="append", help="again for each; jetson and hearing_aid where none is given")
    parser.add_argument("--share", default="1.0", help="of the full training, as the table writes it")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--html", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    targets = options.target or ["jetson", "hearing_aid"]
    table = json.loads(options.table.read_text(encoding="utf-8"))
    data: dict[str, Any] = {"table": options.table.name, "share": options.share, "targets": {}, "across": {}}
    try:
        students = {target: read(table, target, options.share) for target in targets}
        for target, own in students.items():
            data["targets"][target], text = told(target, own)
            print(text)
    except TableError as error:
        print(f"search_fronts: {error}", file=sys.stderr)
        return 2
    for one in targets:
        for other in targets:
            if one != other:
                found = across(students[one], students[other])
                data["across"][f"{one} -> {other}"] = found
                print(
                    f"chosen for {one}, run on {other}: another student at {100 * found['differ']:.0f} % of the "
                    f"budgets; over the budget at {100 * found['over']:.0f} %; where it is within, "
                    f"{100 * found['loss']:+.2f} points lost"
                )
    if options.json:
        write_text(options.json, json.dumps(data, indent=1))
    if options.html:
        plots = [plot(target, own) for target, own in students.items()]
        write_text(options.html, shell.document("Fronts by latency and by multiply-accumulates", *plots))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
