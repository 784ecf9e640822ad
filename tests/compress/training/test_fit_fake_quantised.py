"""The same loop trains a student with fake quantisation, and resumes it."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from compress.contracts.clock import Clock
from compress.methods.vanilla_kd import METHOD
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.qat.phase import phase
from compress.qat.prepare import calibrate, enter, prepare
from compress.qat.prepared import Prepared
from compress.training.fit import fit


class BrokenOffError(Exception):
    """Stands for a kill."""


def prepared(toy: ModuleType) -> Prepared:
    model = prepare(toy.network(16, dropout=0.2).eval(), (torch.zeros(4, 1, 8, 8),), "tensorrt")
    calibrate(model, [toy.splits().train.batch(torch.arange(32)).inputs])
    return model


def train(toy: ModuleType, model: Prepared, until: int | None = None, **changes: Any) -> list[float]:
    def follow(clock: Clock) -> None:
        if clock.epoch == until:
            raise BrokenOffError
        enter(model, phase(clock.progress))

    outcome = fit(
        method=METHOD,
        students={"student": model},
        teachers={"teacher": toy.teacher()},
        objectives={"soft_targets": SoftTargets(), "labels": Labels()},
        weights={},
        splits=toy.splits(),
        task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=4),
        seed=0,
        precision="fp32",
        before_step=follow,
        **changes,
    )
    return [point.loss for point in outcome.curve]


def test_trains_and_resumes_with_the_same_bits(toy: ModuleType, tmp_path: Path) -> None:
    whole, path = prepared(toy), tmp_path / "c.pt"
    losses = train(toy, whole)
    assert losses[-1] < losses[0]
    with pytest.raises(BrokenOffError):
        train(toy, prepared(toy), until=3, checkpoint=path, checkpoint_every_s=0.0)
    resumed = prepared(toy)
    assert train(toy, resumed, checkpoint=path) == losses
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.state_dict().items())
