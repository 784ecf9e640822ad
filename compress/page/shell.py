"""One HTML document that carries all it needs: style, scripts, plots; nothing is fetched."""

from functools import cache
from importlib import resources
from pathlib import Path

from compress.page.html import Markup, join, tag

FOLDER = Path(__file__).parent
# Nothing may be fetched, whatever a browser would like to: the page carries all it needs.
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def document(title: str, *body: object) -> str:
    """A whole page.

    Args:
        title: of the window.
        body: what stands inside `<main>`; texts are escaped, markup is not.

    Returns:
        HTML of about 5 MB, nearly all of it plotly.js, which draws the plots.
    """
    head = tag(
        "head",
        tag("meta", attributes={"charset": "utf-8"}),
        tag("meta", attributes={"http-equiv": "Content-Security-Policy", "content": POLICY}),
        tag("meta", attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", attributes={"name": "color-scheme", "content": "light dark"}),
        tag("title", title),
        tag("style", Markup((FOLDER / "style.css").read_text(encoding="utf-8"))),
    )
    whole = tag(
        "body",
        tag("main", *body),
        tag("noscript", tag("p", "The plots need JavaScript; every number is in the tables.", cls="note")),
        tag("script", _plotly()),
        tag("script", Markup((FOLDER / "plots.js").read_text(encoding="utf-8"))),
    )
    return f"<!doctype html>\n{join((tag('html', head, whole, attributes={'lang': 'en'}),))}\n"


def section(name: str, title: str, body: Markup | None) -> Markup:
    """One card of the page; without a body it says that there is nothing."""
    absent = tag("p", "Nothing to show: this run has no such figures.", cls="note")
    return tag("section", tag("h2", title), absent if body is None else body, attributes={"id": name})


@cache
def _plotly() -> Markup:
    """plotly.js as the installed package carries it; it has no smaller bundle."""
    return Markup((resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8"))
