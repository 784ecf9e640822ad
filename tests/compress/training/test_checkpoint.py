"""A training that is really killed, and goes on."""

import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from types import ModuleType

import torch

from tests.forked import forked, run_script

SCRIPT = """
import importlib.util, sys, time
from dataclasses import replace
from pathlib import Path
spec = importlib.util.spec_from_file_location("toy", {toy!r})
toy = importlib.util.module_from_spec(spec); sys.modules["toy"] = toy; spec.loader.exec_module(toy)
import torch
from compress.methods.vanilla_kd import METHOD
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.training.fit import fit
student = toy.network(dropout=0.3)
slow = float(sys.argv[2])
fit(
    method=METHOD, students={{"student": student}}, teachers={{"teacher": toy.teacher()}},
    objectives={{"soft_targets": SoftTargets(2.0), "labels": Labels()}}, weights={{}}, splits=toy.splits(),
    task=toy.NoisyTask(), numbers=replace(toy.NUMBERS, epochs=6), seed=3, precision="fp32",
    checkpoint=Path(sys.argv[1]), checkpoint_every_s=0.0, before_epoch=lambda clock: time.sleep(slow),
)
torch.save(student.state_dict(), sys.argv[1] + ".final")
"""


def start(tmp_path: Path, toy: ModuleType, name: str, slow: float) -> ForkServerProcess:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.format(toy=toy.__file__))
    return forked(run_script, script, str(tmp_path / name), str(slow))


def status(process: ForkServerProcess) -> int | None:
    process.join(120)
    return process.exitcode


def test_a_killed_training_ends_with_the_same_bits(toy: ModuleType, tmp_path: Path) -> None:
    undisturbed = start(tmp_path, toy, "whole", 0.0)
    killed = start(tmp_path, toy, "broken", 0.4)
    path, deadline = tmp_path / "broken", time.monotonic() + 120
    while time.monotonic() < deadline:
        if path.exists() and torch.load(path, weights_only=True)["epoch"] >= 2:
            break
        time.sleep(0.02)
    killed.kill()
    assert status(killed) == -signal.SIGKILL
    assert status(undisturbed) == 0
    assert torch.load(path, weights_only=True)["epoch"] < 6  # it was killed in the middle
    assert status(start(tmp_path, toy, "broken", 0.0)) == 0
    expected = torch.load(tmp_path / "whole.final", weights_only=True)
    resumed = torch.load(tmp_path / "broken.final", weights_only=True)
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(value, resumed[name]) for name, value in expected.items())
