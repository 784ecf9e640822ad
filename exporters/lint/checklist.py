"""C1 to C12: what is checked before a model ships.

Most items are the verdict of other rules; C9 and C10 are rules themselves.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from exporters.lint.finding import ALL, Finding, Hit, Rule
from exporters.lint.view import View
from exporters.passes.strip_traces import MODULE

RECORDED = ("quantizer", "recipe", "producer")  # metadata that says how the file came about
_TRACE = re.compile(r"(?:^|[\s\"'(])(?:/[\w.-]+){2,}\.py|[A-Za-z]:\\\\[\w\\\\.-]+\.py")


@dataclass(frozen=True)
class Item:
    """One line of the checklist.

    Attributes:
        state: held, broken, or 'not checked' with the reason in `why`.
    """

    id: str
    title: str
    state: str
    why: str = ""


@dataclass(frozen=True)
class Entry:
    """An item as it stands in the table: `rules` are those whose findings break it."""

    id: str
    title: str
    rules: tuple[str, ...]
    elsewhere: str = ""  # what checks it, where no rule can


COMPILER = "the compiler: lint without --no-compile"
CHECKLIST = (
    Entry("C1", "Every Q/DQ is symmetric, constant, finite, above the floor, on the right axis, of the right type",
          ("Q1", "Q2", "Q3", "Q4", "Q5", "Q6", "Q9", "Q10", "Q11", "Q12")),
    Entry("C2", "No custom operators", ("Q13",)),
    Entry("C3", "Biases are float", ("Q8",)),
    Entry("C4", "Both inputs of each product are quantised, or neither", ("P1",)),
    Entry("C5", "Residual adds read int8", ("P3",)),
    Entry("C6", "Nothing between convolution, batch norm and activation; batch norm folded", ("P4",)),
    Entry("C7", "Widths are multiples of the target's, or reported", ("P10",)),
    Entry("C8", "The int8 share of the compiler equals what the graph says", (), COMPILER),
    Entry("C9", "The same checkpoint gives the same bytes", ("C9",)),
    Entry("C10", "The file says how it was made", ("C10",)),
    Entry("C11", "torch, ONNX and artifact agree within named tolerances", (), "compress verify RUN"),
    Entry("C12", "The build log names no fallback, and the engine's inputs and outputs are those of the ONNX", (),
          COMPILER),
)  # fmt: skip


def _same_bytes(view: View) -> Iterator[Hit]:
    for node in view.nodes:
        texts = [node.doc_string, *(entry.value for entry in node.metadata_props if entry.key != MODULE)]
        if any(_TRACE.search(text) for text in texts):
            yield Hit(
                node,
                "the file carries stack traces of the machine that exported it, so two machines give two files",
                "remove them: exporters/passes/strip_traces.py",
            )
            return  # one says it for all


def _recorded(view: View) -> Iterator[Hit]:
    if not any(True for _ in view.quantizers()):
        return
    there = {entry.key for entry in view.model.metadata_props if entry.value}
    if view.model.producer_name:
        there.add("producer")
    missing = [name for name in RECORDED if name not in there]
    if missing:
        yield Hit(
            None,
            f"the file does not say how it was quantised: {', '.join(missing)} missing from its metadata",
            "export with compress export RUN, or add metadata to the file",
        )


def items(
    found: Iterable[Finding], checked: frozenset[str], compiled: dict[str, str | None] | None
) -> tuple[Item, ...]:
    """The checklist of one report.

    Args:
        found: all findings.
        checked: ids of the rules that hold for the runtime.
        compiled: item id -> what the compiler broke it with, None where it held; None where nothing was compiled.
    """
    broken: dict[str, int] = {}
    for finding in found:
        broken[finding.rule] = broken.get(finding.rule, 0) + 1
    rows = []
    for entry in CHECKLIST:
        names = [f"{rule} x{broken[rule]}" for rule in entry.rules if rule in broken]
        if compiled is not None and entry.id in compiled:
            why = compiled[entry.id]
            rows.append(Item(entry.id, entry.title, "held" if why is None else "broken", why or ""))
        elif not entry.rules:
            rows.append(Item(entry.id, entry.title, "not checked", entry.elsewhere))
        elif not set(entry.rules) & checked:
            rows.append(Item(entry.id, entry.title, "not checked", "no rule of this runtime"))
        else:
            rows.append(Item(entry.id, entry.title, "broken" if names else "held", ", ".join(names)))
    return tuple(rows)


RULES = (
    Rule("C9", "The file carries nothing of the machine that made it", "reproducible files", "note", ALL, _same_bytes),
    Rule(
        "C10",
        "The metadata name quantizer, recipe and producer",
        "a file is found again by what it says",
        "note",
        ALL,
        _recorded,
    ),
)
