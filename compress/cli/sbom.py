"""`compress sbom RUN`: what a run is made of, as a CycloneDX bill of materials."""

import argparse
import json
from pathlib import Path
from typing import Any

from compress.cli.common import add_output


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "sbom",
        help="what a run is made of, as a CycloneDX bill of materials",
        description="Write a CycloneDX 1.6 bill of materials: models and files with their hashes, teacher, data, and "
        "the packages that the run was made with.",
    )
    command.add_argument("folder", type=Path, metavar="RUN", help="folder of a finished run")
    command.add_argument("--out", type=Path, metavar="FILE", help="write there (default: print it)")
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Examine the run, then write or print; (result for --json, text)."""
    from compress.integrity import examine
    from compress.sbom import bill_of_materials
    from profiles.atomic import write_text

    examine(options.folder).require(options.folder)
    text = bill_of_materials(options.folder)
    content: dict[str, Any] = json.loads(text)
    if options.out is None:
        return content, text.rstrip("\n")
    write_text(options.out, text)
    return content, f"{len(content['components'])} components: {options.out}"
