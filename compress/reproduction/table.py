"""The table that people read: mean, spread and paired test of every arm."""

import math
import statistics
from collections.abc import Sequence

from compress.contracts.experiment import Holds
from compress.reproduction.paired import paired
from compress.reproduction.run import Reproduction

MARKS: dict[Holds, str] = {"yes": "holds", "no": "does not hold", "undecided": "undecided"}


def text(done: Reproduction) -> str:
    """Several lines for the terminal."""
    head, rows = _cells(done)
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = [f"{done.name}: {done.experiment.claim}", f"bed: {done.experiment.bed}", ""]
    lines += [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    lines.append("")
    for finding in done.findings:
        aside = "" if finding.decides else " (does not decide)"
        lines.append(f"{MARKS[finding.holds]:13}  {finding.criterion}: {finding.found}{aside}")
    lines += ["", f"verdict: {done.verdict} ({len(done.results.seeds)} seeds, {done.cpu_s:.0f} CPU seconds)"]
    return "\n".join(lines)


def markdown(done: Reproduction) -> str:
    """A section for documentation."""
    head, rows = _cells(done)
    lines = [f"### {done.name}: {done.verdict}", "", done.experiment.claim, "", f"Source: {done.experiment.source}."]
    lines += [f"Bed: {done.experiment.bed}", "", _row(head), _row(["---"] * len(head)), *map(_row, rows), ""]
    for finding in done.findings:
        aside = "" if finding.decides else " Does not decide."
        lines.append(f"- **{MARKS[finding.holds]}**: {finding.criterion}: {finding.found}.{aside}")
    lines += ["", f"`compress reproduce {done.name}`: {len(done.results.seeds)} seeds, {done.cpu_s:.0f} CPU seconds."]
    return "\n".join(lines)


def _cells(done: Reproduction) -> tuple[list[str], list[list[str]]]:
    main, reference = done.experiment.columns[0], done.experiment.reference
    rows = []
    for arm, columns in done.results.figures.items():
        cells = [_spread(columns[name]) if name in columns else "" for name in done.experiment.columns]
        against = ""
        if arm != reference and main in columns:
            against = str(paired(columns[main], done.results.of(reference, main)))
        rows.append([arm, *cells, against])
    return ["arm", *done.experiment.columns, f"{main}, less that of {reference}"], rows


def _spread(values: Sequence[float]) -> str:
    if not all(math.isfinite(value) for value in values):
        return f"{statistics.fmean(values):.2f}"
    return f"{statistics.fmean(values):.2f}" + (f" +- {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
