"""Short recipes and a cache of their own for whole runs."""

from pathlib import Path

import pytest

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
[verify]
within_one_step = 0.99 # a network this raw has large steps, and a rounding that falls to the other side shows
accuracy_change = 0.02
top1_agreement = 0.95
"""


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reference teacher of these tests is kept."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def quick(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project file that runs in seconds; accuracy is not its point, so its bounds are wide."""
    monkeypatch.setenv("COMPRESS_CACHE", str(cache))
    path = tmp_path / "quick.toml"
    path.write_text(QUICK.format(target="jetson", candidates=200, budget=""))
    return path
