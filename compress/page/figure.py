"""A plot inside the page: an empty box, and beside it the traces and axes as JSON that `plots.js` draws.

Colours are names of CSS variables ("--chosen"), so that light, dark and paper each get their own.
"""

import html
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compress.page.html import Markup, json_text, tag

Trace = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """What plotly draws.

    Attributes:
        traces, layout: as plotly.js takes them; where and how wide is decided in the browser.
        height: of the box in CSS pixels.
        choices: label -> changes, one of which the reader picks; the first is what is drawn at the start. "y" has the
            values of each trace, "traces" what else changes in each, "layout" what changes around them.
    """

    traces: Sequence[Trace]
    layout: Mapping[str, Any]
    height: int = 420
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def box(name: str, figure: Figure, *, label: str, caption: object = "") -> Markup:
    """The figure's place in the page.

    Args:
        name: its id, unique in the page.
        label: what it shows, for people who do not see it.
        caption: what stands below it.
    """
    spec = {"data": list(figure.traces), "layout": dict(figure.layout), "choices": dict(figure.choices)}
    buttons = [
        tag("button", text, attributes={"type": "button", "data-choice": text, "aria-pressed": str(n == 0).lower()})
        for n, text in enumerate(figure.choices)
    ]
    plot = tag("div", cls="plot", attributes={"id": name, "role": "img", "aria-label": label, "style": _height(figure)})
    data = tag("script", json_text(spec), attributes={"type": "application/json", "data-plot": name})
    choices = tag("div", *buttons, cls="choices", attributes={"data-plot": name}) if buttons else ""
    return tag("figure", choices, plot, data, tag("figcaption", caption) if caption else "")


def inert(value: object, width: int = 0) -> str:
    """Text that plotly shows as it is: it would read tags and entities in it.

    Args:
        width: where to break lines, in characters; 0 leaves one line.
    """
    lines = textwrap.wrap(str(value), width) if width else [str(value)]
    return "<br>".join(html.escape(line, quote=False) for line in lines)


def hover(*lines: object) -> str:
    """What appears at a point, line by line."""
    return "<br>".join(inert(line, 58) for line in lines if line != "")


def _height(figure: Figure) -> str:
    return f"height:{figure.height}px"
