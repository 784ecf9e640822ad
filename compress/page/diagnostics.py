"""How student and teacher relate beyond their scores: what the method's diagnostics measured."""

from compress.page import numbers
from compress.page.html import Markup, join, table, tag
from compress.page.reading import Row, part

SHARES = frozenset(
    {
        "agreement",
        "agreement_least",
        "agreement_most",
        "student_accuracy",
        "teacher_accuracy",
        "ece",
        "true_class_probability",
        "true_class_improbable",
        "contradicted_labels",
    }
)
FOUND = "recall@"  # of whatever is searched: shares as well
UNITS = {"predictive_kl": "nats", "nll": "nats"}
LEAST = {  # figure -> least value, and what it means to be below
    "true_class_probability": (
        0.3,
        "The teacher contradicts the labels: a loss that weighs labels by its probabilities, such as PLD, learns little"
        " of them. Bring a better teacher, or a method with a term of labels.",
    ),
    "teacher_share": (
        0.05,
        "The learned ratio of teacher and label has settled at the labels: this student was all but trained without its"
        " teacher. Compare it with vanilla_kd.",
    ),
}


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
    note = tag(
        "p", join((_data(part(content, "verify", "diagnosed")), " ", numbers.origin("measured"), ".")), cls="note"
    )
    warned = [
        tag("p", tag("span", "✗ ", cls="failed"), LEAST[key][1])
        for figures in part(content, "verify", "diagnostics").values()
        if isinstance(figures, dict)
        for key, value in figures.items()
        if key in LEAST and isinstance(value, int | float) and value < LEAST[key][0]
    ]
    return join((*warned, table(columns, cells, label="Student and teacher"), note))


def _data(looked: Row) -> str:
    """What the figures are of, diagnostics of the same examples together."""
    named: dict[str, list[str]] = {}
    for name, found in looked.items():
        if isinstance(found, dict):
            some = found["examples"] < found["of"]
            count = f"The first {found['examples']:,} of {found['of']:,} examples" if some else "All examples"
            named.setdefault(f"{count} of the stream {found['stream']!r}", []).append(name.replace("_", " "))
    if not named:
        return "All of the test data"
    return "; ".join(text if len(named) == 1 else f"{', '.join(names)}: {text}" for text, names in named.items())


def _figure(key: str, value: float) -> str:
    if key in SHARES or key.startswith(FOUND):
        return numbers.percent(value)
    return f"{numbers.significant(value, 4)} {UNITS.get(key, '')}".strip()
