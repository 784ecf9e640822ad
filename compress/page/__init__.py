"""A run's report as one page for people: no network, no other file, the same bytes for the same content."""

from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from compress.page import checks, choice, comparison, diagnostics, layers, provenance, training
from compress.page.headline import header
from compress.page.html import Markup, join, tag
from compress.page.reading import Row, part, plain, word

FOLDER = Path(__file__).parent
Section = Callable[[Row], Markup | None]
SECTIONS: tuple[tuple[str, str, Section], ...] = (
    ("comparison", "Teacher and students side by side", comparison.compared),
    ("choice", "The choice and why", choice.chosen),
    ("gates", "Gates", checks.gates),
    ("artifacts", "Artifacts", checks.artifacts),
    ("parity", "Parity between stages", checks.parity),
    ("diagnostics", "Student and teacher", diagnostics.diagnostics),
    ("curves", "Learning curves", training.curves),
    ("layers", "Cost of each layer of the int8 student", layers.per_layer),
    ("candidates", "All candidates", choice.candidates),
    ("provenance", "Provenance", provenance.origins),
)
# Nothing may be fetched, whatever a browser would like to: the page carries all it needs.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


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
    head = tag(
        "head",
        tag("meta", attributes={"charset": "utf-8"}),
        tag("meta", attributes={"http-equiv": "Content-Security-Policy", "content": POLICY}),
        tag("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", attributes={"name": "color-scheme", "content": "light dark"}),
        tag("title", title),
        tag("style", Markup((FOLDER / "style.css").read_text(encoding="utf-8"))),
    )
    made = [(name, text, section(clean)) for name, text, section in SECTIONS]
    links = [tag("a", text, attributes={"href": f"#{name}"}) for name, text, body in made if body is not None]
    body = tag(
        "body",
        tag("main", header(clean), tag("nav", *links), *(_section(*parts) for parts in made)),
        tag("noscript", tag("p", "The plots need JavaScript; every number is in the tables.", cls="note")),
        tag("script", _plotly()),
        tag("script", Markup((FOLDER / "plots.js").read_text(encoding="utf-8"))),
    )
    return f"<!doctype html>\n{join((tag('html', head, body, attributes={'lang': 'en'}),))}\n"


def _section(name: str, title: str, body: Markup | None) -> Markup:
    absent = tag("p", "Nothing to show: this run has no such figures.", cls="note")
    return tag("section", tag("h2", title), absent if body is None else body, attributes={"id": name})


@cache
def _plotly() -> Markup:
    """plotly.js as the installed package carries it; it has no smaller bundle."""
    return Markup((resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8"))
