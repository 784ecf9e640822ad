"""Where a network's time goes, kernel by kernel."""

from compress.page import figure, numbers
from compress.page.figure import Figure, Trace, hover, inert
from compress.page.html import Markup, details, join, table, tag
from compress.page.reading import PREDICTED, SHIPPED, Row, number, part, rows, word

BOUNDS = (("compute", "--series-1", ""), ("memory", "--series-2", "/"), ("launch", "--series-3", "."))
MOST = 40  # bars; beyond that the longest are shown and the table has them all
LONGEST_NAME = 26  # characters of a name beside its bar


def per_layer(content: Row) -> Markup | None:
    """Bars and a table; None where the runtime gives no layers."""
    costs = part(content, "verify", "costs")
    cost = part(costs, SHIPPED)
    layers = rows(cost, "layers")
    if not layers:
        return None
    predicted = rows(costs, PREDICTED, "layers")
    # A runtime that measures only the whole network leaves the predicted layers in place.
    origin = "predicted" if predicted == layers else word(cost, "origin")
    return bars(layers, origin, "plot-layers", "Kernels of the shipped student")


def bars(layers: list[dict[str, object]], origin: str, plot: str, label: str) -> Markup:
    """A bar for each kernel and a table of them all.

    Args:
        layers: at least one, as `Cost.layers` has them.
        origin: how their times were obtained.
        plot: id of the plot in the page.
        label: of the table, for screen readers.
    """
    shown = layers
    if len(layers) > MOST:
        longest = sorted(range(len(layers)), key=lambda n: -(number(layers[n], "latency_ms") or 0.0))[:MOST]
        shown = [layers[n] for n in sorted(longest)]
    total = sum(number(layer, "latency_ms") or 0.0 for layer in layers)
    kernels = f"{len(layers)} kernels in the order of execution" if len(shown) == len(layers) else ""
    caption = join(
        (
            kernels or f"The {len(shown)} longest of {len(layers)} kernels, in the order of execution",
            f"; together {numbers.milliseconds(total)} ",
            numbers.origin(origin),
            ". The colour and the pattern say what bounds a kernel: arithmetic, memory traffic, or starting it.",
        )
    )
    return join(
        (
            figure.box(plot, _figure(shown), label="Latency of each kernel", caption=caption),
            details(f"All {len(layers)} kernels in numbers", _table(layers, total, origin, label)),
        )
    )


def _figure(layers: list[dict[str, object]]) -> Figure:
    places = [f"{n + 1}" for n in range(len(layers))]
    traces: list[Trace] = []
    known = {bound for bound, _, _ in BOUNDS}
    kinds = [*BOUNDS, ("unknown", "--muted", "x")]
    for bound, color, pattern in kinds:
        mine = [
            n
            for n, layer in enumerate(layers)
            if word(layer, "bound_by") == bound or (bound == "unknown" and word(layer, "bound_by") not in known)
        ]
        if not mine:
            continue
        traces.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": f"bound by {bound}",
                "y": [places[n] for n in mine],
                "x": [layers[n].get("latency_ms") for n in mine],
                "hovertext": [described(layers[n]) for n in mine],
                "hoverinfo": "text",
                "marker": {
                    "color": color,
                    "pattern": {
                        "shape": pattern,
                        "fillmode": "overlay",
                        "fgcolor": "--card",
                        "size": 7,
                        "solidity": 0.3,
                    },
                },
            }
        )
    layout = {
        "xaxis": {"title": {"text": "latency, ms"}, "rangemode": "tozero"},
        "yaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": places,
            "autorange": "reversed",
            "tickvals": places,
            "ticktext": [inert(_short(word(layer, "name"))) for layer in layers],
            "automargin": True,
            "fixedrange": True,
            "showgrid": False,
        },
        "bargap": 0.25,
        "showlegend": True,
        "hovermode": "closest",
    }
    return Figure(traces, layout, height=130 + 22 * len(layers))


def _short(name: str) -> str:
    """The end of a name tells layers apart better than its start."""
    return name if len(name) <= LONGEST_NAME else "…" + name[-(LONGEST_NAME - 1) :]


def described(layer: Row) -> str:
    """What appears at a kernel's mark."""
    return hover(
        word(layer, "name"),
        _ops(layer),
        f"{numbers.milliseconds(number(layer, 'latency_ms'))}, bound by {word(layer, 'bound_by')}",
        word(layer, "precision"),
        f"{numbers.count(number(layer, 'macs'))} MACs, {numbers.size(number(layer, 'weight_bytes'))} of weights, "
        f"{numbers.size(number(layer, 'activation_bytes'))} moved",
    )


def _ops(layer: Row) -> str:
    found = layer.get("ops")
    return " + ".join(str(name) for name in found) if isinstance(found, list) else ""


def _table(layers: list[dict[str, object]], total: float, origin: str, label: str) -> Markup:
    cells = [
        (
            n + 1,
            tag("span", word(layer, "name"), cls="name"),
            _ops(layer),
            numbers.milliseconds(number(layer, "latency_ms")),
            numbers.percent((number(layer, "latency_ms") or 0.0) / total, 1) if total else numbers.NOTHING,
            word(layer, "bound_by"),
            numbers.count(number(layer, "macs")),
            numbers.size(number(layer, "weight_bytes")),
            numbers.size(number(layer, "activation_bytes")),
            word(layer, "precision"),
        )
        for n, layer in enumerate(layers)
    ]
    columns = (
        ("", "number"),
        ("kernel", "reason"),
        ("operators", "reason"),
        (f"latency ({origin})", "number"),
        ("share", "number"),
        ("bound by", ""),
        ("MACs", "number"),
        ("weights", "number"),
        ("moved", "number"),
        ("precision", ""),
    )
    return table(columns, cells, label=label)
