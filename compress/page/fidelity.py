"""How faithful the copies are: student to teacher, artifact to float student."""

from compress.page import numbers
from compress.page.html import Markup, facts, join, table, tag
from compress.page.reading import Row, number, part, rows, word

UNKNOWN = numbers.NOTHING


def copies(content: Row) -> Markup | None:
    """The verdict, every pair, the distillation data, calibration; None where answers are no class logits."""
    found = part(content, "verify", "fidelity")
    pairs = rows(found, "pairs")
    if not pairs:
        return None
    columns = (
        ("copy", ""),
        ("of", ""),
        ("top-1 agreement", "number"),
        ("95 % interval", "number"),
        ("accuracies alone allow", "number"),
        ("KL, nats", "number"),
        ("95 % interval", "number"),
        ("Kendall's tau of the first five", "number"),
    )
    shown = table(columns, [_cells(row) for row in pairs], label="Fidelity")
    return join((tag("p", word(found, "sentence")), _held(found), shown, _calibration(found), _facts(found), _note()))


def _cells(row: Row) -> tuple[object, ...]:
    return (
        word(row, "copy"),
        word(row, "reference"),
        numbers.percent(number(row, "agreement")),
        _span(row, "agreement_interval", 100.0, " %"),
        f"{numbers.percent(number(row, 'least'))} to {numbers.percent(number(row, 'most'))}",
        _value(number(row, "kl")),
        _span(row, "kl_interval"),
        _value(number(row, "kendall_top5")),
    )


def _held(found: Row) -> Markup | str:
    """Whether what ships keeps the proposed bounds against the float student."""
    held = part(found, "shipped")
    if not held:
        return ""
    kept = held.get("kept") is True
    bounds = f"at least {numbers.percent(number(held, 'agreement'), 0)} agreement and at most {number(held, 'kl')} nats"
    mark = tag("span", "✓ kept" if kept else "✗ not kept", cls="passed" if kept else "failed")
    return tag("p", "Proposed bounds of ", word(held, "artifact"), f" against the float student, {bounds}: ", mark, ".")


def _calibration(found: Row) -> Markup:
    columns = (
        ("", ""),
        ("accuracy", "number"),
        ("negative log-likelihood, nats", "number"),
        ("expected calibration error", "number"),
    )
    cells = [
        (
            name,
            numbers.percent(number(row, "accuracy")),
            _value(number(row, "nll")),
            numbers.percent(number(row, "ece")),
        )
        for name, row in part(found, "calibration").items()
        if isinstance(row, dict)
    ]
    return table(columns, cells, label="Calibration") if cells else Markup("")


def _facts(found: Row) -> Markup:
    """The distillation data as the student sees them, and the control student where there was one."""
    seen = part(found, "distillation")
    count = number(seen, "examples")
    if count:
        between = _span(seen, "agreement_interval", 100.0, " %")
        said = (
            f"agreement {numbers.percent(number(seen, 'agreement'))} ({between}), KL {_value(number(seen, 'kl'))} nats,"
            f" {numbers.count(count)} examples"
        )
    else:
        said = word(seen, "why", UNKNOWN)
    listed: list[tuple[str, object]] = [("float student and teacher on the distillation data", said)]
    gap = number(found, "fidelity_gap")
    if gap is not None:
        listed.append(("agreement beyond the control student's", numbers.points(gap)))
    return facts(listed)


def _note() -> Markup:
    said = (
        ". Agreement between two accuracies' bounds shows nothing by itself; intervals take examples for independent."
        " Distillation data are as the student sees them, augmentation and mixing included."
    )
    return tag("p", join(("All of the test data ", numbers.origin("measured"), said)), cls="note")


def _span(row: Row, name: str, scale: float = 1.0, unit: str = "") -> str:
    ends = row.get(name)
    if not isinstance(ends, list) or len(ends) != 2 or not all(isinstance(end, int | float) for end in ends):
        return UNKNOWN
    low, high = (numbers.significant(scale * end, 4) for end in ends)
    return f"{low} to {high}{unit}"


def _value(value: float | None) -> str:
    return UNKNOWN if value is None else numbers.significant(value, 4)
