"""`compress parity RUN`: how far each artifact of a run is from the one before it, on the test data."""

import argparse
import json
from pathlib import Path
from typing import Any

from compress.cli.common import add_output
from compress.errors import RunError
from compress.records import folder_name, intact, read_record
from compress.store import read_run

LEDGER = "parity.json"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "parity",
        help="how far each artifact of a run is from the one before it",
        description="Print the parity ledger that the verify stage wrote: error in quantisation steps, top-1 "
        "agreement, worst samples, and the layer at fault where a gate failed.",
    )
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a run, as compress pipeline wrote it")
    command.add_argument("--worst", type=int, default=1, metavar="N", help="samples shown for each pair (default 1)")
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Read the ledger.

    Raises:
        RunError: the folder is no run, or has no finished and unchanged verify stage.
    """
    read_run(options.folder)
    folder = options.folder / folder_name("verify")
    record = read_record(folder)
    if record is None or LEDGER not in record.outputs or not intact(folder, record):
        raise RunError(f"{folder} has no parity ledger", fix=f"run: compress verify {options.folder}")
    content: dict[str, Any] = json.loads((folder / LEDGER).read_text(encoding="utf-8"))
    return content, render(content, options.worst)


def render(content: dict[str, Any], worst: int) -> str:
    """The ledger as text.

    Args:
        content: of parity.json.
        worst: samples that are shown for each pair.
    """
    step = content["step"]
    unit = "no unit" if step is None else f"{step:.4g} ({content['step_from']})"
    lines = [f"{content['examples']} test examples; one step is {unit}"]
    rows = [("artifact", "compared with", "output", "max", "mean", "<= 1 step", "top-1", "rounding explains")]
    for row in content["parity"]:
        rows.append(
            (
                row["artifact"],
                row["reference"],
                row["output"],
                _number(row["max_steps"], "steps"),
                _number(row["mean_steps"], "steps"),
                _share(row["within_one_step"]),
                _share(row["top1_agreement"]),
                _number(row["explained_steps"], "steps"),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    for row in content["parity"]:
        for one in row["worst"][:worst]:
            place = f"{row['artifact']}, {row['output']}: sample {one['sample']}, element {one['element']}"
            lines.append(f"worst of {place}: {_number(one['reference'])} became {_number(one['candidate'])}")
    lines += [f"{found['artifact']}: {found['sentence']}" for found in content["bisect"]]
    lines += [f"reproducer: {found['reproducer']}" for found in content["bisect"] if "reproducer" in found]
    return "\n".join(lines)


def _number(value: float | str | None, unit: str = "") -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, str) else f"{value:.3g} {unit}".rstrip()


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.3f} %"
