"""What the target's rules and its compiler say of the exported file."""

from compress.page import numbers
from compress.page.html import Markup, join, table, tag
from compress.page.reading import Row, number, part, rows, word

COLUMNS = (("rule", ""), ("level", ""), ("module", "reason"), ("what", "reason"), ("what to do", "reason"))


def findings(content: Row) -> Markup | None:
    """The share of products in integers, and a row for each finding; None where the file was not linted."""
    found = part(content, "lint")
    if not found:
        return None
    counts = part(found, "counts")
    named = ", ".join(f"{count} {level}" for level, count in counts.items() if count)
    share = number(found, "int8_share")
    compiled = (
        tag("p", "No compiler of this target ran here, so how many products run in int8 is not known.")
        if share is None
        else tag(
            "p",
            "Of the products (convolutions and matrix products) ",
            tag("b", numbers.percent(share, 1)),
            " run in int8, as the compiler says that was asked here. ",
            numbers.origin("counted"),
        )
    )
    every = rows(found, "findings")
    cells = [
        (
            word(row, "rule"),
            word(row, "level"),
            tag("span", word(row, "module") or word(row, "node"), cls="name"),
            word(row, "what"),
            word(row, "fix"),
        )
        for row in every
    ]
    return join(
        (
            compiled,
            table(COLUMNS, cells, label="Findings of the lint") if every else "",
            tag(
                "p", f"Findings: {named or 'none'}. What each rule says, and how it is known: docs/lint.md.", cls="note"
            ),
        )
    )
