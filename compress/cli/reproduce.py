"""`compress reproduce NAME`: try a published claim again, at small scale, and say what came of it."""

import argparse
from pathlib import Path
from typing import Any

from compress import catalog
from compress.cli.common import add_output
from compress.workers.parse import parse
from profiles.atomic import sha256
from profiles.errors import UserError


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("reproduce", help="try a method's published claim again, with its baselines")
    command.add_argument("name", help="a method with an experiment: compress list experiments")
    command.add_argument("--data", type=Path, help="folder of the data set that the experiment names")
    command.add_argument("--seeds", type=int, help="how many; default: the experiment's own number")
    command.add_argument(
        "--workers",
        default="processes",
        metavar="WHERE",
        help="where the seeds run, each on one core: serial, processes[:N] (default: one per core), ray:local, ...",
    )
    command.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FILE",
        help="judge the figures of this results.json again, and run nothing",
    )
    command.add_argument("--out", type=Path, help="folder for results.json; default: reproduced/NAME")
    command.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """The verdict, its figures, and the table.

    Raises:
        UserError: no such experiment, no data, a number of seeds below 1, or figures that cannot be judged again.
    """
    catalog.require("compress.experiments", options.name)
    if options.seeds is not None and options.seeds < 1:
        raise UserError(f"--seeds {options.seeds} is below 1", fix="give at least one seed; two for a spread")
    if options.data is not None and not options.data.is_dir():
        raise UserError(f"there is no folder {options.data}", fix="pass the folder of the data set")
    if options.source is not None and (options.data is not None or options.seeds is not None):
        raise UserError("--from judges figures that are there, and runs nothing", fix="leave out --data and --seeds")
    opened = parse(options.workers)
    from compress.contracts.experiment import Experiment  # torch is loaded for this command alone
    from compress.progress import choose
    from compress.reproduction import table
    from compress.reproduction.run import judge_again, reproduce

    module = catalog.load("compress.experiments", options.name)
    experiment: Experiment = module.EXPERIMENT
    code = sha256(Path(str(module.__file__)))
    out = options.out or Path("reproduced") / options.name
    if options.source is not None:
        told = judge_again(options.name, experiment, options.source, out, code)
    else:
        with opened(None) as workers:
            progress = choose(options.quiet)
            told = reproduce(options.name, experiment, options.data, out, progress, options.seeds, code, workers)
    shown = table.markdown(told) if options.markdown else table.text(told)
    return told, f"{shown}\nfigures: {out / 'results.json'}"
