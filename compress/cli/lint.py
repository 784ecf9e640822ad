"""`compress lint MODEL.onnx --target T`: will it run there as it was meant to?"""

import argparse
from pathlib import Path
from typing import Any

from compress.cli.common import add_output, folder
from profiles.errors import UserError

DEFAULT_TARGET = "jetson"
FAILED = 1
EPILOG = """\
examples:
  compress lint student.onnx --target jetson
  compress lint student.onnx --target x86 --json
  compress lint student.onnx --target jetson-agx-orin-64gb --dla --no-compile

No GPU is needed: TensorRT for RTX parses and compiles without one. The exit code is 1 where the target refuses the
model or computes it wrong, else 0. What each rule says, and how it is known: docs/lint.md.
"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "lint",
        help="what a target's compiler refuses, computes wrong or runs in float, without a GPU",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("model", type=Path, metavar="MODEL", help="an ONNX file")
    command.add_argument("--target", default=DEFAULT_TARGET, metavar="NAME", help=f"(default {DEFAULT_TARGET})")
    command.add_argument("--no-compile", action="store_true", help="check the rules only")
    command.add_argument("--dla", action="store_true", help="also say which nodes run on the target's DLA")
    command.add_argument(
        "--shape", action="append", default=[], metavar="INPUT=N,N", help="without the batch, where sizes are dynamic"
    )
    command.add_argument("--seconds", type=float, default=300.0, metavar="S", help="limit of a build (default 300)")
    command.add_argument("--project", type=Path, default=Path(), metavar="FOLDER", help="where your own targets are")
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Lint one file; `options.code` becomes the exit code."""
    from exporters.lint import lint
    from profiles.target import target

    if not options.seconds > 0:
        raise UserError(f"--seconds is {options.seconds:g}", fix="give a time above 0, such as 300")
    shapes = dict(_shape(text) for text in options.shape)
    report = lint(
        options.model,
        target(options.target, folder(options.project)),
        compile=not options.no_compile,
        dla=options.dla,
        shapes=shapes,
        seconds=options.seconds,
    )
    counts = report.counts()
    accepted = report.compiler is None or report.compiler.accepted
    options.code = FAILED if counts["refused"] or counts["wrong"] or not accepted else 0
    return report.to_json(), report.text()


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """ "tokens=32" as a name and its sizes."""
    name, _, sizes = text.rpartition("=")
    try:
        shape = tuple(int(word) for word in sizes.split(","))
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise UserError(f"--shape {text!r} is not INPUT=N,N,...", fix="write for example --shape tokens=32")
    return name, shape
