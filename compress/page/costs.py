"""What models cost on devices, as one page: side by side, and kernel by kernel under the device's roofs."""

import math
from collections.abc import Mapping
from typing import Any

from compress.page import figure, numbers
from compress.page.figure import Figure, hover, inert
from compress.page.html import Markup, details, facts, join, table, tag
from compress.page.layers import bars
from compress.page.reading import Row, interval, number, part, plain, rows, word
from compress.page.roofline import roofline
from compress.page.shell import document, section

SERIES = ("--series-1", "--series-2", "--series-3", "--series-4", "--series-5")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")


def render(content: Mapping[str, Any]) -> str:
    """The page of `compress profile --html`.

    Args:
        content: "profiles", a list of tables with model, target, batch and cost (a `Cost` as a table); "targets", name
            -> device, runtime, hardware, sources. Nothing in it is trusted: every text is escaped.
    """
    clean: dict[str, Any] = plain(content)
    found = rows(clean, "profiles")
    targets = part(clean, "targets")
    models = list(dict.fromkeys(word(row, "model") for row in found))
    title = f"{', '.join(models)}: cost on {', '.join(dict.fromkeys(word(row, 'target') for row in found))}"
    sections = [("together", "Side by side", _together(found, targets))] if len(found) > 1 else []
    sections += [(f"profile-{n}", _title(row, targets), _one(row, targets, n)) for n, row in enumerate(found)]
    sections.append(("devices", "Devices and where their figures are from", _devices(targets)))
    links = [tag("a", text, attributes={"href": f"#{name}"}) for name, text, _ in sections]
    return document(title, _header(found, targets), tag("nav", *links), *(section(*parts) for parts in sections))


def _title(row: Row, targets: Row) -> str:
    return f"{word(row, 'model')} on {_device(row, targets)}, batch {word(row, 'batch')}"


def _several(found: list[dict[str, Any]]) -> str:
    counts = [
        (len({word(row, name) for row in found}), singular, plural)
        for name, singular, plural in (
            ("model", "model", "models"),
            ("target", "device", "devices"),
            ("batch", "batch size", "batch sizes"),
        )
    ]
    models, devices, batches = (f"{count} {one if count == 1 else more}" for count, one, more in counts)
    return f"{models} on {devices}" + (f" at {batches}" if counts[2][0] > 1 else "")


def _device(row: Row, targets: Row) -> str:
    return word(part(targets, word(row, "target")), "device", word(row, "target"))


def _header(found: list[dict[str, Any]], targets: Row) -> Markup:
    first = found[0] if found else {}
    cost = part(first, "cost")
    several = len(found) > 1
    legend = [tag("span", join((numbers.origin(name), f" {text}"))) for name, text in numbers.ORIGINS.items()]
    return tag(
        "header",
        tag("p", "profile", cls="over"),
        tag("h1", _several(found) if several else _title(first, targets)),
        "" if several else tag("div", *_figures(cost), cls="figures"),
        tag("p", *legend, cls="legend"),
    )


def _figures(cost: Row) -> list[Markup]:
    energy = number(cost, "energy_mj")
    made = [
        _figure(
            "latency",
            numbers.milliseconds(number(cost, "latency_ms")),
            numbers.span(interval(cost)),
            word(cost, "origin"),
        ),
        _figure("multiply-accumulates", numbers.count(number(cost, "macs")), "", "counted"),
        _figure("weights", numbers.size(number(cost, "weight_bytes")), _stored(cost), "counted"),
        _figure("peak activation memory", numbers.size(number(cost, "peak_activation_bytes")), "", "counted"),
    ]
    if energy is not None:
        made.append(
            _figure("energy", numbers.energy(energy), _energy_span(cost), word(cost, "energy_origin", "predicted"))
        )
    return made


def _figure(name: str, value: str, below: str, origin: str) -> Markup:
    return tag(
        "div",
        tag("span", name, cls="name"),
        tag("strong", value),
        tag("span", below, cls="below") if below else "",
        numbers.origin(origin),
        cls="figure",
    )


def _stored(cost: Row) -> str:
    kinds = part(cost, "weight_bytes_by_dtype")
    listed = [f"{numbers.size(float(size))} {kind}" for kind, size in kinds.items()]
    return ", ".join([f"{numbers.count(number(cost, 'params'))} parameters", *(listed if len(listed) > 1 else [])])


def _energy_span(cost: Row) -> str:
    ends = cost.get("energy_interval_mj")
    if not isinstance(ends, list) or len(ends) != 2:
        return ""
    return f"{numbers.energy(float(ends[0]))} to {numbers.energy(float(ends[1]))}"


def _together(found: list[dict[str, Any]], targets: Row) -> Markup:
    """A table of all, and their latencies with intervals."""
    cells: list[tuple[object, ...]] = []
    for row in found:
        cost = part(row, "cost")
        energy = number(cost, "energy_mj")
        cells.append(
            (
                tag("b", word(row, "model")),
                _device(row, targets),
                word(row, "batch"),
                word(cost, "precision"),
                join(
                    (
                        tag("b", numbers.milliseconds(number(cost, "latency_ms"))),
                        " ",
                        numbers.origin(word(cost, "origin")),
                    )
                ),
                numbers.span(interval(cost)),
                numbers.count(number(cost, "macs")),
                numbers.size(number(cost, "weight_bytes")),
                numbers.size(number(cost, "peak_activation_bytes")),
                numbers.energy(energy),
            )
        )
    columns = [
        ("model", ""),
        ("device", "head"),
        ("batch", "number"),
        ("precision", ""),
        ("latency", "number"),
        ("90 % interval", "number"),
        ("MACs", "number"),
        ("weights", "number"),
        ("peak activations", "number"),
        ("energy", "number"),
    ]
    if all(number(part(row, "cost"), "energy_mj") is None for row in found):
        columns, cells = columns[:-1], [row[:-1] for row in cells]
    plot = figure.box(
        "plot-together",
        _latencies(found, targets),
        label="Latency of every model on every device",
        caption="Whiskers hold 90 % of unseen cases (predicted), what the runs of this machine spread over (measured), "
        "or the range of cycles per instruction (emulated).",
    )
    return join((plot, table(columns, cells, label="Profiles side by side")))


