"""`compress init`: an annotated project file to edit."""

import argparse
from pathlib import Path
from typing import Any

from compress.cli.common import add_output
from compress.errors import RecipeError
from profiles.atomic import write_text


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser("init", help="write an annotated project file to edit")
    command.add_argument(
        "file", nargs="?", type=Path, default=Path("project.toml"), help="where (default project.toml)"
    )
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write the file; an existing one is left alone."""
    from compress.template import project

    if options.file.exists():
        raise RecipeError(f"{options.file} exists already", fix="give another name: compress init my_project.toml")
    write_text(options.file, project())
    return {"file": str(options.file)}, f"wrote {options.file}; run it as it is: compress pipeline {options.file}"
