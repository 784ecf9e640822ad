"""One line for each file of a plug point, whole sentences."""

from pathlib import Path

import pytest

from compress import catalog
from compress.cli import listing
from compress.cli.main import main


def test_the_first_sentence_whatever_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "one.py"
    for text, expected in (
        ("Short.\n\nMore.", "Short."),
        ("Broken\nin two. Then more.", "Broken in two."),
        ("Version 2.5 of it: good", "Version 2.5 of it: good"),
    ):
        file.write_text(f'"""{text}"""\n')
        assert listing._first_sentence(file) == expected
    file.write_text("x = 1\n")
    assert listing._first_sentence(file) == ""


@pytest.mark.parametrize("kind", ["selectors", "spaces", "methods", "tasks"])
def test_every_file_has_its_line(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", kind]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == catalog.names(f"compress.{kind}")
    assert all(line.endswith(".") for line in lines)
