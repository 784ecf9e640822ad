"""The tool that measures workers says what it measured."""

import re
from pathlib import Path

import pytest

from tools import bench_workers


def test_memory_at_the_start_the_middle_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    bench_workers.memory("serial", 200)
    said = capsys.readouterr().out
    assert said.startswith("memory of the driver, serial, 200 candidates: 1 %: ")
    assert re.search(r"50 %: [\d.]+ MiB, 100 %: [\d.]+ MiB; file \d+ MiB; \d+ us CPU", said)


def test_commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bench_workers, "COMMITS_S", 0.05)
    bench_workers.commits(tmp_path)
    counts = re.findall(r"(\d+) by one write: (\d+) per s", capsys.readouterr().out)
    assert [together for together, _ in counts] == ["1", "32"]
    assert int(counts[1][1]) > int(counts[0][1])
