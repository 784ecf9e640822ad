"""`compress pipeline`: the seven stages."""

import argparse
from pathlib import Path
from typing import Any

from compress.cli.common import add_output
from compress.progress import choose
from compress.records import STAGES


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "pipeline",
        help="teacher and data in, a proven small model out",
        description="Select, distill, quantize, export, build, verify, report. "
        "Finished stages are kept: the same command goes on where it stopped.",
    )
    command.add_argument("project", nargs="?", type=Path, help="project file (TOML); see: compress init")
    command.add_argument("--target", help="device: compress list targets")
    command.add_argument("--recipe", help="shipped recipe to start from: compress list recipes")
    command.add_argument("--task", help="what to learn: compress list tasks; or a Python file ending in TASK = ...")
    command.add_argument("--data", type=Path, help="folder with the task's data")
    command.add_argument(
        "--teacher", type=Path, help="a trained teacher: teacher.onnx (black box), or a Python file with build()"
    )
    command.add_argument(
        "--weights", type=Path, help="weights of a Python teacher: .safetensors, or .pt without pickle"
    )
    command.add_argument("--method", help="how to distil: compress list methods")
    command.add_argument("--budget", default="", help="limits, such as latency_ms=5,accuracy_drop=0.01")
    command.add_argument("--seed", type=int, help="of everything random (default 0)")
    command.add_argument("--out", type=Path, help="run folder (default runs/<recipe>-<target>)")
    command.add_argument(
        "--until", choices=STAGES, default="report", metavar="STAGE", help=f"stop after: {', '.join(STAGES)}"
    )
    command.add_argument("--remote", metavar="USER@HOST", help="build and measure there, by ssh")
    command.add_argument(
        "--workers",
        default="serial",
        metavar="WHERE",
        help="where the search's trials run: serial, processes[:N], ray:local, ray:auto, ray://HOST:PORT",
    )
    command.add_argument(
        "--evaluations", type=Path, metavar="FILE", help="remember trials there, to share them between runs"
    )
    command.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help="sign the finished run with this Ed25519 private key; compress verify RUN --key PUBLIC checks it",
    )
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Run the pipeline; (result for --json, text)."""
    from compress import recipe as recipes

    key = None
    if options.sign is not None:  # a key that cannot be read is refused before anything is trained
        from compress.signing import read_private_key

        key = read_private_key(options.sign)
    given = recipes.load(options.project, recipe=options.recipe, overrides=_overrides(options))
    from compress import pipeline  # after the recipe is known to be good: this loads torch
    from compress.summary import summarize

    out = options.out or pipeline.default_folder(given)
    progress = choose(options.quiet)
    result = pipeline.run(
        given,
        out,
        progress,
        until=options.until,
        remote=options.remote,
        workers=options.workers,
        evaluations=options.evaluations,
    )
    if not result.leads:
        return {}, ""
    if key is not None:
        from compress.signing import sign

        progress.say(f"signed by {sign(result.folder, key)}")
    return summarize(result.folder, result.reached, result.repeated)


def _overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The command line in the shape of a project file."""
    from compress import recipe as recipes

    given: dict[str, Any] = {"task": {}, "teacher": {}}
    if options.target is not None:
        given["target"] = options.target
    if options.seed is not None:
        given["seed"] = options.seed
    if options.task is not None:
        kind = "file" if options.task.endswith(".py") else "name"
        given["task"][kind] = str(Path(options.task).resolve()) if kind == "file" else options.task
    if options.data is not None:
        given["task"]["data"] = str(options.data.resolve())
    if options.teacher is not None:
        kind = "onnx" if options.teacher.suffix == ".onnx" else "file"
        given["teacher"][kind] = str(options.teacher.resolve())
    if options.weights is not None:
        given["teacher"]["weights"] = str(options.weights.resolve())
    if options.budget:
        given["budget"] = recipes.parse_budget(options.budget)
    if options.method is not None:
        given["distill"] = {"method": options.method}
    return given
