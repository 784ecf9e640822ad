"""How student and teacher relate beyond their scores: what the method's diagnostics measured."""

from compress.page import numbers
from compress.page.html import Markup, join, table, tag
from compress.page.reading import Row, part

SHARES = frozenset({"agreement", "agreement_least", "agreement_most", "student_accuracy", "teacher_accuracy"})
UNITS = {"predictive_kl": "nats"}


def diagnostics(content: Row) -> Markup | None:
    """Every figure of every diagnostic."""
    cells = [
        (name, key.replace("_", " "), _figure(key, value))
        for name, figures in part(content, "verify", "diagnostics").items()
        if isinstance(figures, dict)
        for key, value in figures.items()
        if isinstance(value, int | float)
    ]
    if not cells:
        return None
    columns = (("diagnostic", ""), ("figure", ""), ("float student against teacher", "number"))
    note = tag("p", join(("All of the test data ", numbers.origin("measured"), ".")), cls="note")
    return join((table(columns, cells, label="Student and teacher"), note))


def _figure(key: str, value: float) -> str:
    if key in SHARES:
        return numbers.percent(value)
    return f"{numbers.significant(value, 4)} {UNITS.get(key, '')}".strip()
