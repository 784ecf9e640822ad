"""A student's plan in one line."""

from collections.abc import Mapping
from typing import Any


def describe(plan: Any) -> str:
    """`kind residual, widths 16-32-64, depths 1-1-2`; nested tables in brackets."""
    if isinstance(plan, Mapping):
        return ", ".join(f"{key} {_value(value)}" for key, value in plan.items()) or "no decisions"
    return _value(plan)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"({describe(value)})"
    if isinstance(value, list | tuple):
        plain = all(isinstance(item, int | float | str) for item in value)
        return "-".join(str(item) for item in value) if plain else "[" + "; ".join(_value(item) for item in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
