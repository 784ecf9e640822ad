"""`compress profile MODEL.onnx --target T`: what a model costs on a device, and how that is known."""

import argparse
import dataclasses
import itertools
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from compress.cli.common import add_output, folder
from compress.page import numbers
from profiles.cost import Cost, Precision
from profiles.errors import UserError

if TYPE_CHECKING:
    from profiles.target import Target

DEFAULT_TARGET = "jetson"
EPILOG = """\
examples:
  compress profile student.onnx --target jetson --layers
  compress profile student.onnx --target hearing-aid --html profile.html
  compress profile --compare teacher.onnx student.onnx --target a100 --target jetson --batch 1,8

A figure is measured where the target's own artifact can be built and run on this machine, emulated for a Cortex-M core
where its compiler and emulator are installed, and predicted from published latencies elsewhere.
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "profile",
        help="latency, FLOPs, memory and energy of an ONNX file on a device",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("models", type=Path, nargs="*", metavar="MODEL", help="an ONNX file")
    command.add_argument("--compare", type=Path, nargs="+", default=[], metavar="MODEL", help="these side by side")
    command.add_argument("--target", action="append", metavar="NAME", help=f"again for each (default {DEFAULT_TARGET})")
    command.add_argument("--batch", type=_batches, default=(1,), metavar="N,N", help="batch sizes (default 1)")
    command.add_argument("--precision", choices=get_args(Precision), help="predict it in this one")
    command.add_argument(
        "--shape", action="append", default=[], type=_shape, metavar="INPUT=N,N", help="of an input with dynamic sizes"
    )
    command.add_argument("--predict", action="store_true", help="run nothing, however able this machine is")
    command.add_argument("--remote", metavar="USER@HOST", help="measure there, by ssh")
    command.add_argument("--remote-python", default="python3", metavar="PATH", help="python to use there")
    command.add_argument("--layers", action="store_true", help="list the fused kernels")
    command.add_argument("--html", type=Path, metavar="FILE", help="also write a page with the roofline of each kernel")
    command.add_argument("--project", type=Path, default=Path(), metavar="FOLDER", help="where your own targets are")
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Cost every model on every target at every batch size."""
    import profiles

    models = [*options.models, *options.compare]
    if not models:
        raise UserError("no model was given", fix="compress profile MODEL.onnx --target jetson")
    if options.html is not None:
        _check_page(options.html)
    found: list[dict[str, Any]] = []
    targets = [profiles.target(name, folder(options.project)) for name in options.target or [DEFAULT_TARGET]]
    shapes = _shapes_of(models, dict(options.shape))
    for model, target, batch in itertools.product(models, targets, options.batch):
        cost = _cost(options, model, target, batch, shapes[model])
        found.append({"model": str(model), "target": target.name, "batch": batch, "cost": cost})
    result: dict[str, Any] = {
        "profiles": [row | {"cost": dataclasses.asdict(row["cost"]) | {"flops": row["cost"].flops}} for row in found],
        "targets": {target.name: _described(target) for target in targets},
    }
    text = _one(found[0], targets[0], options.layers) if len(found) == 1 else _several(found, targets, options.layers)
    if options.html is not None:
        _write_page(options.html, result)
        text += f"\n\npage: {options.html}"
    if not options.layers:
        for row in result["profiles"]:
            row["cost"].pop("layers")
    return result, text


def _shapes_of(models: Sequence[Path], given: Mapping[str, tuple[int, ...]]) -> dict[Path, dict[str, tuple[int, ...]]]:
    """The shapes that were given for each model's own inputs; a name that is none's is refused."""
    if not given:
        return {model: {} for model in models}
    from profiles.onnx_file import load

    inputs = {model: [value.name for value in load(model).proto.graph.input] for model in models}
    for name in given:
        if all(name not in names for names in inputs.values()):
            there = ", ".join(dict.fromkeys(name for names in inputs.values() for name in names))
            raise UserError(
                f"--shape {name}=...: no input is called {name!r}; there are {there}", fix="name one of these"
            )
    return {model: {name: given[name] for name in names if name in given} for model, names in inputs.items()}


def _cost(
    options: argparse.Namespace, model: Path, target: "Target", batch: int, shapes: Mapping[str, tuple[int, ...]]
) -> Cost:
    """Measured, emulated or predicted, with its kernels."""
    import numpy as np

    import profiles
    from profiles.read_onnx import UnknownSizeError

    example = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()} or None
    try:
        predicted = profiles.profile(model, target, batch, options.precision, example)
    except UnknownSizeError as error:
        sizes = ",".join(map(str, error.dims))
        fix = f"pass --shape {error.name}={sizes} with typical numbers for the sizes that are names"
        raise UserError(f"{model}: {error.what}", fix=fix) from error
    if options.predict or options.precision is not None:
        return predicted
    if options.remote is not None:
        from exporters.cost_there import cost_there
        from profiles.remote import Remote

        cost = cost_there(model, target, Remote(options.remote, options.remote_python), batch, shapes)
    else:
        from exporters.cost_here import cost_here

        cost = cost_here(model, target, batch, shapes)
    if cost.layers:
        return cost
    return dataclasses.replace(cost, layers=predicted.layers, layers_origin="predicted")


