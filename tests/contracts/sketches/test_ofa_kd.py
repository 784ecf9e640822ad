"""Branches turn the student's stages into logits; they are trained with it and dropped afterwards.

Source: Hao et al., "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge Distillation",
NeurIPS 2023, arXiv:2310.19444. Shows: taps of any shape, an objective with parameters sized in preparation.
"""

from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.objectives.labels import Labels
from compress.training.fit import fit


def ofa_loss(student: Tensor, teacher: Tensor, labels: Tensor, power: float) -> Tensor:
    """-sum_c [(p_c + m_c)^g - m_c] log q_c: (B, C) logits each, (B,) classes -> (B,)."""
    hit = F.one_hot(labels, student.shape[1]).to(student.dtype)
    weights = (teacher.detach().softmax(1) + hit).pow(power) - hit
    return -(weights * student.log_softmax(1)).sum(1)


class Branches(Objective):
    def __init__(self, stages: tuple[str, ...] = ("body", "pool"), power: float = 1.2) -> None:
        super().__init__()
        self.student_taps, self._power = stages, power
        self.branches = nn.ModuleList()

    def prepare(self, preparation: Preparation) -> None:
        widths = [preparation.student_example.taps[stage].shape[1] for stage in self.student_taps]
        self.branches = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, preparation.outputs)) for width in widths
        )

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        assert batch.labels is not None
        total = ofa_loss(student.output, teacher.output, batch.labels, self._power)
        for stage, branch in zip(self.student_taps, self.branches, strict=True):
            vector = student.taps[stage].flatten(2).mean(2) if student.taps[stage].ndim > 2 else student.taps[stage]
            total = total + ofa_loss(branch(vector), teacher.output, batch.labels, self._power)
        return total


METHOD = Method(source="arXiv:2310.19444", objectives={"branches": Branches, "labels": Labels})


@pytest.mark.parametrize(("power", "expected"), [(1.0, 1.49670245), (1.5, 1.93277420), (2.0, 2.71778000)])
def test_reference_values(power: float, expected: float) -> None:
    student, teacher = (torch.tensor([z], dtype=torch.float64) for z in ([1, 2, 0.5], [3, 1, 2]))
    assert ofa_loss(student, teacher, torch.tensor([0]), power).item() == pytest.approx(expected, abs=5e-9)


def test_branches_learn_and_leave_nothing_behind(toy: ModuleType) -> None:
    student, branches = toy.network(), Branches()
    starts: list[Tensor] = []

    class Watched(Labels):
        def prepare(self, preparation: Preparation) -> None:
            super().prepare(preparation)
            starts.extend(parameter.detach().clone() for parameter in branches.parameters())

    fit(
        method=METHOD,
        students={"student": student},
        teachers={"teacher": toy.teacher()},
        objectives={"branches": branches, "labels": Watched()},
        weights={},
        splits=toy.splits(),
        task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=2),
        seed=0,
        precision="fp32",
    )
    assert len(starts) == 8  # two branches of norm and linear
    assert all(not torch.equal(a, b) for a, b in zip(starts, branches.parameters(), strict=True))
    assert list(student.state_dict()) == list(toy.network().state_dict())
    assert not any(module._forward_hooks for module in student.modules())
