"""HTML that cannot be broken by what is put into it: every text is escaped unless it is `Markup` already."""

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

VOID = frozenset({"meta", "br", "hr", "col", "img"})


class Markup(str):
    """Text that is HTML already; only this module's functions make it."""

    __slots__ = ()


def text(value: object) -> Markup:
    """`value` as HTML: escaped, `Markup` as it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """All parts one after the other, each escaped where it is not markup."""
    return Markup(str(text(between)).join(str(text(part)) for part in parts))


def tag(name: str, *children: object, cls: str = "", attributes: Mapping[str, str] | None = None) -> Markup:
    """One element; attribute values are escaped."""
    given = ({"class": cls} if cls else {}) | dict(attributes or {})
    opening = name + "".join(f' {key}="{html.escape(value, quote=True)}"' for key, value in given.items())
    return Markup(f"<{opening}>") if name in VOID else Markup(f"<{opening}>{join(children)}</{name}>")


def table(
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[object]],
    *,
    label: str,
    row_classes: Sequence[str] = (),
    cls: str = "",
) -> Markup:
    """A table in a box of its own, which scrolls sideways where the screen is too narrow.

    Args:
        columns: heading and CSS class ("" or "number") of each.
        rows: cells in the order of the columns.
        label: what the table shows, for screen readers.
        row_classes: one per row, where rows differ.
        cls: CSS class of the table.
    """
    head = tag("tr", *(tag("th", title, cls=cls, attributes={"scope": "col"}) for title, cls in columns))
    body = [
        tag("tr", *(tag("td", cell, cls=columns[i][1]) for i, cell in enumerate(row)), cls=row_classes[n])
        if row_classes
        else tag("tr", *(tag("td", cell, cls=columns[i][1]) for i, cell in enumerate(row)))
        for n, row in enumerate(rows)
    ]
    inner = tag("table", tag("thead", head), tag("tbody", *body), cls=cls)
    return tag("div", inner, cls="scroll", attributes={"role": "region", "aria-label": label, "tabindex": "0"})


def facts(rows: Sequence[tuple[str, object]]) -> Markup:
    """Names and values, one below the other."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in rows), cls="facts")


def details(summary: object, *body: object, opened: bool = False) -> Markup:
    """What is shown on demand."""
    return tag("details", tag("summary", summary), *body, attributes={"open": ""} if opened else None)


def json_text(value: Any) -> Markup:
    """JSON for the inside of a `<script>` element: no character sequence in it can end the element or open a comment.

    Raises:
        ValueError: a number is not finite; JSON has no word for that.
    """
    plain = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        plain = plain.replace(character, f"\\u{ord(character):04x}")
    return Markup(plain)