def _batches(text: str) -> tuple[int, ...]:
    """ "1,8" as numbers."""
    try:
        found = tuple(int(word) for word in text.split(","))
    except ValueError:
        found = (0,)
    if min(found) < 1:
        raise UserError(
            f"--batch {text!r} is not a list of whole numbers of at least 1", fix="write for example --batch 1,8"
        )
    return found


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """ "input=1,3,224,224" as a name and its shape."""
    name, _, sizes = text.rpartition("=")
    try:
        shape = tuple(int(word) for word in sizes.split(","))
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise UserError(f"--shape {text!r} is not INPUT=N,N,...", fix="write for example --shape x=1,3,224,224")
    return name, shape


def _described(target: "Target") -> dict[str, Any]:
    return {
        "device": target.device,
        "runtime": f"{target.runtime} {target.runtime_version}".strip(),
        "hardware": dataclasses.asdict(target.hardware),
        "sources": dict(target.sources),
    }


def _check_page(file: Path) -> None:
    """Before anything runs for long."""
    if file.is_dir():
        raise UserError(f"--html {file} is a folder", fix=f"name a file in it, such as --html {file / 'profile.html'}")
    if not file.resolve().parent.is_dir():
        raise UserError(f"there is no folder {file.resolve().parent}", fix="make it, or write the page elsewhere")


def _write_page(file: Path, content: dict[str, Any]) -> None:
    from compress.page import costs
    from profiles.atomic import write_text

    try:
        page = costs.render(content)
    except ModuleNotFoundError as error:
        raise UserError("the page's plots need plotly, which is not installed", fix="pip install plotly") from error
    try:
        write_text(file, page)
    except (PermissionError, FileNotFoundError) as error:  # the folder is not ours to write in, or of no real disk
        raise UserError(f"{file} cannot be written: {error.strerror}", fix="write the page elsewhere") from error


def _one(row: dict[str, Any], target: "Target", layers: bool) -> str:
    """One profile, one line for each figure."""
    cost: Cost = row["cost"]
    mode = f", {target.hardware.power_mode}" if target.hardware.power_mode else ""
    lines = [
        f"{row['model']} on {target.name} ({target.device}{mode}), batch {row['batch']}, {cost.precision}",
        "",
        *(f"{name:<18}{value}" for name, value in _figures(cost, row["batch"])),
        *(f"{'budget' if not n else '':<18}{line}" for n, line in enumerate(_budget(cost, target))),
    ]
    if layers:
        lines += ["", *_kernels(cost)]
    lines += ["", *_wrapped(cost.notes)]
    return "\n".join(lines)


def _figures(cost: Cost, batch: int) -> list[tuple[str, str]]:
    stored = ", ".join(f"{numbers.size(size)} {kind}" for kind, size in sorted(cost.weight_bytes_by_dtype.items()))
    per_item = f", {numbers.milliseconds(cost.latency_ms / batch)} an item" if batch > 1 else ""
    made = [
        ("latency", f"{numbers.milliseconds(cost.latency_ms)} {cost.origin}, {_interval(cost)}{per_item}"),
        ("MACs", f"{numbers.count(cost.macs)} ({numbers.count(cost.flops)} FLOPs)"),
        ("parameters", numbers.count(cost.params)),
        ("weights", numbers.size(cost.weight_bytes) + (f" ({stored})" if len(cost.weight_bytes_by_dtype) > 1 else "")),
        ("peak activations", numbers.size(cost.peak_activation_bytes)),
    ]
    if cost.energy_mj is not None:
        ends = cost.energy_interval_mj
        around = f", {numbers.energy(ends[0])} to {numbers.energy(ends[1])}" if ends else ""
        made.append(("energy", f"{numbers.energy(cost.energy_mj)}{around}"))
    made.append(("runtime", cost.runtime))
    if cost.uncounted:
        made.append(("uncounted", ", ".join(f"{kind} x{times}" for kind, times in sorted(cost.uncounted.items()))))
    return made


