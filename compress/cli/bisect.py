"""`compress bisect`: the first layer in which two forms of a model differ by more than rounding explains."""

import argparse
from itertools import pairwise
from pathlib import Path
from typing import Any

from compress.cli.common import add_output
from profiles.errors import UserError

RUNTIMES = ("onnxruntime", "rewritten", "c")
SAMPLES = 8


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "bisect",
        help="find the first layer in which two forms of a model differ",
        description="Compare two ONNX files layer by layer, or a run's exported file with the student in torch that it "
        "was made of. Each layer reads what the reference computed, so that only its own error counts.",
    )
    command.add_argument(
        "places",
        nargs="+",
        type=Path,
        metavar="RUN | REFERENCE.onnx CANDIDATE.onnx",
        help="a run's folder, or two files",
    )
    command.add_argument("--inputs", type=Path, metavar="NPZ", help="samples, such as a run's golden.npz; else random")
    command.add_argument("--samples", type=int, default=SAMPLES, help=f"at most so many of them (default {SAMPLES})")
    command.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="onnxruntime",
        help="what runs the candidate: onnxruntime node by node, as it rewrites the graph, or generated C",
    )
    command.add_argument("--target", default="hearing-aid", help="of generated C: a Cortex-M target")
    command.add_argument("--core", help="of generated C: emulate this core, such as cortex-m4; else this machine")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="write a reproducer of the first layer here")
    command.add_argument("--layers", type=int, default=5, metavar="N", help="how many layers are printed (default 5)")
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Compare, and say.

    Raises:
        UserError: neither a run nor two files; the two share no tensor; the inputs do not fit.
    """
    from exporters import bisect, check_onnx, reproducer
    from exporters.bisect_sides import OnnxTensors, Tensors

    if options.samples < 1 or options.layers < 1:
        raise UserError(
            f"--samples is {options.samples} and --layers {options.layers}", fix="give whole numbers from 1 on"
        )
    reference: Tensors
    if len(options.places) == 1 and options.places[0].is_dir():
        from compress.stages.bisect_run import sides

        reference, candidate, inputs = sides(options.places[0], options.quiet)
        if options.inputs is not None:
            inputs = _inputs(options.inputs)
    elif len(options.places) == 2:
        left, candidate = (check_onnx.load(place) for place in options.places)
        reference = OnnxTensors(left)
        inputs = _random(options.places[1]) if options.inputs is None else _inputs(options.inputs)
    elif len(options.places) == 1:
        found_there = "one file" if options.places[0].is_file() else "no folder"
        raise UserError(
            f"{options.places[0]} is {found_there}, and a bisect compares two forms of a model",
            fix="give the folder of one run, or two ONNX files",
        )
    else:
        raise UserError(f"{len(options.places)} places were given", fix="give the folder of one run, or two ONNX files")
    inputs = {name: value[: options.samples] for name, value in inputs.items()}
    runtime = _runtime(options)
    found = bisect.bisect(reference, candidate, inputs, runtime=runtime)
    options.code = int(found.first is not None)
    lines = [found.sentence()]
    result: dict[str, Any] = {
        "runtime": found.runtime,
        "sentence": found.sentence(),
        "layers": len(found.layers),
        "seconds": found.seconds,
        "notes": list(found.notes),
        "faulty": [],
    }
    for one in found.ranked[: options.layers]:
        result["faulty"].append({"module": one.layer.module, "node": one.layer.node, "sentence": one.sentence()})
        if one is not found.first:
            lines.append(f"  {one.sentence()}")
    if found.first is not None and found.first.parity is not None:
        lines += _histogram(found.first.parity.histogram)
    lines += [f"  note: {note}" for note in found.notes]
    if found.first is not None and options.out is not None:
        reproducer.write(options.out, reference, candidate, found.first, inputs, runtime)
        result["reproducer"] = str(options.out)
        lines.append(f"reproducer: cd {options.out} && python rerun.py")
    return result, "\n".join(lines)


def _runtime(options: argparse.Namespace) -> Any:
    import profiles
    from exporters.bisect_sides import AS_WRITTEN, REWRITTEN, generated_c

    if options.runtime == "c":
        return generated_c(profiles.target(options.target), options.core)
    return AS_WRITTEN if options.runtime == "onnxruntime" else REWRITTEN


def _inputs(path: Path) -> dict[str, Any]:
    """Arrays by input name; golden files store them as input:NAME."""
    from exporters import golden

    stored = golden.read(path)
    named = {name.removeprefix("input:"): value for name, value in stored.items() if name.startswith("input:")}
    return named or stored


def _random(model: Path) -> dict[str, Any]:
    from profiles.measure import example_inputs
    from profiles.runners import on_onnxruntime

    return dict(example_inputs(on_onnxruntime.load(model, as_written=True).inputs, SAMPLES))


def _histogram(found: Any) -> list[str]:
    """Bins with a bar each."""
    total = max(1, sum(found.counts) + found.equal + found.unordered)
    rows = [("equal", found.equal)]
    for (low, high), count in zip(pairwise(found.edges), found.counts, strict=True):
        if count:
            rows.append((f"{low:g} to {high:g} {found.unit}", count))
    if found.unordered:
        rows.append(("not a number", found.unordered))
    width = max(len(text) for text, _ in rows)
    return [f"    {text:>{width}}  {'#' * round(40 * count / total):<40} {count}" for text, count in rows]
