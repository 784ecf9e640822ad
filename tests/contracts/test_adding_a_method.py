"""The page on adding a method: its code is complete, type-checks, and trains."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from compress.contracts.method import Method
from compress.contracts.selector import Candidate
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


def test_the_pages_selector_prefers_small_and_good_and_keeps_the_rejected() -> None:
    select = next(run(block)["select"] for block in BLOCKS if "def select" in block)

    def candidate(name: str, macs: int, rejected: str | None = None) -> Candidate:
        cost = Cost("toy", "none", 1, "int8", macs, 0, 0, 0, 0.0, (0.0, 0.0), "predicted")
        return Candidate("space", name, cost, rejected)

    several = [candidate("large", 100), candidate("small", 20), candidate("broken", 1, "no")]
    ranked = select(several, lambda one, share: {"large": 0.9, "small": 0.8}[one.plan])
    assert [one.plan for one in ranked] == ["small", "large", "broken"]


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