def _latencies(found: list[dict[str, Any]], targets: Row) -> Figure:
    names = list(dict.fromkeys(_device(row, targets) for row in found))
    traces = []
    lines = list(dict.fromkeys(f"{word(row, 'model')}, batch {word(row, 'batch')}" for row in found))
    for n, line in enumerate(lines):
        mine = [row for row in found if f"{word(row, 'model')}, batch {word(row, 'batch')}" == line]
        costs = [part(row, "cost") for row in mine]
        middle = [number(cost, "latency_ms") or 0.0 for cost in costs]
        ends = [interval(cost) or (value, value) for cost, value in zip(costs, middle, strict=True)]
        shift = (n - (len(lines) - 1) / 2) * 0.6 / len(lines)
        traces.append(
            {
                "name": inert(line),
                "mode": "markers",
                "x": middle,
                "y": [names.index(_device(row, targets)) + shift for row in mine],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [max(0.0, high - value) for (_, high), value in zip(ends, middle, strict=True)],
                    "arrayminus": [max(0.0, value - low) for (low, _), value in zip(ends, middle, strict=True)],
                    "color": SERIES[n % len(SERIES)],
                    "thickness": 1.5,
                },
                "marker": {"color": SERIES[n % len(SERIES)], "symbol": SYMBOLS[n % len(SYMBOLS)], "size": 11},
                "hovertext": [
                    hover(
                        line,
                        _device(row, targets),
                        f"{numbers.milliseconds(value)} {word(cost, 'origin')}",
                        numbers.span(interval(cost)),
                    )
                    for row, cost, value in zip(mine, costs, middle, strict=True)
                ],
                "hoverinfo": "text",
            }
        )
    layout = {
        "xaxis": {"type": "log", "title": {"text": "latency of the batch, ms"}, **_ticks(found)},
        "yaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": [inert(name, 22) for name in names],
            "range": [len(names) - 0.4, -0.6],
            "fixedrange": True,
        },
        "showlegend": True,
        "hovermode": "closest",
    }
    return Figure(traces, layout, height=140 + 26 * len(names) * max(2, len(lines)))


def _ticks(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 of every decade that the intervals reach."""
    reached = [end for row in found for end in (interval(part(row, "cost")) or ()) if end > 0]
    if not reached:
        return {}
    decades = range(math.floor(math.log10(min(reached))), math.ceil(math.log10(max(reached))) + 1)
    values = [digit * 10.0**decade for decade in decades for digit in (1, 2, 5)]
    return {"tickvals": values, "ticktext": [numbers.significant(value) for value in values]}


def _one(row: Row, targets: Row, n: int) -> Markup:
    cost = part(row, "cost")
    layers = rows(cost, "layers")
    notes = cost.get("notes")
    origin = word(cost, "layers_origin") or "predicted"
    uncounted = part(cost, "uncounted")
    listed = ", ".join(f"{times} × {kind}" for kind, times in uncounted.items())
    plot = roofline(cost, part(targets, word(row, "target"), "hardware"), f"plot-roofline-{n}")
    return join(
        (
            facts(
                [
                    ("latency", join((_latency(cost), " ", numbers.origin(word(cost, "origin"))))),
                    ("runtime, precision", f"{word(cost, 'runtime')}, {word(cost, 'precision')}"),
                    ("operators without a counter", listed or "none"),
                ]
            ),
            plot or "",
            bars(layers, origin, f"plot-layers-{n}", f"Kernels of {word(row, 'model')}")
            if layers
            else tag("p", "The time of single kernels was not measured.", cls="note"),
            tag("ul", *(tag("li", note) for note in notes), cls="note") if isinstance(notes, list) and notes else "",
        )
    )


def _latency(cost: Row) -> str:
    around = numbers.span(interval(cost))
    return f"{numbers.milliseconds(number(cost, 'latency_ms'))}{f' ({around})' if around else ''}"


def _devices(targets: Row) -> Markup:
    parts = []
    for name, found in targets.items():
        hardware = {key: value for key, value in part(found, "hardware").items() if value not in ("", 0, None)}
        known = [(key.replace("_", " "), _value(value)) for key, value in hardware.items()]
        sources = [(key.replace("_", " "), str(value)) for key, value in part(found, "sources").items()]
        parts += [
            tag("h3", f"{name}: {word(found, 'device')}"),
            facts([("runtime", word(found, "runtime")), *known]),
            details(f"{len(sources)} sources", facts(sources)) if sources else "",
        ]
    return join(parts)


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {item:g}" if isinstance(item, float) else f"{key} {item}" for key, item in value.items()
        )
    return f"{value:g}" if isinstance(value, float) else str(value)
