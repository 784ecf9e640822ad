"""Learning curves of distillation and of quantisation-aware fine-tuning."""

from compress.page import figure, numbers
from compress.page.figure import Figure, Trace, hover, inert
from compress.page.html import Markup, join, tag
from compress.page.reading import Row, metric_of, number, part, rows, word

STAGES = (("distill", "Distillation"), ("quantize", "Quantisation-aware fine-tuning"))
TERMS = ("--series-1", "--series-2", "--series-3", "--series-4", "--series-5")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")


def curves(content: Row) -> Markup | None:
    """Both trainings, one plot each."""
    metric, unit = metric_of(content)
    parts = []
    for stage, title in STAGES:
        points = rows(content, "curves", stage)
        if not points:
            continue
        before = number(part(content, "quantize"), "before") if stage == "quantize" else None
        plot = _figure(points, metric, unit, before)
        last = number(points[-1], "validation")
        said = [f"{len(points)} epochs"]
        said += [f"{numbers.score(before, unit)} after calibration alone"] if before is not None else []
        said += [f"{metric} on validation data at the end {numbers.score(last, unit)}"] if last is not None else []
        caption = join((", ".join(said), " ", numbers.origin("measured"), "."))
        notes = part(content, stage).get("notes")
        parts += [
            tag("h3", title),
            *(tag("p", str(note), cls="note") for note in (notes if isinstance(notes, list) else ())),
            figure.box(f"plot-{stage}", plot, label=f"{title}: loss and {metric}", caption=caption),
        ]
    return join(parts) if parts else None


def _figure(points: list[dict[str, object]], metric: str, unit: str, before: float | None) -> Figure:
    epochs = list(range(1, len(points) + 1))
    traces: list[Trace] = [_line("loss", epochs, [number(p, "loss") for p in points], "--ink", "solid", 2.5)]
    names = list(dict.fromkeys(name for point in points for name in part(point, "terms")))
    for n, name in enumerate(names):
        values = [number(part(point, "terms"), name) for point in points]
        look = TERMS[n % len(TERMS)], DASHES[(n + 1) % len(DASHES)]
        traces.append(_line(name, epochs, values, *look, 1.5))
    scores = [number(point, "validation") for point in points]
    at = epochs if before is None else [0, *epochs]
    scores = scores if before is None else [before, *scores]
    shown = [None if score is None else numbers.scaled(score, unit) for score in scores]
    score_line = _line(numbers.axis(f"validation {metric}", unit), at, shown, "--int8", "solid", 2.5)
    traces.append(score_line | {"yaxis": "y2", "mode": "lines+markers", "marker": {"color": "--int8", "size": 6}})
    starts = [
        (n, word(point, "phase"))
        for n, point in enumerate(points)
        if n and word(point, "phase") != word(points[n - 1], "phase")
    ]
    losses = [value for trace in traces[:-1] for value in trace["y"] if value is not None]
    positive = bool(losses) and min(losses) > 0
    layout = {
        "xaxis": {
            "title": {"text": "epoch"},
            "anchor": "y",
            "rangemode": "tozero",
            **({"dtick": 1} if len(points) <= 10 else {}),
        },
        "yaxis": {
            "title": {"text": "loss"},
            "domain": [0, 0.47],
            "type": "log" if positive and max(losses) > 8 * min(losses) else "linear",
        },
        "yaxis2": {"title": {"text": inert(numbers.axis(metric, unit))}, "domain": [0.55, 1]},
        "shapes": [
            {
                "type": "line",
                "xref": "x",
                "yref": "paper",
                "x0": n + 0.5,
                "x1": n + 0.5,
                "y0": 0,
                "y1": 1,
                "line": {"color": "--muted", "width": 1, "dash": "dot"},
                "label": {"text": inert(phase), "textposition": "end", "font": {"color": "--muted", "size": 11}},
            }
            for n, phase in starts
        ],
        "showlegend": True,
        "hovermode": "closest",
    }
    return Figure(traces, layout, height=460)


def _line(name: str, x: list[int], y: list[float | None], color: str, dash: str, width: float) -> Trace:
    return {
        "name": inert(name),
        "mode": "lines",
        "x": x,
        "y": y,
        "line": {"color": color, "dash": dash, "width": width},
        "hovertext": [
            hover(f"epoch {at}", f"{name} {'–' if value is None else numbers.significant(value, 4)}")
            for at, value in zip(x, y, strict=True)
        ],
        "hoverinfo": "text",
    }
