"""Where the candidates lie: accuracy against latency, and cost against cost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from compress.page import numbers
from compress.page.figure import Figure, Trace, hover, inert
from compress.page.plans import describe
from compress.page.reading import SHIPPED, Row, interval, metric_of, number, part, rows, word
from compress.selection.pareto import pareto_front

COSTS = (("MACs", "macs"), ("weights", "weight_bytes"), ("peak activation", "peak_activation_bytes"))
BUDGETS = {"macs": "macs", "weight_bytes": "weight_bytes", "peak_activation_bytes": "peak_activation_bytes"}


@dataclass(frozen=True)
class Axis:
    """A cost that the score is drawn against.

    Attributes:
        value: of a candidate or of a finished student's cost; None where it is not known.
        limit: key of its budget; "" for none.
    """

    label: str
    title: str
    value: Callable[[Row], float | None]
    limit: str = ""


def _memory(row: Row) -> float | None:
    weights, activations = number(row, "weight_bytes"), number(row, "peak_activation_bytes")
    return None if weights is None or activations is None else weights + activations


AXES = (
    Axis("latency", "latency at batch 1, ms", lambda row: number(row, "latency_ms"), "latency_ms"),
    Axis("memory", "weights and activations at their peak, bytes", _memory),
    Axis("MACs", "multiply-accumulates", lambda row: number(row, "macs"), "macs"),
    Axis("energy", "energy of one run, mJ", lambda row: number(row, "energy_mj")),
)
FULL = 1.0 - 1e-9  # of the training


@dataclass(frozen=True)
class _Finished:
    """The teacher or a finished student: test data, whole training."""

    name: str
    cost: Row
    score: float
    symbol: str
    color: str


def pareto(content: Row) -> Figure | None:
    """The score against a cost that the reader picks; below it, on the same axis, the candidates that were never
    trained."""
    selection = part(content, "selection")
    candidates = [row for row in rows(selection, "candidates") if number(row, "latency_ms") is not None]
    final = _final(content)
    if not candidates and not final:
        return None
    metric, unit = metric_of(content)
    offered = [axis for axis in AXES if all(axis.value(row) is not None for row in candidates)] or [AXES[0]]
    drawn = {axis.label: _against(axis, candidates, final, selection, unit) for axis in offered}
    traces = drawn[offered[0].label]
    kept = [place for place, trace in enumerate(traces) if trace["x"]]
    choices: dict[str, dict[str, Any]] = {}
    for axis in offered:
        spread = [end for row in candidates for end in _ends(row, axis)]
        choices[axis.label] = {
            "traces": [
                {key: value for key, value in drawn[axis.label][place].items() if key in ("x", "y", "error_x")}
                for place in kept
            ],
            "layout": {
                "xaxis": {"title": {"text": axis.title}, **_scale(spread)},
                "shapes": _limit(selection, axis.limit, "x") if axis.limit else [],
            },
        }
    layout = {
        "xaxis": {"anchor": "y2", "showgrid": True, **choices[offered[0].label]["layout"]["xaxis"]},
        "yaxis": {"title": {"text": inert(numbers.axis(metric, unit))}, "domain": [0.2, 1]},
        "yaxis2": {
            "domain": [0, 0.13],
            "range": [-0.6, 1.6],
            "tickvals": [0, 1],
            "ticktext": ["rejected", "not trained"],
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        },
        "shapes": choices[offered[0].label]["layout"]["shapes"],
        "showlegend": True,
    }
    return Figure([traces[place] for place in kept], layout, height=560, choices=choices if len(choices) > 1 else {})


def _against(
    axis: Axis, candidates: Sequence[Row], final: Sequence[_Finished], selection: Row, unit: str
) -> list[Trace]:
    """All traces against one cost; the same ones in the same order for each."""
    trained = [row for row in candidates if number(row, "score") is not None]
    others = [row for row in trained if not row.get("chosen")]
    finished = [row for row in others if (number(row, "fidelity") or 0.0) >= FULL]
    brief = [row for row in others if (number(row, "fidelity") or 0.0) < FULL]
    untrained = [row for row in candidates if number(row, "score") is None]
    front = _front(axis, trained, selection)
    line: Trace = {
        "name": "Pareto front",
        "mode": "lines",
        "x": [axis.value(row) for row in front],
        "y": [numbers.scaled(row["score"], unit) for row in front],
        "line": {"color": "--front", "width": 2, "dash": "dot", "shape": "hv"},
        "hoverinfo": "skip",
    }
    return [
        line,
        _scored(
            "trained briefly (validation)", brief, axis, "circle-open" if finished else "circle", "--candidate", 9, unit
        ),
        _scored("trained fully (validation)", finished, axis, "circle", "--candidate", 9, unit),
        _scored(
            "chosen (validation)", [row for row in trained if row.get("chosen")], axis, "diamond", "--chosen", 15, unit
        ),
        *(_finished(student, axis, unit) for student in final),
        _strip(
            "fits, not trained", [row for row in untrained if row.get("rejected") is None], axis, 1, "--candidate", unit
        ),
        _strip("rejected", [row for row in untrained if row.get("rejected") is not None], axis, 0, "--rejected", unit),
    ]


def _front(axis: Axis, trained: Sequence[Row], selection: Row) -> list[Row]:
    """The trained students that no other beats in score and this cost, the cheapest first."""
    by_id = {row.get("id"): row for row in trained}
    given = [by_id[place] for place in selection.get("front") or [] if place in by_id]
    if axis is not AXES[0] or not given:
        ready = [row for row in trained if row.get("rejected") is None]
        given = [ready[place] for place in pareto_front([(axis.value(row) or 0.0, -row["score"]) for row in ready])]
    return sorted(given, key=lambda row: axis.value(row) or 0.0)


def _ends(row: Row, axis: Axis) -> tuple[float, ...]:
    value = axis.value(row)
    around = interval(row) if axis is AXES[0] else None
    return around or (() if value is None else (value,))


def costs(content: Row) -> Figure | None:
    """Every candidate by latency and a second cost that the reader picks; lines show the budget."""
    selection = part(content, "selection")
    candidates = [row for row in rows(selection, "candidates") if number(row, "latency_ms") is not None]
    if not candidates:
        return None
    _, unit = metric_of(content)
    groups = [
        (name, symbol, color, size, [row for row in candidates if _state(row) == name])
        for name, symbol, color, size in (
            ("rejected", "x", "--rejected", 6),
            ("fits, not trained", "circle-open", "--candidate", 7),
            ("trained", "circle", "--candidate", 9),
            ("chosen", "diamond", "--chosen", 15),
        )
    ]
    groups = [group for group in groups if group[-1]]
    teacher = part(selection, "teacher")
    members: list[Sequence[Row]] = [group[-1] for group in groups]
    traces: list[Trace] = [
        {
            "name": name,
            "mode": "markers",
            "x": [row["latency_ms"] for row in members],
            "y": [row.get(COSTS[0][1]) for row in members],
            "hovertext": [_candidate_text(row, unit) for row in members],
            "hoverinfo": "text",
            "marker": {"symbol": symbol, "color": color, "size": size, "opacity": 0.45 if name == "rejected" else 0.9},
        }
        for name, symbol, color, size, members in groups
    ]
    if number(teacher, "latency_ms") is not None:
        members.append([teacher])
        traces.append(
            {
                "name": "teacher",
                "mode": "markers",
                "x": [teacher["latency_ms"]],
                "y": [teacher.get(COSTS[0][1])],
                "hovertext": [hover("teacher", *_cost_lines(teacher))],
                "hoverinfo": "text",
                "marker": {"symbol": "square", "color": "--teacher", "size": 12},
            }
        )
    choices = {}
    for label, key in COSTS:
        values = [row[key] for group in members for row in group if number(row, key)]
        title = {"text": label if key == "macs" else f"{label}, bytes"}
        axis: dict[str, object] = {"title": title, "tickformat": "~s"}
        choices[label] = {
            "y": [[row.get(key) for row in group] for group in members],
            "layout": {
                "yaxis": axis | _scale(values),
                "shapes": _limit(selection, "latency_ms", "x") + _limit(selection, BUDGETS[key], "y"),
            },
        }
    scale = _scale([row["latency_ms"] for group in members for row in group])
    layout = {"xaxis": scale | {"title": {"text": "latency at batch 1, ms"}}, "showlegend": True}
    return Figure(traces, layout, height=460, choices=choices)


def _scored(name: str, members: Sequence[Row], axis: Axis, symbol: str, color: str, size: int, unit: str) -> Trace:
    return {
        "name": name,
        "mode": "markers",
        "x": [axis.value(row) for row in members],
        "y": [numbers.scaled(row["score"], unit) for row in members],
        "error_x": _whiskers(members, axis, color),
        "hovertext": [_candidate_text(row, unit) for row in members],
        "hoverinfo": "text",
        "marker": {"symbol": symbol, "color": color, "size": size, "line": {"color": _edge(symbol, color), "width": 1}},
    }


def _edge(symbol: str, color: str) -> str:
    """Open marks are drawn by their edge, the others stand out from what is behind them by it."""
    return color if symbol.endswith("-open") else "--card"


def _strip(name: str, members: Sequence[Row], axis: Axis, level: int, color: str, unit: str) -> Trace:
    return {
        "name": name,
        "mode": "markers",
        "x": [axis.value(row) for row in members],
        "y": [level] * len(members),
        "yaxis": "y2",
        "showlegend": False,
        "hovertext": [_candidate_text(row, unit) for row in members],
        "hoverinfo": "text",
        "marker": {"symbol": "line-ns-open", "color": color, "size": 12, "opacity": 0.55},
    }


def _final(content: Row) -> list[_Finished]:
    """Teacher and finished students."""
    costs = part(content, "verify", "costs")
    accuracy = part(content, "verify", "accuracy")
    final = word(part(content, "verify"), "final")
    looks = (
        ("teacher", "teacher", "square", "--teacher"),
        ("float student", "float student", "triangle-up", "--float"),
        (SHIPPED, final, "star", "--int8"),
    )
    found = []
    for name, scored, symbol, color in looks:
        cost, score = part(costs, name), number(accuracy, scored)
        if score is not None and number(cost, "latency_ms") is not None:
            found.append(_Finished(name, cost, score, symbol, color))
    return found


def _finished(student: _Finished, axis: Axis, unit: str) -> Trace:
    text = hover(
        student.name, f"{numbers.score(student.score, unit)} on test data (measured)", *_cost_lines(student.cost)
    )
    return {
        "name": f"{student.name} (test)",
        "mode": "markers",
        "x": [axis.value(student.cost)],
        "y": [numbers.scaled(student.score, unit)],
        "error_x": _whiskers([student.cost], axis, student.color),
        "hovertext": [text],
        "hoverinfo": "text",
        "marker": {
            "symbol": student.symbol,
            "color": student.color,
            "size": 14,
            "line": {"color": "--card", "width": 1},
        },
    }


def _whiskers(members: Sequence[Row], axis: Axis, color: str) -> dict[str, object]:
    """Intervals of latencies; other costs are counted and have none."""
    if axis is not AXES[0]:
        return {"visible": False}
    return {"visible": True, **_error([(row["latency_ms"], interval(row)) for row in members], color)}


def _error(found: Sequence[tuple[float, tuple[float, float] | None]], color: str) -> dict[str, object]:
    ends = [(value, value) if around is None else around for value, around in found]
    return {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, high - value) for (value, _), (_, high) in zip(found, ends, strict=True)],
        "arrayminus": [max(0.0, value - low) for (value, _), (low, _) in zip(found, ends, strict=True)],
        "color": color,
        "thickness": 1,
        "width": 3,
    }


def _state(row: Row) -> str:
    """What became of a candidate."""
    if row.get("chosen"):
        return "chosen"
    if row.get("rejected") is not None:
        return "rejected"
    return "fits, not trained" if number(row, "score") is None else "trained"


def _candidate_text(row: Row, unit: str) -> str:
    score = number(row, "score")
    after = f"after {numbers.percent(number(row, 'fidelity'), 0)} of the training, measured"
    return hover(
        f"candidate {word(row, 'id')}, {word(row, 'space')}" + (" (chosen)" if row.get("chosen") else ""),
        describe(row.get("plan")),
        "" if score is None else f"{numbers.score(score, unit)} on validation data {after}",
        *_cost_lines(row),
        "" if row.get("rejected") is None else f"rejected: {row['rejected']}",
    )


def _cost_lines(row: Row) -> list[str]:
    around = numbers.span(interval(row))
    return [
        f"{numbers.milliseconds(number(row, 'latency_ms'))} ({word(row, 'origin')}{', ' + around if around else ''})",
        f"{numbers.count(number(row, 'macs'))} MACs, {numbers.size(number(row, 'weight_bytes'))} of weights, "
        f"{numbers.size(number(row, 'peak_activation_bytes'))} of activations at the peak (counted)",
    ]


def _limit(selection: Row, key: str, axis: str) -> list[dict[str, object]]:
    budget = part(selection, "budget")
    # A core's limit may be a share of the task's decision period: then it stands as a number beside it.
    bound = number(budget, "latency_limit_ms" if key == "latency_ms" else key) or number(budget, key)
    if bound is None:
        return []
    across = (
        {"x0": bound, "x1": bound, "y0": 0, "y1": 1} if axis == "x" else {"y0": bound, "y1": bound, "x0": 0, "x1": 1}
    )
    refs = {"xref": "x", "yref": "paper"} if axis == "x" else {"xref": "paper", "yref": "y"}
    text: dict[str, object] = {"text": "budget", "textposition": "end", "textangle": 0}
    text |= {"font": {"color": "--bad", "size": 11}, "xanchor": "right"}  # the line may be the plot's right edge
    return [{"type": "line", "line": {"color": "--bad", "width": 1.5, "dash": "dash"}, "label": text, **across, **refs}]


def _scale(values: Sequence[float]) -> dict[str, object]:
    """A logarithmic axis where values differ by much, with 1, 2, 5 or powers of ten as its marks."""
    positive = [value for value in values if value > 0]
    if len(positive) < len(values) or not positive or max(positive) <= 8 * min(positive):
        return {"type": "linear"}
    low, high = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    steps = (1, 2, 5) if high - low <= 3 else (1,)
    ticks = [float(f"{step}e{power}") for power in range(low, high + 1) for step in steps]
    return {"type": "log", "tickvals": ticks, "tickformat": "~s" if high > 3 else "~g"}
