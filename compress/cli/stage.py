"""`compress distill | quantize | export | build | report RUN`: one stage again, on an existing run."""

import argparse
from pathlib import Path
from typing import Any

from compress.cli import build_options
from compress.cli.common import add_output
from compress.manifest import RUN
from compress.progress import choose
from compress.store import open_store, read_run
from profiles.errors import UserError

AGAIN = {
    "distill": "train the chosen student again",
    "quantize": "fine-tune with fake quantisation again",
    "export": "write the ONNX file again",
    "build": "build the target's artifact again; needs no torch, so it also runs on the device",
    "report": "write the report again",
}


def add(commands: Any) -> None:
    """Add one command for each stage."""
    for name, text in AGAIN.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.add_argument("folder", type=Path, metavar="RUN", help="folder of a run, as compress pipeline wrote it")
        command.add_argument("--remote", metavar="USER@HOST", help="build and measure there, by ssh")
        if name == "build":
            build_options.add(command)
        add_output(command)
        command.set_defaults(run=run, stage=name)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Do the stage again; stages before it are finished first where they are not."""
    if options.stage == "build":
        return _build(options, read_run(options.folder)["recipe"])
    return again(options.folder, options.stage, options)


def again(folder: Path, stage: str, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Do one stage of a run again; (result for --json, text)."""
    from compress import pipeline
    from compress.recipe import Recipe
    from compress.summary import summarize

    recipe = Recipe.from_json(read_run(folder)["recipe"], str(folder / RUN))
    result = pipeline.run(
        recipe, folder, choose(options.quiet), until=stage, redo=frozenset({stage}), remote=options.remote
    )
    return summarize(result.folder, result.reached, result.repeated) if result.leads else ({}, "")


def _build(options: argparse.Namespace, recipe: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Without torch: the export is there already, and the target's compiler is on this machine."""
    import profiles
    from compress.stages import build_choices
    from compress.stages.build import build
    from compress.summary import summarize
    from exporters.remote import Machine

    remote = None
    if options.remote is not None:
        remote = Machine(options.remote, tuple(options.ssh_option), options.remote_python)
    with open_store(options.folder, frozenset({"build"})) as store:
        target = profiles.target(recipe["target"], Path())
        given = build_options.choices(options)
        before = build_choices.recall(store.folder)
        if given or options.default:
            build_choices.remember(store.folder, given)
        try:
            build(store, target, remote, choose(options.quiet), trust=options.trust)
        except UserError:  # a refused choice must not refuse every later build, too
            build_choices.remember(store.folder, before)
            raise
        return summarize(store.folder, "build", tuple(store.repeated))
