"""Which student was chosen, why, and what else there was."""

import re
from collections import Counter
from collections.abc import Sequence

from compress.page import figure, fronts, numbers
from compress.page.html import Markup, details, facts, join, table, tag
from compress.page.plans import describe
from compress.page.reading import Row, interval, metric_of, number, part, rows, word

BUDGET = {
    "latency_ms": ("latency at batch 1", "ms", "at most"),
    "latency_limit_ms": ("latency at batch 1", "ms", "at most"),
    "peak_activation_bytes": ("peak activation memory", "bytes", "at most"),
    "weight_bytes": ("weights", "bytes", "at most"),
    "macs": ("multiply-accumulates", "", "at most"),
    "accuracy_drop": ("loss of the metric against the teacher", "points", "at most"),
    "compute_share": ("share of a decision period", "", "at most"),
    "macs_reduction": ("fewer multiply-accumulates than the teacher", "times", "at least"),
    "weight_reduction": ("fewer weight bytes than the teacher", "times", "at least"),
    "default_period_ms": ("decision period where the task names none", "ms", ""),
}


def chosen(content: Row) -> Markup | None:
    """The choice, the budget, and the plot that shows both."""
    selection, choice = part(content, "selection"), part(content, "choice")
    if not selection and not choice:
        return None
    why = word(choice, "why") or word(selection, "why")
    place = word(part(selection, "search"), "why")
    plot = fronts.pareto(content)
    rows_ = [
        ("student", describe(choice.get("plan")) if "plan" in choice else numbers.NOTHING),
        ("space", word(choice, "space", numbers.NOTHING)),
        ("objective", word(selection, "objective", numbers.NOTHING)),
        ("search", _search(selection)),
        ("budget", _budget(content)),
    ]
    absent = part(selection, "absent_spaces")
    if absent:
        rows_.append(("spaces that could not be used", tag("ul", *(tag("li", f"{k}: {v}") for k, v in absent.items()))))
    learned = selection.get("learned")
    if isinstance(learned, list) and learned:
        rows_.append(("learned from earlier rounds", tag("ul", *(tag("li", describe(item)) for item in learned))))
    return join(
        (
            tag("p", why[:1].upper() + why[1:], cls="why") if why else "",
            tag("p", place) if place else "",
            facts(rows_),
            ""
            if plot is None
            else figure.box(
                "plot-pareto",
                plot,
                label="The metric against latency and other costs of candidates, teacher and students",
                caption="Candidates show their validation score after their longest training, teacher and finished "
                "students their test score. Whiskers are latency intervals; memory and multiply-accumulates are "
                "counted. The strip below holds the candidates that were not trained. Point at a mark for its plan.",
            ),
        )
    )


def candidates(content: Row) -> Markup | None:
    """All of them: a plot of costs, who was trained, who was rejected and for what."""
    selection = part(content, "selection")
    every = rows(selection, "candidates")
    if not every:
        return None
    plot = fronts.costs(content)
    trained = [row for row in every if number(row, "score") is not None]
    trained.sort(key=lambda row: (-(number(row, "score") or 0.0), word(row, "id")))
    rejected = [row for row in every if row.get("rejected") is not None]
    waiting = [row for row in every if row.get("rejected") is None and number(row, "score") is None]
    return join(
        (
            ""
            if plot is None
            else figure.box(
                "plot-costs",
                plot,
                label="Two costs of every candidate",
                caption="Dashed lines are the budget. MACs, weights and activations are counted; the latency's "
                "origin is shown at each mark.",
            ),
            tag("h3", f"Trained ({len(trained)})") if trained else "",
            _scored(trained, metric_of(content)[1]) if trained else "",
            _reasons(rejected),
            details(f"All {len(rejected)} rejected candidates", _rejected(rejected)) if rejected else "",
            details(f"{len(waiting)} candidates that fit and were not trained", _waiting(waiting)) if waiting else "",
        )
    )


def _search(selection: Row) -> str:
    counts = [
        f"{numbers.count(number(selection, key))} {text}"
        for key, text in (("considered", "costed"), ("rejected", "rejected"), ("evaluated", "trained"))
        if number(selection, key) is not None
    ]
    return ", ".join(counts) or numbers.NOTHING


def _budget(content: Row) -> object:
    given = part(content, "selection", "budget") or part(content, "verify", "budget")
    if number(given, "latency_limit_ms") is not None:
        given.pop("latency_ms", None)
    limits = []
    for key, value in given.items():
        if key == "default_period_ms" or not isinstance(value, int | float):
            continue
        name, unit, relation = BUDGET.get(key, (key, "", ""))
        said = (
            numbers.gap(value, metric_of(content)[1]).lstrip("+")
            if unit == "points"
            else f"{value:g}×"
            if unit == "times"
            else ""
        )
        limits.append(tag("li", f"{name}: {relation} {said or numbers.quantity(float(value), unit)}"))
    return tag("ul", *limits) if limits else "no limit was set"


def _costs(row: Row) -> tuple[object, ...]:
    around = numbers.span(interval(row))
    return (
        join((numbers.milliseconds(number(row, "latency_ms")), " ", numbers.origin(word(row, "origin")))),
        around,
        numbers.count(number(row, "macs")),
        numbers.size(number(row, "weight_bytes")),
        numbers.size(number(row, "peak_activation_bytes")),
    )


_COST_COLUMNS = (
    ("latency", "number"),
    ("interval", "number"),
    ("MACs (counted)", "number"),
    ("weights (counted)", "number"),
    ("peak activation (counted)", "number"),
)


def _scored(members: Sequence[Row], unit: str) -> Markup:
    cells = [
        (
            word(row, "id") + (" (chosen)" if row.get("chosen") else ""),
            numbers.score(number(row, "score"), unit),
            numbers.percent(number(row, "fidelity"), 0),
            *_costs(row),
            "yes" if row.get("pareto") else "",
            word(row, "space"),
            describe(row.get("plan")),
        )
        for row in members
    ]
    columns = (
        ("candidate", ""),
        ("validation (measured)", "number"),
        ("of the training", "number"),
        *_COST_COLUMNS,
        ("on the front", ""),
        ("space", ""),
        ("plan", "plan"),
    )
    marks = ["chosen" if row.get("chosen") else "" for row in members]
    return table(columns, cells, label="Candidates that were trained", row_classes=marks)


def _rejected(members: Sequence[Row]) -> Markup:
    cells = [
        (word(r, "id"), word(r, "rejected"), *_costs(r), word(r, "space"), describe(r.get("plan"))) for r in members
    ]
    columns = (("candidate", ""), ("reason", "reason"), *_COST_COLUMNS, ("space", ""), ("plan", "plan"))
    return table(columns, cells, label="Rejected candidates")


def _waiting(members: Sequence[Row]) -> Markup:
    cells = [(word(r, "id"), *_costs(r), word(r, "space"), describe(r.get("plan"))) for r in members]
    columns = (("candidate", ""), *_COST_COLUMNS, ("space", ""), ("plan", "plan"))
    return table(columns, cells, label="Candidates that were not trained")


def _reasons(rejected: Sequence[Row]) -> Markup:
    """How often each reason was given; reasons that differ in their numbers alone are one."""
    if not rejected:
        return Markup("")
    kinds = Counter(re.sub(r"\d[\d.,]*(e[+-]?\d+)?", "…", word(row, "rejected")) for row in rejected)
    cells = [(count, reason) for reason, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))]
    return join(
        (
            tag("h3", f"Rejected before training ({len(rejected)})"),
            table((("candidates", "number"), ("reason", "reason")), cells, label="Why candidates were rejected"),
        )
    )
