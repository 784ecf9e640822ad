"""How the student was searched for: what was spent, what it brought, and which cheap scores could be trusted."""

from collections.abc import Sequence
from itertools import pairwise

from compress.page import figure, numbers
from compress.page.figure import Figure, Trace, hover, inert
from compress.page.headline import card
from compress.page.html import Markup, details, facts, join, table, tag
from compress.page.plans import describe
from compress.page.reading import Row, number, part, rows, word

SHARES = ("--series-1", "--series-2", "--series-3", "--series-4", "--series-5")  # the shortest trainings first
SYMBOLS = ("circle-open", "square-open", "triangle-up-open", "diamond-open", "pentagon-open")


def searched(content: Row) -> Markup | None:
    """Cost, rounds, the plot of all trials, rank correlations, what artifacts taught."""
    search = part(content, "selection", "search")
    if not search:
        return None
    metric, unit = word(search, "metric", "score"), word(search, "metric_unit", "%")
    plot = _history(search, metric, unit)
    notes = part(content, "selection", "selector", "notes")
    return join(
        (
            tag("div", *_cost(part(search, "cost")), cls="figures"),
            tag("p", _how_obtained(part(search, "cost")), cls="note"),
            _rounds(search),
            ""
            if plot is None
            else figure.box(
                "plot-search",
                plot,
                label="Score of every trial against the training spent until then",
                caption=join(
                    (
                        "Each mark is one trial, where it ended; its shape says after which share of the full "
                        f"training. The line is the best {metric} on validation data so far ",
                        numbers.origin("measured"),
                        ".",
                    )
                ),
            ),
            _foretold(search, metric, unit),
            _learned(search),
            details("What the selector noted", facts([(k, _noted(v)) for k, v in notes.items()])) if notes else "",
        )
    )


def cpu_time(seconds: float | None, beside: float | None = None) -> str:
    """CPU time: seconds below 6 minutes, hours from there.

    Args:
        beside: what it is compared to, in seconds; the larger one decides the unit.
    """
    if seconds is None:
        return numbers.NOTHING
    if max(seconds, beside or 0.0) < 360:
        return f"{numbers.significant(seconds)} CPU s"
    return f"{numbers.significant(seconds / 3600)} CPU h"


def _cost(cost: Row) -> list[Markup]:
    everything = part(cost, "exhaustive")
    low, high = number(everything, "low_s"), number(everything, "high_s")
    guessed = number(everything, "predicted") or 0
    between = "" if low is None or high is None or not guessed else f"{cpu_time(low, high)} to {cpu_time(high)}"
    spent = number(cost, "cpu_s")
    costing, scoring = number(cost, "of_costing_s") or 0.0, number(cost, "of_scoring_s") or 0.0
    return [
        card(
            "this search",
            cpu_time(spent, number(everything, "cpu_s")),
            f"{numbers.significant(number(cost, 'trainings') or 0.0)} full trainings in "
            f"{numbers.count(number(cost, 'trials'))} trials",
            "" if spent is None else "predicted" if cost.get("charges_predicted") else "measured",
        ),
        card(
            f"training all {numbers.count(number(everything, 'students'))} that fit",
            cpu_time(number(everything, "cpu_s"), spent),
            between,
            "predicted" if guessed else "measured",
        ),
        card(
            "less than training all",
            _times(number(cost, "times_less")),
            f"{_times(number(cost, 'times_less_trainings'))} in full trainings",
            "predicted" if guessed else "measured",
        ),
        card(
            "looks without training",
            cpu_time(costing + scoring),
            f"costing {cpu_time(costing)}" + (f", scores {cpu_time(scoring)}" if scoring else ""),
            "measured",
        ),
    ]


def _how_obtained(cost: Row) -> str:
    everything = part(cost, "exhaustive")
    done, guessed = number(everything, "measured") or 0, number(everything, "predicted") or 0
    said = ["CPU time is summed over all workers; a trial counts once, whenever it was done."]
    remembered = number(cost, "of_remembered_s")
    if remembered:
        said.append(f"{cpu_time(remembered)} of it was remembered from earlier and not spent again.")
    if guessed and number(everything, "cpu_s") is not None:
        said.append(
            f"Of the full trainings that an exhaustive search needs {done:.0f} were done; the other {guessed:.0f} are "
            "predicted from the timed trials by share and multiply-accumulates, with a 90 % interval where three or "
            "more were timed."
        )
    if cost.get("charges_predicted"):
        said.append("The selector's own training was counted in shares of a full one and was not timed.")
    return " ".join(said)


