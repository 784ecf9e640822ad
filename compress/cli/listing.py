"""`compress list methods`, targets, tasks, spaces, selectors, recipes or experiments: names, loading none of them."""

import argparse
import ast
import re
from pathlib import Path
from typing import Any

from compress import catalog
from compress.cli import targets
from compress.cli.common import add_output

KINDS = ("methods", "targets", "tasks", "spaces", "selectors", "recipes", "experiments")
HERE = Path(__file__).parents[1]


def add(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "list", help="names of methods, targets, tasks, spaces, selectors, recipes or experiments"
    )
    command.add_argument("kind", choices=KINDS)
    add_output(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Names with one line each; targets as `compress targets list` has them."""
    if options.kind == "targets":
        return targets.listed(Path())
    found = _found(options.kind)
    width = max(map(len, found), default=0)
    return {options.kind: found}, "\n".join(f"{name:<{width}}  {line}" for name, line in found.items())


def _found(kind: str) -> dict[str, str]:
    if kind == "recipes":
        return {path.stem: _recipe_line(path) for path in sorted((HERE / "recipes").glob("*.toml"))}
    return {name: _first_sentence(HERE / kind / f"{name}.py") for name in catalog.names(f"compress.{kind}")}


def _first_sentence(path: Path) -> str:
    """Of the file's docstring, on one line, wherever its lines break."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    end = re.search(r"\.(?= |$)", paragraph)
    return paragraph[: end.end()] if end else paragraph


def _recipe_line(path: Path) -> str:
    import tomllib  # Python 3.10, which a device may have, is without it

    data = tomllib.loads(path.read_text(encoding="utf-8"))
    task, method = data.get("task", {}).get("name", "?"), data.get("distill", {}).get("method", "vanilla_kd")
    return f"task {task}, method {method}, target {data.get('target', 'jetson')}"
