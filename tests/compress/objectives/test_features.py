"""Hints: a value worked by hand, sizes that differ, a projection that is trained, refusals."""

import pytest
import torch
from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.stages import Stage, stages
from compress.errors import RecipeError
from compress.objectives.features import Features, hint_loss, projection


def prepared(ours: torch.Tensor, theirs: torch.Tensor) -> Features:
    some = TensorExamples(torch.zeros(1, 2), torch.zeros(1), "x")
    student, teacher = Signals(torch.zeros(1, 2), taps={"s": ours}), Signals(torch.zeros(1, 2), taps={"t": theirs})
    objective = Features("s", "t")
    objective.prepare(
        Preparation(Splits(some, some, some), lambda split: iter(()), student, teacher, 2, 0, lambda z, y: z[:, 0])
    )
    return objective


def test_value_by_hand_and_no_gradient_to_the_teacher() -> None:
    student = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    values = hint_loss(student, teacher)
    assert values.tolist() == [2.5, 12.5]
    values.sum().backward()
    assert student.grad is not None
    assert teacher.grad is None


def test_a_larger_map_is_averaged() -> None:
    teacher = torch.arange(16.0).reshape(1, 1, 4, 4)
    student = torch.tensor([[[[2.5, 4.5], [10.5, 12.5]]]])  # means of the four quarters
    assert hint_loss(student, teacher).item() == 0.0


@pytest.mark.parametrize("tail", [(), (7,), (5, 5), (3, 3, 3)])
def test_projections_fit_every_dimension(tail: tuple[int, ...]) -> None:
    ours, theirs = torch.randn(2, 3, *tail), torch.randn(2, 8, *tail)
    assert projection(ours, theirs)(ours).shape == theirs.shape
    objective = prepared(ours, theirs)
    batch = Batch((ours,), None, torch.arange(2))
    values = objective(
        Signals(ours[:, :2], taps={"s": ours}), Signals(ours[:, :2], taps={"t": theirs}), batch, Clock("p", 0, 1, 0, 1)
    )
    assert values.shape == (2,)
    values.mean().backward()
    assert all(parameter.grad is not None for parameter in objective.parameters())
    assert isinstance(objective.projections[0], nn.Linear) == (tail == ())


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="1 student modules with 2"):
        Features("a", ("b", "c"))
    with pytest.raises(RecipeError, match="0 student modules"):
        Features((), ())
    with pytest.raises(RecipeError, match="'s' gives"):
        prepared(torch.randn(2, 3, 4, 4), torch.randn(2, 8))
    with pytest.raises(ValueError, match="student features"):
        hint_loss(torch.zeros(1, 2), torch.zeros(1, 3))


def test_a_stage_that_the_student_has_once_is_hinted_once() -> None:
    some = TensorExamples(torch.zeros(1, 2), torch.zeros(1), "x")
    names = stages(4)
    ours, theirs = (
        {name: torch.full((1, 2, 3, 3), float(place)) for place, name in enumerate(names)} for _ in range(2)
    )
    ends = {name: Stage("first" if place < 2 else "last", 1, (3, 3)) for place, name in enumerate(names)}
    student, teacher = (Signals(torch.zeros(1, 2), taps=taps) for taps in (ours, theirs))
    objective = Features(names, names)
    objective.prepare(
        Preparation(
            Splits(some, some, some),
            lambda split: iter(()),
            student,
            teacher,
            2,
            0,
            lambda z, y: z[:, 0],
            student_stages=ends,
        )
    )
    assert objective.student_taps == names  # all are tapped, two are used
    assert len(objective.projections) == 2
    for project in objective.projections:
        assert isinstance(project, nn.Conv2d)
        project.weight.data = torch.eye(2).reshape(2, 2, 1, 1)
        nn.init.zeros_(project.bias)  # type: ignore[arg-type]
    batch = Batch((torch.zeros(1, 2),), None, torch.arange(1))
    clock = Clock("hint", 0, 1, 0, 1)
    assert objective(student, teacher, batch, clock).item() == 0.0
    shifted = Signals(teacher.output, taps=theirs | {names[1]: theirs[names[1]] + 2.0})  # the end of the first half
    assert objective(student, shifted, batch, clock).item() == pytest.approx((4.0 + 0.0) / 2)
