"""A search over digits that is over in a minute, as a process: what the tools for killing and clusters run."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from compress.evaluations import Counts, Evaluation, open_evaluations
from compress.records import folder_name
from compress.store import BEGUN

RECIPE = """
target = "jetson"
[task]
name = "digits"
[budget]
macs_reduction = 4.0
[select]
spaces = ["int8_conv"]
selector = "halving"
candidates = 16
training = 2.0
finalists = 2
[distill]
method = "vanilla_kd"
epochs = 8
batch_size = 64
learning_rate = 4e-3
"""
FILE = "evaluations.sqlite"  # what the run's folder calls it


def recipe(folder: Path) -> Path:
    """The project file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "search.toml"
    path.write_text(RECIPE)
    return path


def command(project: Path, out: Path, workers: str, until: str = "select") -> list[str]:
    """The search as a process."""
    return [
        *(sys.executable, "-m", "compress.cli.main", "pipeline", str(project)),
        *("--until", until, "--out", str(out), "--workers", workers, "--quiet"),
    ]


def finish(project: Path, out: Path, workers: str, until: str = "select") -> None:
    """Run to the end."""
    subprocess.run(command(project, out, workers, until), check=True, stdout=subprocess.DEVNULL)


def begun(out: Path) -> int | None:
    """When the search last began, in the file system's nanoseconds; None where it has not, or is finished."""
    try:
        return (out / folder_name("select") / BEGUN).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def seconds(out: Path) -> float:
    """How long a finished search took."""
    return float(json.loads((out / folder_name("select") / "stage.json").read_text())["seconds"])


def choice(out: Path) -> dict[str, Any]:
    """The plan that was chosen, and its space."""
    values = json.loads((out / folder_name("select") / "stage.json").read_text())["values"]
    return {"space": values["space"], "plan": values["plan"]}


def evaluations(out: Path) -> tuple[Counts, dict[str, Evaluation]]:
    """What the file of evaluations holds."""
    with open_evaluations(out / FILE) as opened:
        return opened.counts(), dict(opened.rows())


def scores(out: Path) -> dict[str, float]:
    """Key -> score."""
    return {key: evaluation.score for key, evaluation in evaluations(out)[1].items()}
