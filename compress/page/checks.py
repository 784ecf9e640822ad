"""What was checked: gates, artifacts, parity between stages."""

from compress.page import agreement, numbers
from compress.page.html import Markup, details, facts, join, table, tag
from compress.page.reading import Row, metric_of, number, part, rows, word

PARITY = {  # columns in this order; others follow
    "max_steps": "largest, steps",
    "mean_steps": "mean, steps",
    "within_one_step": "within one step",
    "top1_agreement": "top-1 agreement",
    "largest_angle": "largest turn, degrees",
    "rms_angle": "turn, root mean square, degrees",
    "max_abs": "largest",
    "mean_abs": "mean",
    "spread": "spread of the outputs",
    "not_a_number": "not a number on one side",
    "elements": "outputs compared",
    "explained_steps": "rounding explains, steps",
}
SHARES = frozenset({"within_one_step", "top1_agreement"})
COUNTS = frozenset({"not_a_number", "elements"})


def gates(content: Row) -> Markup | None:
    """Every bound: passed or failed, with the number; and the layer at fault where artifacts do not agree."""
    found = rows(content, "verify", "gates")
    if not found:
        return None
    _, unit = metric_of(content)
    cells = []
    for gate in found:
        passed = gate.get("passed") is True
        cells.append(
            (
                tag("span", "✓ passed" if passed else "✗ failed", cls="passed" if passed else "failed"),
                word(gate, "name"),
                word(gate, "artifact"),
                join((tag("b", gate_number(gate, "value", unit)), " ", numbers.origin(word(gate, "origin")))),
                f"{'at most' if gate.get('at_most') else 'at least'} {gate_number(gate, 'bound', unit)}",
                word(gate, "stage"),
            )
        )
    columns = (
        ("result", ""),
        ("check", ""),
        ("of", ""),
        ("value", "number"),
        ("bound", "number"),
        ("stage to blame", ""),
    )
    marks = ["" if gate.get("passed") is True else "broken" for gate in found]
    return join((table(columns, cells, label="Gates", row_classes=marks), agreement.faults(content) or ""))


def gate_number(gate: Row, name: str, metric_unit: str) -> str:
    """A gate's "value" or "bound" in its unit; differences of the metric in its own, such as percentage points."""
    value, unit = number(gate, name), word(gate, "unit")
    if not unit and value is not None and word(gate, "name").startswith(("change of ", "drop of ")):
        return numbers.gap(value, metric_unit).lstrip("+")
    return numbers.quantity(value, unit, number(gate, "bound"))


def artifacts(content: Row) -> Markup | None:
    """What there is to ship, what was run, what was only built; and every file of the run."""
    found = rows(content, "verify", "artifacts")
    files = rows(content, "files")
    if not found and not files:
        return None
    cells = []
    for row in found:
        name, run = word(row, "name"), word(row, "run")
        # An artifact is a file or a folder that the build stage wrote; other stages may have files of the same name.
        mine = [f for f in files if word(f, "origin").startswith("build") and f"/{name}/" in f"/{word(f, 'path')}/"]
        cells.append(
            (
                tag("b", name),
                ", ".join(filter(None, (word(row, "kind"), word(row, "purpose")))),
                tag("span", run, cls="ran" if run.startswith("run by") else "not-run"),
                _hashes(mine),
                word(row, "note"),
                _known(row),
            )
        )
    columns = (
        ("artifact", ""),
        ("kind", ""),
        ("here", "reason"),
        ("size, sha256", ""),
        ("note", "reason"),
        ("facts", ""),
    )
    listing = [
        (word(f, "path"), word(f, "origin"), numbers.size(number(f, "size")), tag("code", word(f, "sha256")))
        for f in files
    ]
    heads = (("file", ""), ("from", ""), ("size", "number"), ("sha256", ""))
    return join(
        (
            table(columns, cells, label="Artifacts") if cells else "",
            details(f"All {len(files)} files of this run", table(heads, listing, label="Files")) if files else "",
        )
    )


def parity(content: Row) -> Markup | None:
    """How far each stage's output is from the one before, in steps of the output's quantisation."""
    found = rows(content, "verify", "parity")
    if not found:
        return None
    fixed = ("reference", "artifact", "stage", "step", "output", "histogram", "worst", "width")
    several = len({word(row, "output") for row in found}) > 1
    keys = list(dict.fromkeys((*PARITY, *(key for row in found for key in row if key not in fixed))))
    keys = [key for key in keys if any(number(row, key) is not None for row in found)]
    cells = [
        (
            f"{word(row, 'artifact')}, {word(row, 'output')}" if several else word(row, "artifact"),
            word(row, "reference"),
            *(_compared(key, number(row, key)) for key in keys),
            "gated" if row.get("stage") is not None else "for information",
        )
        for row in found
    ]
    columns = (
        ("output of", ""),
        ("compared with", ""),
        *((PARITY.get(key, key.replace("_", " ")), "number") for key in keys),
        ("bounds", ""),
    )
    step = number(part(content, "verify"), "step")
    source = word(part(content, "verify"), "step_from", "of the output")
    said = (
        "The output is not quantised, so differences have no step."
        if step is None
        else f"Differences are of single values. One step is {numbers.significant(step, 4)} ({source})."
    )
    note = join((said, " All of the test data ", numbers.origin("measured"), "."))
    shown = table(columns, cells, label="Parity between stages")
    return join((shown, tag("p", note, cls="note"), agreement.ledger(content) or ""))


def _compared(key: str, value: float | None) -> str:
    if value is None:
        return numbers.NOTHING
    if key in SHARES:
        return numbers.percent(value, 3)
    return f"{value:,.0f}" if key in COUNTS else numbers.significant(value, 4)


def _hashes(files: list[dict[str, object]]) -> object:
    if not files:
        return numbers.NOTHING
    if len(files) == 1:
        file = files[0]
        return join((numbers.size(number(file, "size")), " ", _hash(word(file, "sha256"))))
    total = sum(number(file, "size") or 0.0 for file in files)
    listed = [tag("li", f"{word(f, 'path').rpartition('/')[2]} ", _hash(word(f, "sha256"))) for f in files]
    return details(f"{len(files)} files, {numbers.size(total)}", tag("ul", *listed))


def _hash(digest: str) -> Markup:
    return tag("code", digest[:16], attributes={"title": digest})


def _known(row: Row) -> object:
    found = part(row, "facts")
    if not found:
        return ""
    return details(
        f"{len(found)} facts", facts([(key.replace("_", " "), _fact(value)) for key, value in found.items()])
    )


def _fact(value: object) -> object:
    if isinstance(value, dict):
        return facts([(str(key), _fact(item)) for key, item in value.items()])
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return numbers.significant(value, 6) if isinstance(value, float) else str(value)
