"""`compress doctor`: what this machine can do, what it lacks, and the fix."""

import argparse
import dataclasses
from typing import Any

from compress.cli.common import add_output


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("doctor", help="what this machine can do and what it lacks, with the fix")
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Look, and say."""
    from compress.doctor import examine, render

    found = examine()
    return dataclasses.asdict(found), render(found)
