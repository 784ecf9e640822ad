"""How student and teacher relate beyond their scores: what the method's diagnostics measured."""

import re

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
WORDS = {  # figure -> what people call it; others by their own names
    "predictive_kl": "KL from the teacher",
    "agreement_least": "agreement, least that the accuracies allow",
    "agreement_most": "agreement, most that the accuracies allow",
    "nll": "student's negative log-likelihood",
    "ece": "student's expected calibration error",
    "teacher_share": "teacher's share of the loss, mean",
    "teacher_share_confirming": "teacher's share where it confirms the label",
    "teacher_share_contradicting": "teacher's share where it contradicts the label",
    "contradicted_labels": "labels that the teacher contradicts",
    "diagonal": "mean of stages of equal number",
}
QUARTER = re.compile("(teacher_share_[a-z]+)_(nearest|second|third|farthest)$")
STAGES = re.compile("teacher_([0-9]+)_student_([0-9]+)$")
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
        (name.replace("_", " "), _words(key), _figure(key, value))
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


def _words(key: str) -> str:
    if found := QUARTER.match(key):
        return f"{WORDS.get(found[1], found[1])}, {found[2]} quarter by distance from the student"
    if found := STAGES.match(key):
        return f"teacher's stage {found[1]}, student's stage {found[2]}"
    return WORDS.get(key, key.replace("_", " "))


def _figure(key: str, value: float) -> str:
    if key in SHARES or key.startswith(FOUND):
        return numbers.percent(value)
    return f"{numbers.significant(value, 4)} {UNITS.get(key, '')}".strip()
