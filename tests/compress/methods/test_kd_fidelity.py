"""Distillation alone: no labels in it, the data that a recipe chooses, and a start near the teacher."""

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn

from compress.experiments.kd_fidelity import interpolated
from compress.methods.kd_fidelity import METHOD
from compress.training.fit import fit


def test_labels_play_no_part() -> None:
    assert list(METHOD.objectives) == ["soft_cross_entropy"]


@pytest.mark.parametrize(
    "numbers", [{}, {"mixed": 1.0}, {"streams": "unlabelled"}, {"streams": "train+unlabelled", "others": 2.0}]
)
def test_learns_on_every_choice_of_data(toy: ModuleType, numbers: dict[str, float | str]) -> None:
    teacher, student = toy.teacher(), toy.network(seed=3)
    splits = toy.splits(extras=(("unlabelled", toy.images(48, 9)),))
    assert METHOD.strategy is not None
    outcome = fit(
        method=METHOD,
        students={"student": student},
        teachers={"teacher": teacher},
        objectives={name: make() for name, make in METHOD.objectives.items()},
        weights={},
        splits=splits,
        task=toy.NoisyTask(),
        numbers=replace(toy.NUMBERS, epochs=12),
        seed=0,
        precision="fp32",
        strategy=METHOD.strategy(**numbers),
    )
    losses = [point.loss for point in outcome.curve]
    assert losses[-1] < losses[0]


def test_a_start_near_the_teacher() -> None:
    student, teacher = (nn.Linear(2, 2) for _ in range(2))
    with torch.no_grad():
        student.weight.fill_(1.0)
        teacher.weight.fill_(5.0)
    assert torch.equal(interpolated(student, teacher, 0.25).weight, torch.full((2, 2), 2.0))  # type: ignore[arg-type]
    assert torch.equal(interpolated(student, teacher, 1.0).weight, teacher.weight)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="differ"):
        interpolated(student, nn.Linear(3, 2), 0.5)
    with pytest.raises(ValueError, match="running statistics"):
        interpolated(nn.BatchNorm1d(2), nn.BatchNorm1d(2), 0.5)