def _times(value: float | None) -> str:
    return numbers.NOTHING if value is None else f"{numbers.significant(value)}×"


def _rounds(search: Row) -> Markup:
    students = part(search, "students")
    cells = []
    for row in rows(search, "rounds"):
        scored = part(row, "scored")
        chosen = part(students, word(row, "chosen"))
        remembered = number(row, "remembered")
        cells.append(
            (
                numbers.count(number(row, "round")),
                numbers.count(number(row, "costed")),
                numbers.count(number(row, "rejected")),
                ", ".join(f"{name}: {count}" for name, count in scored.items()) or numbers.NOTHING,
                numbers.count(number(row, "students")),
                numbers.count(number(row, "trials")) + (f" ({remembered:.0f} remembered)" if remembered else ""),
                numbers.significant(number(row, "trainings") or 0.0),
                "; ".join(_built(built) for built in rows(row, "built")) or numbers.NOTHING,
                describe(chosen.get("plan")) if chosen else numbers.NOTHING,
            )
        )
    columns = (
        ("round", "number"),
        ("costed", "number"),
        ("rejected", "number"),
        ("scored without training", ""),
        ("trained", "number"),
        ("trials", "number"),
        ("full trainings", "number"),
        ("built", "reason"),
        ("chosen", "plan"),
    )
    return table(columns, cells, label="Rounds of the search") if cells else Markup("")


def _built(row: Row) -> str:
    """One artifact: what it cost, what had been predicted, and whether it holds."""
    said = f"{numbers.milliseconds(number(row, 'latency_ms'))} {word(row, 'origin')}"
    predicted = number(row, "predicted_ms")
    if word(row, "origin") != "predicted" and predicted is not None:
        said += f", {numbers.milliseconds(predicted)} predicted"
    return f"{said}: {'every gate holds' if row.get('met') is True else 'missed, ' + word(row, 'why')}"


