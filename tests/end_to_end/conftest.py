"""Short recipes and a cache of their own for whole runs."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.cli.main import main

QUICK = """
recipe = "default"
target = "{target}"
[teacher]
epochs = 4
[budget]
accuracy_drop = 0.2
{budget}
[select]
candidates = {candidates}
training = 0.7
finalists = 1
settings = {{ share = 0.34 }}
[distill]
epochs = 3
learning_rate = 8e-3
[quantize]
epochs = 1
sensitivity_samples = {samples}
[verify]
within_one_step = 0.99 # a network this raw has large steps, and a rounding that falls to the other side shows
accuracy_change = 0.02
top1_agreement = 0.95
"""


@dataclass(frozen=True)
class Finished:
    """A run of the project of `quick` to its end, and what the command said as JSON. Tests copy its folder."""

    folder: Path
    said: dict[str, Any]


def write_project(
    path: Path, target: str = "jetson", *, candidates: int = 24, samples: int = 0, budget: str = ""
) -> Path:
    """A project file that runs in seconds; accuracy is not its point, so its bounds are wide.

    Args:
        candidates: students that are costed.
        samples: validation examples for the sensitivity of layers; 0 leaves the analysis out.
        budget: more lines of [budget].
    """
    path.write_text(QUICK.format(target=target, candidates=candidates, samples=samples, budget=budget))
    return path


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """The same bits here as in other processes, whatever the tests before have set."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reference teacher of these tests is kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def quick(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of `finished`, with everything that a recipe has by default."""
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))
    return write_project(tmp_path / "quick.toml", candidates=200, samples=512)


@pytest.fixture
def small(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same with few candidates and without the sensitivity of layers, for runs that are about something else."""
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))
    return write_project(tmp_path / "small.toml")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Finished:
    """Made once; this process had one thread."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("finished")
    project = write_project(place / "quick.toml", candidates=200, samples=512)
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("COMPRESS_CACHE", str(cache))
        assert main(["pipeline", str(project), "--out", str(place / "run"), "--json", "--quiet"]) == 0
    return Finished(place / "run", json.loads(said.getvalue()))
