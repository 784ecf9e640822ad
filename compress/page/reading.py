"""Careful access to a report's content: an absent or odd part is empty, never an error."""

import math
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]
SHIPPED = "shipped student"  # as the verify stage calls its costs
PREDICTED = f"{SHIPPED}, predicted"


def plain(value: Any) -> Any:
    """Nested dictionaries, lists, texts, finite numbers, booleans and None; whatever else there was, as its text.

    Numbers that are not finite become None: JSON has no word for them.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value)


def part(row: Row, *path: str) -> dict[str, Any]:
    """The table at `path`; empty where there is none."""
    found: Any = row
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def rows(row: Row, *path: str) -> list[dict[str, Any]]:
    """The list of tables at `path`; empty where there is none."""
    parent = part(row, *path[:-1])
    found = parent.get(path[-1])
    return [dict(item) for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []


def shipped(content: Row) -> str:
    """The format that ships: int8, mixed, fp16, ...; "" where nothing says it."""
    decided = word(part(content, "quantize", "precision"), "shipped")
    return decided or word(part(content, "verify", "costs", SHIPPED), "precision")


def metric_of(content: Row) -> tuple[str, str]:
    """(the task's metric, its unit: "%" or "")."""
    task = part(content, "task")
    return word(task, "metric", "score"), word(task, "metric_unit", "%")


def number(row: Row, name: str) -> float | None:
    """The number called `name`; None where there is none."""
    found = row.get(name)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def word(row: Row, name: str, otherwise: str = "") -> str:
    """The text called `name`."""
    found = row.get(name)
    return otherwise if found is None else str(found)


def interval(row: Row) -> tuple[float, float] | None:
    """`interval_ms` of a cost or a candidate, lower end first."""
    found = row.get("interval_ms")
    if isinstance(found, list) and len(found) == 2 and all(isinstance(end, int | float) for end in found):
        return float(found[0]), float(found[1])
    return None
