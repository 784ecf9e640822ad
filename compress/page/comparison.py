"""Teacher, float student and shipped student side by side."""

from collections.abc import Callable, Sequence

from compress.page import numbers
from compress.page.html import Markup, join, table, tag
from compress.page.reading import PREDICTED, SHIPPED, Row, interval, metric_of, number, part, shipped, word

COLUMNS = ("teacher", "float student", SHIPPED)


def compared(content: Row) -> Markup | None:
    """Accuracy and costs of each, and how many times less than the teacher."""
    verify, costs = part(content, "verify"), part(content, "verify", "costs")
    names = [name for name in COLUMNS if part(costs, name)]
    names += [name for name in costs if name not in names and name != PREDICTED and part(costs, name)]
    accuracy = part(verify, "accuracy")
    if not names:
        return None
    final = word(verify, "final")
    scored = {name: number(accuracy, final if name == SHIPPED else name) for name in names}
    metric, unit = metric_of(content)
    examples = number(verify, "examples")
    tests = f" ({examples:,.0f} examples)" if examples else ""
    every = [part(costs, name) for name in names]
    rows = [
        (f"test {metric}{tests}", *(_score(scored[name], scored.get("teacher"), name, unit) for name in names)),
        ("latency at batch 1", *(_latency(cost, every[0]) for cost in every)),
        *(
            (title, *(_counted(cost, every[0], key, form, less, more) for cost in every))
            for title, key, form, less, more in (
                ("multiply-accumulates", "macs", numbers.count, "fewer", "more"),
                ("parameters", "params", numbers.count, "fewer", "more"),
                ("weights", "weight_bytes", numbers.size, "smaller", "larger"),
                ("peak activation memory", "peak_activation_bytes", numbers.size, "less", "more"),
            )
        ),
    ]
    if any(number(cost, "energy_mj") is not None for cost in every):
        rows.append(("energy per inference", *(_energy(cost) for cost in every)))
    rows.append(("runtime, precision", *(f"{word(c, 'runtime')}, {word(c, 'precision')}" for c in every)))
    precision = shipped(content)
    columns = (("", "head"), *((_titled(name, precision), "") for name in names))
    return join(
        (
            table(columns, rows, label="Teacher and students side by side", cls="even"),
            _chain(accuracy, metric, unit),
            *(tag("p", note, cls="note") for note in _notes(costs, names)),
            _predicted_beside(costs),
        )
    )


def _titled(name: str, precision: str) -> str:
    return f"{name} ({precision})" if name == SHIPPED and precision else name


def _score(value: float | None, reference: float | None, name: str, unit: str) -> object:
    if value is None:
        return "not run"
    change = None if reference is None or name == "teacher" else value - reference
    below = "" if change is None else f"{numbers.gap(change, unit)} against the teacher"
    return _cell(numbers.score(value, unit), "measured", below, value)


def _latency(cost: Row, teacher: Row) -> object:
    value, first = number(cost, "latency_ms"), number(teacher, "latency_ms")
    ratio = "" if cost is teacher else numbers.fewer(first, value, "faster", "slower")
    below = "; ".join(filter(None, (ratio, numbers.span(interval(cost)))))
    return _cell(numbers.milliseconds(value), word(cost, "origin"), below, _share(value, first))


def _counted(cost: Row, teacher: Row, key: str, form: Callable[[float | None], str], less: str, more: str) -> object:
    value, first = number(cost, key), number(teacher, key)
    below = "" if cost is teacher else numbers.fewer(first, value, less, more)
    return _cell(form(value), "counted", below, _share(value, first))


def _energy(cost: Row) -> object:
    value = number(cost, "energy_mj")
    return (
        numbers.NOTHING if value is None else _cell(f"{numbers.significant(value)} mJ", word(cost, "origin"), "", None)
    )


def _share(value: float | None, whole: float | None) -> float | None:
    return None if value is None or not whole else value / whole


def _cell(value: str, origin: str, below: str, share: float | None) -> Markup:
    """A number with its origin, what it means against the teacher, and a bar."""
    width = 0.0 if share is None else max(0.4, min(100.0, 100 * share))
    bar = tag("span", tag("span", attributes={"style": f"width:{width:.1f}%"}), cls="bar") if share is not None else ""
    return join((tag("b", value), " ", numbers.origin(origin), tag("small", below) if below else "", bar))


def _chain(accuracy: Row, metric: str, unit: str) -> Markup:
    """Every form of the network that was run, in the order of the pipeline."""
    steps = [
        tag("li", tag("span", name), " ", tag("b", numbers.score(number(accuracy, name), unit))) for name in accuracy
    ]
    if not steps:
        return Markup("")
    return join(
        (
            tag("p", f"Test {metric} of every form that was run ", numbers.origin("measured"), ":", cls="note"),
            tag("ol", *steps, cls="chain"),
        )
    )


def _notes(costs: Row, names: Sequence[str]) -> list[str]:
    notes = []
    for name in names:
        cost = part(costs, name)
        given = cost.get("notes")
        notes += [f"{name}: {note}" for note in given] if isinstance(given, list) else []
        uncounted = part(cost, "uncounted")
        if uncounted:
            listed = ", ".join(f"{times} {kind}" for kind, times in uncounted.items())
            notes.append(f"{name}: operators without a counter: {listed}")
    return notes


def _predicted_beside(costs: Row) -> Markup:
    """Where a measurement replaced a prediction, how good that was."""
    predicted, final = part(costs, PREDICTED), part(costs, SHIPPED)
    before, after = number(predicted, "latency_ms"), number(final, "latency_ms")
    if before is None or not after:
        return Markup("")
    around = interval(predicted)
    inside = "" if around is None else ", inside" if around[0] <= after <= around[1] else ", outside"
    held = f"{inside} the interval of {numbers.span(around)}" if around is not None else ""
    return tag(
        "p",
        "The cost model had predicted ",
        tag("b", numbers.milliseconds(before)),
        " for the shipped student; the ",
        f"{word(final, 'origin')} figure is {numbers.milliseconds(after)}{held}.",
        cls="note",
    )
