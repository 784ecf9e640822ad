"""The table that people read, from `results.json`: mean, spread and paired test of every arm."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from compress.contracts.experiment import Holds
from compress.reproduction.paired import paired
from compress.reproduction.verdict import said

MARKS: dict[Holds, str] = {
    "yes": "holds",
    "by mean alone": "holds by its mean alone",
    "no": "does not hold",
    "undecided": "undecided",
}


def text(told: Mapping[str, Any]) -> str:
    """Several lines for the terminal.

    Args:
        told: the content of `results.json`.
    """
    head, rows = _cells(told)
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = [f"{told['experiment']}: {told['claim']}", f"bed: {told['bed']}", ""]
    for row in (head, *rows):
        lines.append("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    lines.append("")
    wide = max(len(MARKS[finding["holds"]]) for finding in told["findings"])
    for finding in told["findings"]:
        aside = "" if finding["decides"] else " (does not decide)"
        lines.append(f"{MARKS[finding['holds']]:{wide}}  {finding['criterion']}: {finding['found']}{aside}")
    return "\n".join([*lines, "", f"verdict: {said(told)} ({_cost(told)})"])


def markdown(told: Mapping[str, Any]) -> str:
    """A section for documentation."""
    head, rows = _cells(told)
    lines = [f"### {told['experiment']}: {said(told)}", "", told["claim"], "", f"Source: {told['source']}."]
    lines += [f"Bed: {told['bed']}", "", _row(head), _row(["---"] * len(head)), *map(_row, rows), ""]
    for finding in told["findings"]:
        aside = "" if finding["decides"] else " Does not decide."
        lines.append(f"- **{MARKS[finding['holds']]}**: {finding['criterion']}: {finding['found']}.{aside}")
    data = f" --data {told['data'].upper()}" if told["data"] else ""
    return "\n".join([*lines, "", f"`compress reproduce {told['experiment']}{data}`: {_cost(told)}."])


def _cost(told: Mapping[str, Any]) -> str:
    machine = told["machine"]
    return (
        f"{len(told['used'])} seeds, {told['cpu_s']:.0f} CPU seconds on {machine['machine']}, torch {machine['torch']}"
    )


def _cells(told: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    columns, reference, figures = told["columns"], told["reference"], told["figures"]
    main = columns[0]
    rows = []
    for arm, row in figures.items():
        cells = [_spread(row[name]) if name in row else "" for name in columns]
        against = ""
        if arm != reference and main in row:
            against = str(paired(row[main], figures[reference][main]))
        rows.append([arm, *cells, against])
    return ["arm", *columns, f"{main}, less that of {reference}"], rows


def _spread(values: Sequence[float]) -> str:
    if not all(math.isfinite(value) for value in values):
        return f"{statistics.fmean(values):.2f}"
    return f"{statistics.fmean(values):.2f}" + (f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