def _history(search: Row, metric: str, unit: str = "%") -> Figure | None:
    points = rows(search, "progress")
    students = part(search, "students")
    ended = [point for point in points if number(point, "score") is not None]
    if not ended:
        return None
    shares = sorted({number(point, "share") or 0.0 for point in ended})
    best = [point for point in points if number(point, "best") is not None]
    traces: list[Trace] = [
        {
            "name": "best so far",
            "mode": "lines",
            "x": [point["trainings"] for point in best],
            "y": [numbers.scaled(point["best"], unit) for point in best],
            "line": {"color": "--front", "width": 2, "shape": "hv"},
            "hoverinfo": "skip",
        }
    ]
    for place, share in enumerate(shares):
        own = [point for point in ended if number(point, "share") == share]
        color = SHARES[place % len(SHARES)]
        symbol = "circle" if share == 1 else SYMBOLS[place % len(SYMBOLS)]
        traces.append(
            {
                "name": f"after {numbers.significant(100 * share)} %",
                "mode": "markers",
                "x": [point["trainings"] for point in own],
                "y": [numbers.scaled(point["score"], unit) for point in own],
                "hovertext": [_trial(point, part(students, word(point, "identity")), metric, unit) for point in own],
                "hoverinfo": "text",
                "marker": {"symbol": symbol, "color": color, "size": 9},
            }
        )
    chosen = [point for point in ended if word(search, "chosen", "none") == word(point, "identity")]
    if chosen:
        last = chosen[-1]
        traces.append(
            {
                "name": "chosen",
                "mode": "markers",
                "x": [last["trainings"]],
                "y": [numbers.scaled(last["score"], unit)],
                "hovertext": [_trial(last, part(students, word(last, "identity")), metric, unit)],
                "hoverinfo": "text",
                "marker": {"symbol": "diamond-open", "color": "--chosen", "size": 17, "line": {"width": 2.5}},
            }
        )
    layout = {
        "xaxis": {"title": {"text": "full trainings spent"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": inert(numbers.axis(f"validation {metric}", unit))}},
        "shapes": _starts(points),
        "showlegend": True,
    }
    return Figure(traces, layout, height=420)


def _starts(points: Sequence[Row]) -> list[dict[str, object]]:
    """A line where each later round begins."""
    shapes: list[dict[str, object]] = []
    for before, point in pairwise(points):
        if before.get("round") != point.get("round"):
            at = number(before, "trainings") or 0.0
            text = {"text": inert(f"round {word(point, 'round')}"), "textposition": "end", "textangle": 0}
            line = {"color": "--muted", "width": 1, "dash": "dot"}
            label = {**text, "font": {"color": "--muted", "size": 11}}
            shapes.append(
                {"type": "line", "xref": "x", "yref": "paper", "x0": at, "x1": at, "y0": 0, "y1": 1}
                | {"line": line, "label": label}
            )
    return shapes


def _trial(point: Row, student: Row, metric: str, unit: str) -> str:
    return hover(
        f"{numbers.score(number(point, 'score'), unit)} {metric} on validation data after "
        f"{numbers.significant(100 * (number(point, 'share') or 0.0))} % of the training, measured",
        f"seed {word(point, 'seed')}" + (", remembered" if point.get("remembered") else ""),
        describe(student.get("plan")),
        f"{numbers.milliseconds(number(student, 'latency_ms'))} ({word(student, 'origin')})",
        word(student, "fate"),
    )


def _foretold(search: Row, metric: str, unit: str) -> Markup:
    found = part(search, "foretold")
    every = rows(found, "rows")
    if not every:
        return Markup("")
    few = number(found, "few") or 0
    cells = []
    for row in every:
        enough = (number(row, "count") or 0) >= few
        given = part(row, "given")
        size = part(given, "parameters")
        cells.append(
            (
                word(row, "name"),
                numbers.count(number(row, "count")),
                _estimate(part(row, "kendall"), enough),
                _estimate(part(row, "spearman"), enough),
                _estimate(size, enough),
                _estimate(part(given, "latency"), enough),
                numbers.NOTHING if (loss := number(row, "loss")) is None else numbers.gap(-loss, unit),
                _verdict(size, enough),
            )
        )
    columns = (
        ("cheap score", ""),
        ("students", "number"),
        ("Kendall's tau", "number"),
        ("Spearman's rho", "number"),
        ("rho, same size", "number"),
        ("rho, same latency", "number"),
        ("its favourite", "number"),
        ("beyond size", ""),
    )
    share = numbers.significant(100 * (number(found, "share") or 0.0))
    explained = (
        f"Each cheap score against the {metric} after {share} % of the training, the longest that "
        f"{numbers.count(number(found, 'students'))} students had; below it the 90 % bootstrap interval. Two columns "
        "hold the size (parameters) or the latency still: what a score tells beyond them. Its favourite is how far the "
        "student that it puts first is below the best of these. They were picked by cheaper scores, so that a score "
        f"looks worse here than among all students; fewer than {few:.0f} are too few to say."
    )
    return join(
        (
            tag("h3", "Which cheap scores could be trusted"),
            table(columns, cells, label="Rank correlations of cheap scores"),
            tag("p", explained, cls="note"),
        )
    )


def _estimate(row: Row, enough: bool) -> object:
    value, low, high = number(row, "value"), number(row, "low"), number(row, "high")
    if value is None:
        return "undefined" if enough else "too few to say"
    around = "" if low is None or high is None else f"{_signed(low)} to {_signed(high)}"
    return join((_signed(value), tag("small", around) if around else ""))


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")


def _verdict(size: Row, enough: bool) -> str:
    low, high = number(size, "low"), number(size, "high")
    if not enough:
        return "too few to say"
    if low is None or high is None:
        return numbers.NOTHING
    return "yes" if low > 0 else "the opposite" if high < 0 else "not shown"


def _learned(search: Row) -> Markup:
    """What built artifacts taught, round by round."""
    said = []
    for row in rows(search, "rounds"):
        for item in rows(row, "learned"):
            builds = number(item, "builds") or 0
            why = word(item, "why")
            said.append(
                f"From round {word(row, 'round')} on the predicted {word(item, 'what')} is multiplied by "
                f"{numbers.significant(number(item, 'factor') or 1.0)}, from {numbers.count(builds)} built "
                f"artifact{'' if builds == 1 else 's'}{': ' + why if why else ''}."
            )
    if not said:
        return Markup("")
    return join((tag("h3", "Learned from built artifacts"), tag("ul", *(tag("li", sentence) for sentence in said))))


def _noted(value: object) -> str:
    return numbers.significant(value, 4) if isinstance(value, float) else describe(value)
