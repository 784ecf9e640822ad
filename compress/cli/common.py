"""Options that several commands share."""

import argparse
from pathlib import Path

from profiles.errors import UserError


def add_output(command: argparse.ArgumentParser) -> None:
    """`--json` and `--quiet`."""
    command.add_argument("--json", action="store_true", help="print the result as JSON on stdout, all else on stderr")
    command.add_argument("--quiet", action="store_true", help="no progress on stderr")


def folder(project: Path) -> Path:
    """`--project` as it was given.

    Raises:
        UserError: there is no such folder.
    """
    if not project.is_dir():
        raise UserError(f"there is no folder {project}", fix="pass the folder that your targets/ is in")
    return project