def _budget(cost: Cost, target: "Target") -> list[str]:
    """What the target allows, and whether the network keeps to it."""
    budget = target.budget
    lines = []
    limit = budget.latency_limit_ms()
    if limit is not None:
        low, high = cost.interval_ms
        verdict = "held" if high <= limit else "missed" if low > limit else "within the interval: not certain"
        share = (
            "" if budget.latency_ms is not None else f" ({budget.compute_share:.0%} of {budget.default_period_ms:g} ms)"
        )
        lines.append(f"latency {numbers.milliseconds(limit)}{share}: {verdict}")
    for name, found, bound in (
        ("weights", cost.weight_bytes, budget.weight_bytes),
        ("peak activations", cost.peak_activation_bytes, budget.peak_activation_bytes),
    ):
        if bound is not None:
            lines.append(f"{name} {numbers.size(bound)}: {'held' if found <= bound else 'missed'}")
    return lines


def _interval(cost: Cost) -> str:
    around = numbers.span(cost.interval_ms)
    rest = ", without what is uncounted" if cost.uncounted else ""
    return {
        "predicted": f"90 % of unseen cases in {around}{rest}",
        "emulated": f"{around} by the cycles per instruction of real parts",
        "measured": f"90 % of medians measured again in {around}",
    }[cost.origin]


def _kernels(cost: Cost) -> list[str]:
    """A table of the kernels in the order of execution."""
    total = sum(layer.latency_ms for layer in cost.layers)
    rows = [
        (
            layer.name,
            " ".join(layer.ops),
            numbers.milliseconds(layer.latency_ms),
            numbers.percent(layer.latency_ms / total, 1) if total else "",
            numbers.count(layer.macs),
            numbers.size(layer.weight_bytes + layer.activation_bytes),
            layer.bound_by,
            layer.precision,
        )
        for layer in cost.layers
    ]
    origin = cost.layers_origin or cost.origin
    lines = _table(("kernel", "operators", origin, "share", "MACs", "moved", "bound by", "in"), rows, left=2)
    around = cost.latency_ms - total if origin == cost.origin == "predicted" else 0.0
    if around > 1e-3 * cost.latency_ms:
        lines.append(f"{numbers.milliseconds(around)} more of each pass is outside of the kernels")
    return lines


def _several(found: Sequence[dict[str, Any]], targets: Sequence["Target"], layers: bool) -> str:
    """One line for each profile, then the notes that they share."""
    first = {(row["target"], row["batch"]): row["cost"] for row in reversed(found)}
    rows = []
    for row in found:
        cost: Cost = row["cost"]
        reference: Cost = first[row["target"], row["batch"]]
        ratio = "" if cost is reference else numbers.fewer(reference.latency_ms, cost.latency_ms, "faster", "slower")
        rows.append(
            (
                Path(row["model"]).name,
                row["target"],
                str(row["batch"]),
                cost.precision,
                numbers.milliseconds(cost.latency_ms),
                cost.origin,
                numbers.span(cost.interval_ms),
                ratio,
                numbers.count(cost.macs),
                numbers.size(cost.weight_bytes),
                numbers.size(cost.peak_activation_bytes),
                "" if cost.energy_mj is None else numbers.energy(cost.energy_mj),
            )
        )
    sizes = ("MACs", "weights", "peak act.", "energy")
    heads = ("model", "target", "batch", "in", "latency", "origin", "interval", "", *sizes)
    lines = _table(heads, rows, left=2)
    if layers:
        for row in found:
            lines += ["", f"{row['model']} on {row['target']}, batch {row['batch']}", *_kernels(row["cost"])]
    notes = dict.fromkeys(f"{row['target']}: {note}" for row in found for note in row["cost"].notes)
    return "\n".join([*lines, "", *_wrapped(notes)])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Columns of text; the first `left` ones are flush left. Empty columns are left out, long names cut in front."""
    used = [n for n in range(len(heads)) if any(row[n] for row in rows)]
    spare = shutil.get_terminal_size((120, 24)).columns if sys.stdout.isatty() else 10_000  # files are not cut
    every = [[heads[n] for n in used], *([row[n] for n in used] for row in rows)]
    fixed = sum(max(len(row[n]) for row in every) + 2 for n in range(left, len(used)))
    room = max(14, (spare - fixed) // max(1, left) - 2)
    for row in every[1:]:
        for n in range(min(left, len(row))):
            row[n] = row[n] if len(row[n]) <= room else f"…{row[n][-(room - 1) :]}"
    widths = [max(len(row[n]) for row in every) for n in range(len(used))]
    return [
        "  ".join(
            f"{cell:<{width}}" if n < left else f"{cell:>{width}}"
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in every
    ]


def _wrapped(notes: Any) -> list[str]:
    import textwrap

    width = max(40, min(120, shutil.get_terminal_size((100, 24)).columns))
    return [line for note in notes for line in textwrap.wrap(f"- {note}", width, subsequent_indent="  ")]
