"""Every rule, and the findings of all of them on one model."""

from collections.abc import Iterable

from onnx import ModelProto

from exporters.lint import (
    branches,
    checklist,
    codes,
    devices,
    dla,
    leftovers,
    operators,
    placement,
    scales,
    weights,
    widths,
)
from exporters.lint.finding import LEVELS, Finding, Rule
from exporters.lint.view import Device, View, view

PARSER = ("Q1", "Q2", "Q3", "Q4", "Q5", "Q8", "Q9", "Q10", "Q11", "Q13")
"""What a builder of TensorRT engines refuses before it starts: the compiler refuses it, crashes, or gets it wrong."""


def _number(rule: Rule) -> tuple[int, int]:
    return "QPDC".index(rule.id[0]), int(rule.id[1:])


RULES: tuple[Rule, ...] = tuple(
    sorted(
        (
            rule
            for part in (scales, codes, weights, operators, placement, branches, leftovers, widths, devices, checklist)
            for rule in part.RULES
        ),
        key=_number,
    )
)
DLA_RULES = dla.RULES


def find(rules: Iterable[Rule], model: ModelProto, device: Device) -> list[Finding]:
    """Findings of `rules`, the gravest first, then in the order of rules and nodes. The model is not changed."""
    return found_in(rules, view(model, device))


def found_in(rules: Iterable[Rule], seen: View) -> list[Finding]:
    """As `find`, on a view that is there already."""
    found = [finding for rule in rules for finding in rule.find(seen)]
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))
