"""How far artifacts are from each other in detail: histograms, worst samples, and the layer at fault."""

from collections.abc import Sequence

from compress.page import numbers
from compress.page.html import Markup, details, facts, join, table, tag
from compress.page.reading import Row, number, part, rows, word

SAMPLES = 3  # worst samples of each pair


def ledger(content: Row) -> Markup | None:
    """Histogram of every comparison's differences, and its worst samples; None where there are none."""
    found = [row for row in rows(content, "verify", "parity") if part(row, "histogram")]
    if not found:
        return None
    shown = [details(f"Histogram of the differences: {_pair(row)}", histogram(part(row, "histogram"))) for row in found]
    cells = [
        (
            _pair(row),
            f"{number(one, 'sample') or 0:.0f}",
            ", ".join(str(place) for place in one.get("element", ())) or numbers.NOTHING,
            _value(number(one, "reference")),
            _value(number(one, "candidate")),
            _value(number(one, "steps")),
        )
        for row in found
        for one in rows(row, "worst")[:SAMPLES]
    ]
    columns = (
        ("output of", ""),
        ("test sample", "number"),
        ("element", "number"),
        ("before", "number"),
        ("after", "number"),
        ("difference, steps", "number"),
    )
    worst = details("Samples that differ most", table(columns, cells, label="Worst samples")) if cells else ""
    return join((*shown, worst))


def faults(content: Row) -> Markup | None:
    """The first layer that rounding does not explain, of every artifact that failed a gate; None where none did."""
    found = rows(content, "verify", "bisect")
    if not found:
        return None
    return join(_fault(row) for row in found)


def histogram(found: Row) -> Markup:
    """Bins, their counts and shares; bins without elements are left out."""
    edges, counts = list(found.get("edges", ())), list(found.get("counts", ()))
    equal, unordered = number(found, "equal") or 0.0, number(found, "unordered") or 0.0
    total = max(1.0, sum(counts) + equal + unordered)
    unit = word(found, "unit")
    listed = [("equal", equal)]
    listed += [
        (f"{_bin(edges, index)} {unit}", float(count)) for index, count in enumerate(counts[: len(edges) - 1]) if count
    ]
    listed += [("not a number on one side", unordered)] if unordered else []
    cells = [(name, f"{count:,.0f}", numbers.percent(count / total, 3)) for name, count in listed]
    return table((("difference", ""), ("elements", "number"), ("share", "number")), cells, label="Histogram")


def _fault(row: Row) -> Markup:
    first = part(row, "first")
    said = tag("p", tag("b", word(row, "artifact")), ": ", word(row, "sentence"))
    if not first:
        return join((said, _notes(row)))
    place = word(row, "reproducer")
    named = [
        ("torch module", tag("code", word(first, "module") or numbers.NOTHING)),
        ("ONNX node", tag("code", word(first, "node"))),
        ("operators", ", ".join(str(name) for name in first.get("operators", ()))),
        ("run by", word(row, "runtime")),
        ("layers compared", f"{number(row, 'compared') or 0:.0f}, on {number(row, 'samples') or 0:.0f} samples"),
        ("reproducer", tag("code", f"cd 6_verify/{place} && python rerun.py") if place else numbers.NOTHING),
    ]
    compared = part(first, "parity")
    columns = (
        ("torch module", ""),
        ("ONNX node", ""),
        ("times what rounding explains", "number"),
        ("largest error, steps", "number"),
        ("mean error, steps", "number"),
    )
    cells = [
        (
            word(layer, "module") or numbers.NOTHING,
            word(layer, "node"),
            "beyond any" if number(layer, "score") is None else numbers.significant(number(layer, "score") or 0.0),
            _value(number(part(layer, "parity"), "max_steps")),
            _value(number(part(layer, "parity"), "mean_steps")),
        )
        for layer in rows(row, "layers")
    ]
    return join(
        (
            said,
            facts(named),
            table(columns, cells, label="Faulty layers") if cells else "",
            details("Histogram of this layer's own error", histogram(part(compared, "histogram"))) if compared else "",
            _notes(row),
        )
    )


def _notes(row: Row) -> Markup | str:
    found = row.get("notes")
    return tag("p", "; ".join(str(note) for note in found), cls="note") if isinstance(found, list) and found else ""


def _pair(row: Row) -> str:
    output = word(row, "output")
    return f"{word(row, 'artifact')} against {word(row, 'reference')}" + (f", {output}" if output else "")


def _bin(edges: Sequence[object], index: int) -> str:
    low, high = (edge if isinstance(edge, int | float) else None for edge in edges[index : index + 2])
    if low is None:
        return f"up to {high:g}" if high is not None else "any"
    return f"{low:g} to {high:g}" if high is not None else f"above {low:g}"


def _value(value: float | None) -> str:
    return numbers.NOTHING if value is None else numbers.significant(value, 4)
