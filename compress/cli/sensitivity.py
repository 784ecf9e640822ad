"""`compress sensitivity RUN`: what each layer of a run's student loses by rounding, what it costs, and what ships."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.cli.common import add_output
from compress.contracts.metric import Metric, read_metric
from compress.errors import RunError
from compress.records import folder_name, intact, read_record
from compress.store import read_run

PRECISION = "precision.json"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    text = "which layers int8 hurts, what each costs in int8 and in float, and why this precision ships"
    command = commands.add_parser("sensitivity", help=text, description=text[0].upper() + text[1:] + ".")
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a run, as compress pipeline wrote it")
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """(what `precision.json` holds, a table for people).

    Raises:
        RunError: the folder is no run, or its quantize stage is not finished, or was changed since.
    """
    read_run(options.folder)
    folder = options.folder / folder_name("quantize")
    record = read_record(folder)
    if record is None or PRECISION not in record.outputs or not intact(folder, record):
        raise RunError(
            f"{options.folder} has no finished and unchanged quantize stage",
            fix=f"run: compress quantize {options.folder}",
        )
    found: dict[str, Any] = json.loads((folder / PRECISION).read_text(encoding="utf-8"))
    return found, "\n".join(lines(found))


def lines(found: Mapping[str, Any]) -> list[str]:
    """The table and the decision."""
    layers: Sequence[Mapping[str, Any]] = found["layers"]
    metric = read_metric(found)
    made = []
    if layers:
        precisions = list(dict.fromkeys(name for layer in layers for name in layer["latency_ms"]))
        made += _aligned(
            [
                (
                    "layer",
                    "operator",
                    "ships in",
                    f"{metric.name} without it",
                    "of it alone",
                    "distance",
                    *(f"{name} ms" for name in precisions),
                    *(f"{name} bytes" for name in precisions),
                ),
                *(_row(layer, precisions, metric) for layer in layers),
            ]
        )
        made.append("")
        made.append(
            f"{metric.name} in float {metric.value(found['float_score'])}, every layer in int8 "
            f"{_score(found['quantized'], metric)}; {found['samples']} validation examples, after calibration, before "
            "fine-tuning. Without it: this layer in float, all others in int8. Of it alone: this layer in int8, all "
            "else in float. Distance: of the outputs from the float student's, of it alone. "
            f"Latency: {found['layers_origin']['latency_ms']}, kernel by kernel."
        )
    else:
        made.append("The layers were not analysed: quantize.sensitivity_samples is 0, or it would have taken too long.")
    made.append("")
    made += [f"{found['shipped']} ships for {found['target']}.", *found["why"], *found["notes"]]
    if found["float_layers"] and found["shipped"] == "mixed":
        made.append(f"In float: {', '.join(found['float_layers'])}.")
    allowed = metric.gap(found["accuracy_budget"])
    made.append(f"Quantising may cost {allowed} of {metric.name} ({found['accuracy_budget_from']}).")
    return made


def _row(layer: Mapping[str, Any], precisions: Sequence[str], metric: Metric) -> tuple[str, ...]:
    return (
        layer["layer"],
        ", ".join(dict.fromkeys(name.split(".")[0] for name in layer["operators"])),
        layer["precision"],
        _score(layer["without"], metric),
        _score(layer["alone"], metric),
        f"{layer['alone']['distance']['mean']:.3g}{_error(layer['alone']['distance'])}",
        *(_number(layer["latency_ms"].get(name), ".4g") for name in precisions),
        *(_number(layer["weight_bytes"].get(name), "d") for name in precisions),
    )


def _score(effect: Mapping[str, Any], metric: Metric) -> str:
    # The score's own error is that of the drop: both are judged on the same examples.
    return metric.value(effect["score"]["mean"], effect["drop"]["standard_error"])


def _error(estimate: Mapping[str, Any]) -> str:
    error = estimate["standard_error"]
    return "" if error is None else f" ± {error:.2g}"


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)


def _aligned(table: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
