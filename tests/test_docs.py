"""What README and docs tell people to type is understood."""

import itertools
import re
from pathlib import Path

import pytest

from compress.cli.main import parser

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def commands() -> list[str]:
    """Every `compress ...` in code blocks and code spans; "a | b | c" stands for one of them each."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = re.findall(r"```[a-z]*\n(.*?)```", text, re.DOTALL)
        lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", text)
        found += [line.split("#")[0].strip() for line in lines if line.startswith("compress ")]
    return sorted({choice for line in found for choice in choices(line)})


def choices(line: str) -> list[str]:
    """`compress list a | b` as `compress list a` and `compress list b`."""
    words = re.sub(r"\s*\|\s*", "|", line).split()
    return [" ".join(picked) for picked in itertools.product(*(word.split("|") for word in words))]


def test_there_are_commands() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("line", commands())
def test_a_command_in_the_docs_is_understood(line: str) -> None:
    parser().parse_args(line.split()[1:])
