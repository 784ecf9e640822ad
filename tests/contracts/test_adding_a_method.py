"""The page on adding a method: its code is complete, type-checks, and trains."""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from compress.contracts.method import Method
from compress.contracts.selector import Candidate, Outcome, Trial
from compress.training.fit import fit
from profiles.cost import Cost

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding-a-method.md").read_text(), re.DOTALL)


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block, "adding-a-method.md", "exec"), names)
    return names


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_every_method_of_the_page_trains(toy: ModuleType, number: int) -> None:
    names = run(BLOCKS[number])
    if "METHOD" not in names or names["METHOD"].tasks == ("detection",):
        pytest.skip("no method for the toy task, which is classification")
    method: Method = names["METHOD"]
    students = method.students(toy.network)
    outcome = fit(
        method=method,
        students=students,
        teachers=method.teachers(toy.teacher(), students),
        objectives={name: make() for name, make in method.objectives.items()},
        weights={},
        splits=toy.splits(),
        task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=2),
        seed=0,
        precision="fp32",
    )
    assert all(torch.isfinite(value).all() for value in students["student"].state_dict().values())
    assert outcome.steps == 6


def test_the_pages_own_tests_pass() -> None:
    blocks = [run(block) for block in BLOCKS if "\ndef test_" in block]
    tests = [part for names in blocks for name, part in names.items() if name.startswith("test_")]
    assert tests
    for test in tests:
        test()


@dataclass(frozen=True)
class Named:
    name: str

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name}


class Problem:
    """As much of a problem as the page's selector looks at; outcomes arrive the last first."""

    training, spent = 0.35, 0.0  # three short trainings of 0.1

    def __init__(self, scores: dict[str, tuple[int, float]], rejected: str) -> None:
        self.scores = scores
        self.asked: list[Trial] = []
        self.pool = tuple(
            Candidate("space", Named(name), self.cost(macs), "too slow" if name == rejected else None)
            for name, (macs, _) in scores.items()
        )

    @staticmethod
    def cost(macs: int) -> Cost:
        return Cost("toy", "none", 1, "int8", macs, 0, 0, 0, 0.0, (0.0, 0.0), "predicted")

    def stream(self, trials: list[Trial]) -> Iterator[tuple[int, Outcome]]:
        self.asked += trials
        for place, trial in reversed(list(enumerate(trials))):
            yield place, Outcome(self.scores[trial.candidate.plan.name][1], 1.0)


def test_the_pages_selector_prefers_small_and_good_and_keeps_the_rejected() -> None:
    selector = next(run(block)["SELECTOR"] for block in BLOCKS if "\nSELECTOR = " in block)()
    # Rewards by hand: tiny 0.99 * 0.5 = 0.495; small 0.96 * 0.8 = 0.768; middle 0.75 * 0.9 = 0.675.
    scores = {"large": (100, 0.99), "middle": (50, 0.9), "small": (20, 0.8), "tiny": (10, 0.5), "broken": (1, 1.0)}
    problem = Problem(scores, "broken")
    selection = selector(problem)
    assert [trial.candidate.plan.name for trial in problem.asked] == ["tiny", "small", "middle"]
    assert [one.plan.name for one in selection.ranked] == ["small", "middle", "tiny", "large", "broken"]
    assert [one.score for one in selection.ranked] == [0.8, 0.9, 0.5, None, None]
    assert selection.notes == {"trained": 3}
    diverged = selector(Problem({"small": (20, float("nan")), "large": (100, 0.5)}, ""))
    assert [one.score for one in diverged.ranked] == [0.5, None]


def test_the_pages_code_type_checks(tmp_path: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is a development tool")
    files = []
    for number, block in enumerate(BLOCKS):
        files.append(tmp_path / f"block_{number}.py")
        files[-1].write_text(block)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), *map(str, files)],
        cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    mine = [line for line in done.stdout.splitlines() if "block_" in line and "error" in line]
    assert mine == []
