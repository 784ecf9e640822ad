"""Each kernel under the roofs of its device: what it reaches against what its arithmetic intensity allows.

Source: S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for multicore
architectures", CACM 52(4), 2009.
"""

import math

from compress.page import figure, numbers
from compress.page.figure import Figure, Trace, hover, inert
from compress.page.html import Markup, join
from compress.page.layers import BOUNDS, described
from compress.page.reading import Row, number, part, rows, word

SYMBOLS = {"compute": "circle", "memory": "square", "launch": "triangle-up"}
SMALLEST, LARGEST = 7.0, 34.0  # CSS pixels across a mark
ROOFS = ("--ink", "--muted", "--series-4", "--series-5")


def roofline(cost: Row, hardware: Row, name: str) -> Markup | None:
    """The plot; None where no kernel multiplies.

    Args:
        cost: a `Cost` with layers.
        hardware: of its target: tops by precision, bandwidth_gbs.
        name: id of the plot in the page.
    """
    layers = [layer for layer in rows(cost, "layers") if _intensity(layer) and number(layer, "latency_ms")]
    bandwidth = number(hardware, "bandwidth_gbs")
    if not layers or not bandwidth:
        return None
    tops = part(hardware, "tops")
    used = {word(layer, "precision") for layer in layers}
    roofs = {kind: float(rate) for kind, rate in tops.items() if kind in used}
    if "fp32" in used and "tf32" in tops:
        roofs["tf32"] = float(tops["tf32"])
    roofs = roofs or {kind: float(rate) for kind, rate in tops.items()}
    every = rows(cost, "layers")
    total = sum(number(layer, "latency_ms") or 0.0 for layer in every)
    within = sum(number(layer, "latency_ms") or 0.0 for layer in layers)
    rest = len(every) - len(layers)
    caption = join(
        (
            "Every mark is a kernel; its area is its share of the time, its colour and shape what bounds it. Lines are "
            "the device's peaks: a mark far below them waits for something else than arithmetic and memory, mostly for "
            "its own start. ",
            f"{rest} without multiplications ({numbers.percent(1 - within / total, 0)} of the time) are not here. "
            if rest and total
            else "",
            "Times are ",
            numbers.origin(word(cost, "layers_origin") or "predicted"),
            ".",
        )
    )
    plot = _figure(layers, roofs, bandwidth, total)
    return figure.box(name, plot, label="Roofline: operations per second against arithmetic intensity", caption=caption)


def _figure(layers: list[dict[str, object]], roofs: dict[str, float], bandwidth: float, total: float) -> Figure:
    intensities = [_intensity(layer) for layer in layers]
    ridge = max(rate * 1e3 / bandwidth for rate in roofs.values())
    low = min(*intensities, 0.5) / 2
    high = max(*intensities, ridge) * 3
    traces: list[Trace] = []
    for n, (kind, rate) in enumerate(sorted(roofs.items(), key=lambda item: item[1])):
        corner = rate * 1e3 / bandwidth
        traces.append(
            {
                "name": inert(
                    f"{kind} peak {numbers.significant(rate * 1e3)} GOP/s, {numbers.significant(bandwidth)} GB/s"
                ),
                "mode": "lines",
                "x": [low, corner, high],
                "y": [low * bandwidth, rate * 1e3, rate * 1e3],
                "line": {
                    "color": ROOFS[n % len(ROOFS)],
                    "width": 2,
                    "dash": ("solid", "dash", "dot", "dashdot")[n % 4],
                },
                "hoverinfo": "skip",
            }
        )
    known = {bound for bound, _, _ in BOUNDS}
    for bound, color, _ in (*BOUNDS, ("unknown", "--muted", "")):
        mine = [
            layer
            for layer in layers
            if word(layer, "bound_by") == bound or (bound == "unknown" and word(layer, "bound_by") not in known)
        ]
        if not mine:
            continue
        traces.append(
            {
                "name": f"bound by {bound}",
                "mode": "markers",
                "x": [_intensity(layer) for layer in mine],
                "y": [_reached(layer) for layer in mine],
                "hovertext": [f"{described(layer)}<br>{_place(layer)}" for layer in mine],
                "hoverinfo": "text",
                "marker": {
                    "color": color,
                    "symbol": SYMBOLS.get(bound, "x"),
                    "opacity": 0.75,
                    "size": [_size(layer, total) for layer in mine],
                    "line": {"color": "--card", "width": 1},
                },
            }
        )
    layout = {
        "xaxis": {"type": "log", "title": {"text": "arithmetic intensity, operations per byte"}, "dtick": 1},
        "yaxis": {"type": "log", "title": {"text": "GOP/s"}, "dtick": 1},
        "showlegend": True,
        "hovermode": "closest",
    }
    return Figure(traces, layout, height=520)


def _intensity(layer: Row) -> float:
    """Operations per byte that is read or written; 0 where it has none."""
    moved = (number(layer, "weight_bytes") or 0.0) + (number(layer, "activation_bytes") or 0.0)
    return 2 * (number(layer, "macs") or 0.0) / moved if moved else 0.0


def _reached(layer: Row) -> float:
    """Billion operations per second."""
    return 2e-6 * (number(layer, "macs") or 0.0) / (number(layer, "latency_ms") or 1.0)


def _place(layer: Row) -> str:
    return hover(
        f"{numbers.significant(_reached(layer))} GOP/s at {numbers.significant(_intensity(layer))} operations/byte"
    )


def _size(layer: Row, total: float) -> float:
    share = (number(layer, "latency_ms") or 0.0) / total if total else 0.0
    return round(max(SMALLEST, LARGEST * math.sqrt(min(1.0, share * 4))), 1)
