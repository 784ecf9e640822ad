"""A run's report as one page for people: no network, no other file, the same bytes for the same content."""

from collections.abc import Callable, Mapping
from typing import Any

from compress.page import (
    checks,
    choice,
    comparison,
    diagnostics,
    fidelity,
    layers,
    lint,
    precision,
    provenance,
    search,
    training,
)
from compress.page.headline import header
from compress.page.html import Markup, tag
from compress.page.reading import Row, part, plain, word
from compress.page.shell import document, section

Section = Callable[[Row], Markup | None]
SECTIONS: tuple[tuple[str, str, Section], ...] = (
    ("comparison", "Teacher and students side by side", comparison.compared),
    ("choice", "The choice and why", choice.chosen),
    ("search", "The search", search.searched),
    ("gates", "Gates", checks.gates),
    ("artifacts", "Artifacts", checks.artifacts),
    ("lint", "Rules of the target", lint.findings),
    ("parity", "Parity between stages", checks.parity),
    ("fidelity", "How faithful the copies are", fidelity.copies),
    ("diagnostics", "Student and teacher", diagnostics.diagnostics),
    ("curves", "Learning curves", training.curves),
    ("precision", "Precision per layer", precision.per_layer),
    ("layers", "Cost of each layer of the shipped student", layers.per_layer),
    ("candidates", "All candidates", choice.candidates),
    ("provenance", "Provenance", provenance.origins),
)


def render(content: Mapping[str, Any]) -> str:
    """The page.

    Args:
        content: what `report.json` holds. Parts may be absent: their sections say so. Nothing in it is trusted: every
            text is escaped.

    Returns:
        HTML of about 5 MB, nearly all of it plotly.js, which draws the plots.
    """
    clean: dict[str, Any] = plain(content)
    title = f"{word(clean, 'name', 'run')} for {word(part(clean, 'target'), 'name', 'no target')}: report"
    made = [(name, text, section_of(clean)) for name, text, section_of in SECTIONS]
    links = [tag("a", text, attributes={"href": f"#{name}"}) for name, text, body in made if body is not None]
    return document(title, header(clean), tag("nav", *links), *(section(*parts) for parts in made))
