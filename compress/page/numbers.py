"""Numbers as people read them, and where they come from."""

import math

from compress.page.html import Markup, tag

NOTHING = "–"
ORIGINS = {
    "measured": "run on the real thing and observed",
    "emulated": "instructions counted on an emulated core, turned into time by a documented range",
    "predicted": "from a cost model; the interval holds 90 % of unseen cases",
    "counted": "exact, read from the network's graph",
}


def significant(value: float, digits: int = 3) -> str:
    """`value` with so many significant digits, never in exponent form."""
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    if abs(value) >= 1:
        return f"{value:,.0f}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{places}f}".rstrip("0").rstrip(".")


def count(value: float | None) -> str:
    """1,234 as it is; beyond that k, M, G."""
    if value is None:
        return NOTHING
    for bound, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= bound:
            scale = 1e3 if name == "k" else bound
            return f"{significant(value / scale)} {name}"
    return f"{value:,.0f}"


def size(value: float | None) -> str:
    """Bytes in decimal units."""
    if value is None:
        return NOTHING
    for bound, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= bound:
            return f"{significant(value / bound)} {name}"
    return f"{value:,.0f} B"


def milliseconds(value: float | None) -> str:
    """Time, given in ms."""
    if value is None:
        return NOTHING
    if abs(value) >= 1e4:
        return f"{significant(value / 1e3)} s"
    return f"{significant(value)} ms" if abs(value) >= 0.01 or value == 0 else f"{significant(value * 1e3)} µs"


def energy(value: float | None) -> str:
    """Energy, given in mJ."""
    if value is None:
        return NOTHING
    for bound, name, scale in ((1e3, "J", 1e-3), (1.0, "mJ", 1.0), (0.0, "µJ", 1e3)):
        if abs(value) >= bound:
            return f"{significant(value * scale)} {name}"
    return NOTHING


def seconds(value: float | None) -> str:
    """Wall time, given in seconds."""
    if value is None:
        return NOTHING
    if value >= 120:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{significant(value)} s" if value >= 0.01 else "below 0.01 s"


def percent(value: float | None, digits: int = 2) -> str:
    """A fraction as percent."""
    return NOTHING if value is None else f"{100 * value:.{digits}f} %"


def score(value: float | None, unit: str, digits: int = 2) -> str:
    """A metric whose unit is "%", or "" for a number of its own such as a correlation."""
    if unit == "%" or value is None:
        return percent(value, digits)
    return f"{value:.{digits + 1}f}".replace("-", "\u2212")


def gap(value: float | None, unit: str) -> str:
    """A difference of two such metrics."""
    if unit == "%" or value is None:
        return points(value)
    return f"{value + 0.0:+.3f}".replace("-", "\u2212") if round(value, 3) else "0.000"


def scaled(value: float, unit: str) -> float:
    """The metric on a plot's axis."""
    return 100 * value if unit == "%" else value


def axis(metric: str, unit: str) -> str:
    """That axis' title."""
    return f"{metric}, %" if unit == "%" else metric


def points(value: float | None) -> str:
    """A difference of two fractions, in percentage points."""
    if value is None:
        return NOTHING
    return f"{100 * value + 0.0:+.2f} points".replace("-", "\u2212") if round(100 * value, 2) else "0.00 points"


def span(ends: tuple[float, float] | None) -> str:
    """An interval of times given in ms."""
    if ends is None:
        return ""
    unit = 1e3 if max(ends) < 0.01 else 1.0
    return f"{significant(ends[0] * unit)} to {significant(ends[1] * unit)} {'µs' if unit > 1 else 'ms'}"


def fewer(before: float | None, after: float | None, less: str, more: str) -> str:
    """How many times less (or more) `after` is than `before`; empty where that says nothing."""
    if not before or not after:
        return ""
    if max(before, after) / min(before, after) < 1.005:
        return "the same"
    ratio, how = (before / after, less) if before >= after else (after / before, more)
    return f"{significant(ratio) if ratio < 100 else format(ratio, ',.0f')}× {how}"


def quantity(value: float | None, unit: str, scale: float | None = None) -> str:
    """A gate's value or bound in its unit; without a unit, fractions as percent and the rest as counts.

    Args:
        scale: the number that decides whether it is a fraction; None for `value` itself.
    """
    if value is None:
        return "not a number"
    if unit == "ms":
        return milliseconds(value)
    if unit == "bytes":
        return size(value)
    if unit:
        return f"{significant(value, 4)} {unit}"
    return percent(value) if abs(value if scale is None else scale) <= 1 else count(value)


def origin(name: str) -> Markup:
    """A small mark that says how a number was obtained."""
    if not name:
        return Markup("")
    known = name if name in ORIGINS else "other"
    return tag("span", name, cls=f"origin {known}", attributes={"title": ORIGINS.get(name, name)})
