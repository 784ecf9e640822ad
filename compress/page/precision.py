"""Which precision each layer ships in, what each loses by rounding, and why this was chosen."""

from collections.abc import Mapping

from compress.page import figure, numbers
from compress.page.figure import Figure, Trace, hover, inert
from compress.page.html import Markup, details, join, table, tag
from compress.page.reading import Row, number, part, rows, word

MOST = 40  # bars; beyond that the most sensitive are shown and the table has them all
FLOATS = ("fp16", "bf16", "fp32")
LONGEST_NAME = 26  # characters of a name beside its bar


def per_layer(content: Row) -> Markup | None:
    """The decision, the precisions that competed, a bar and a row for each layer; None where nothing was decided."""
    found = part(content, "quantize", "precision")
    if not found:
        return None
    layers = rows(found, "layers")
    return join(
        (
            *(tag("p", reason) for reason in _texts(found, "why")),
            _candidates(found),
            _bars(layers, found) if layers else "",
            details(f"All {len(layers)} layers in numbers", _table(layers, found)) if layers else "",
            *(tag("p", note, cls="note") for note in _texts(found, "notes")),
        )
    )


def _candidates(found: Row) -> Markup:
    options = rows(found, "candidates")
    if not options:
        return join(())
    cells = [
        (
            tag("strong", word(item, "precision"))
            if word(item, "precision") == word(found, "shipped")
            else word(item, "precision"),
            numbers.milliseconds(number(item, "latency_ms")),
            numbers.origin(word(item, "origin")),
            numbers.size(number(item, "weight_bytes")),
            numbers.size(number(item, "peak_activation_bytes")),
            _lost(item, word(found, "metric_unit", "%")),
            "; ".join(_texts(item, "broken")) or word(item, "missing"),
        )
        for item in options
    ]
    columns = (
        ("precision", ""),
        ("latency, batch 1", "number"),
        ("", ""),
        ("weights", "number"),
        ("peak activations", "number"),
        (f"lost {word(found, 'metric', 'score')}, validation", "number"),
        ("why not", "reason"),
    )
    return table(columns, cells, label="Precisions that competed")


def _lost(item: Row, unit: str) -> Markup:
    """What a precision loses of the metric: measured where it rounds to integers, else taken as nothing."""
    drop = number(item, "drop")
    if drop is None:
        return join((numbers.NOTHING,))
    if word(item, "precision") in FLOATS:
        return join((numbers.gap(drop, unit), " taken for granted"))
    return join((numbers.gap(drop, unit), " ", numbers.origin("measured")))


def _bars(layers: list[dict[str, object]], found: Row) -> Markup:
    shown = layers
    if len(layers) > MOST:
        order = sorted(range(len(layers)), key=lambda n: -(_mean(layers[n], "alone", "distance") or 0.0))[:MOST]
        shown = [layers[n] for n in sorted(order)]
    caption = join(
        (
            "How far the outputs move from the float student's when a layer alone is quantised, and how much nearer "
            f"they come when it alone stays in float, {word(found, 'samples')} validation examples; lines are one "
            "standard error. ",
            numbers.origin("measured"),
        )
    )
    return figure.box(
        "plot-precision",
        _figure(shown, word(found, "metric_unit", "%")),
        label="Sensitivity of each layer",
        caption=caption,
    )


def _figure(layers: list[dict[str, object]], unit: str) -> Figure:
    places = [f"{n + 1}" for n in range(len(layers))]
    traces: list[Trace] = [
        {
            "type": "bar",
            "orientation": "h",
            "name": name,
            "y": places,
            "x": [_mean(layer, kind, measure) for layer in layers],
            "error_x": {
                "type": "data",
                "array": [_error(layer, kind, measure) or 0.0 for layer in layers],
                "thickness": 1,
            },
            "hovertext": [_described(layer, unit) for layer in layers],
            "hoverinfo": "text",
            "marker": {
                "color": color,
                "pattern": {"shape": shape, "fillmode": "overlay", "fgcolor": "--card", "size": 7, "solidity": 0.3},
            },
        }
        for kind, measure, name, color, shape in (
            ("alone", "distance", "alone in int8: distance", "--series-1", ""),
            ("without", "nearer", "alone in float: distance gained", "--series-3", "/"),
        )
    ]
    layout = {
        "barmode": "group",
        "xaxis": {"title": {"text": "distance of outputs"}, "rangemode": "tozero"},
        "yaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": places,
            "autorange": "reversed",
            "tickvals": places,
            "ticktext": [inert(_short(word(layer, "layer"))) for layer in layers],
            "automargin": True,
            "fixedrange": True,
            "showgrid": False,
        },
        "bargap": 0.25,
        "showlegend": True,
        "hovermode": "closest",
    }
    return Figure(traces, layout, height=130 + 30 * len(layers))


def _described(layer: Row, unit: str) -> str:
    return hover(
        word(layer, "layer"),
        " + ".join(_texts(layer, "operators")),
        f"ships in {word(layer, 'precision')}",
        f"alone in int8: score {numbers.score(_mean(layer, 'alone', 'score'), unit)}",
        f"all but it in int8: score {numbers.score(_mean(layer, 'without', 'score'), unit)}",
    )


def _table(layers: list[dict[str, object]], found: Row) -> Markup:
    unit = word(found, "metric_unit", "%")
    precisions = list(dict.fromkeys(name for layer in layers for name in part(layer, "latency_ms")))
    cells = [
        (
            n + 1,
            tag("span", word(layer, "layer"), cls="name"),
            word(layer, "precision"),
            _score(layer, "without", unit),
            _score(layer, "alone", unit),
            numbers.significant(_mean(layer, "alone", "distance") or 0.0),
            *(numbers.milliseconds(number(part(layer, "latency_ms"), name)) for name in precisions),
            *(numbers.size(number(part(layer, "weight_bytes"), name)) for name in precisions),
        )
        for n, layer in enumerate(layers)
    ]
    metric = word(found, "metric", "score")
    columns = (
        ("", "number"),
        ("layer", "reason"),
        ("ships in", ""),
        (f"{metric}, it alone in float", "number"),
        (f"{metric}, it alone in int8", "number"),
        ("distance, it alone in int8", "number"),
        *((f"{name} (predicted)", "number") for name in precisions),
        *((f"weights {name}", "number") for name in precisions),
    )
    return table(columns, cells, label="Precision per layer")


def _score(layer: Row, kind: str, unit: str) -> str:
    mean, error = _mean(layer, kind, "score"), _error(layer, kind, "drop")
    return numbers.score(mean, unit) + ("" if error is None else f" ± {numbers.score(error, unit)}")


def _mean(layer: Row, kind: str, figure_name: str) -> float | None:
    return number(part(layer, kind, figure_name), "mean")


def _error(layer: Row, kind: str, figure_name: str) -> float | None:
    return number(part(layer, kind, figure_name), "standard_error")


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else "…" + name[-(LONGEST_NAME - 1) :]


def _texts(row: Mapping[str, object], name: str) -> list[str]:
    found = row.get(name)
    return [str(item) for item in found] if isinstance(found, list) else []
