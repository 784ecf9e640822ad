"""Labels and soft labels mixed: the value worked by hand, the teacher's entropy, invariances, refusals."""

import math

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.errors import RecipeError, TaskError
from compress.objectives.soft_labels import SoftLabels, soft_label_loss

STUDENT = torch.tensor([[2.0, 1.0, 0.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
FIRST = torch.tensor([0])
CLOCK = Clock("distill", 0, 1, 0, 1)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 0.40760596), (1.0, 1.40760596), (0.5, 0.90760596)])
def test_equals_the_value_worked_by_hand(alpha: float, expected: float) -> None:
    assert soft_label_loss(STUDENT, TEACHER, FIRST, alpha).item() == pytest.approx(expected, abs=5e-9)


def test_of_its_own_probabilities_it_is_the_entropy_and_has_no_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = soft_label_loss(student, STUDENT, FIRST, alpha=1.0)
    p = torch.softmax(STUDENT, dim=1)
    torch.testing.assert_close(loss.detach(), -(p * p.log()).sum(dim=1))
    loss.sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(STUDENT), atol=1e-15, rtol=0)


def test_a_constant_added_to_either_changes_nothing() -> None:
    before = soft_label_loss(STUDENT, TEACHER + STUDENT, FIRST)
    torch.testing.assert_close(soft_label_loss(STUDENT + 7, TEACHER + STUDENT, FIRST), before)
    torch.testing.assert_close(soft_label_loss(STUDENT, TEACHER + STUDENT - 7, FIRST), before)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    soft_label_loss(student, teacher, FIRST).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_positions_are_averaged() -> None:
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(2, 5, 3)
    labels = torch.tensor([[0, 1, 2], [3, 4, 0]])
    each = [soft_label_loss(student[..., n], teacher[..., n], labels[:, n]) for n in range(3)]
    torch.testing.assert_close(soft_label_loss(student, teacher, labels), torch.stack(each).mean(dim=0))


def test_half_precision_is_computed_in_single() -> None:
    student = torch.zeros(1, 50_000, dtype=torch.bfloat16)
    loss = soft_label_loss(student, student, FIRST)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(50_000), rel=1e-5)


@pytest.mark.parametrize(
    ("student", "teacher", "labels"),
    [
        (STUDENT, TEACHER[:, :2], FIRST),
        (STUDENT, TEACHER, torch.tensor([0, 1])),
        (torch.zeros(1, 3, 4), torch.zeros(1, 3, 4), FIRST),
    ],
)
def test_shapes_that_do_not_go_together_are_refused(student: Tensor, teacher: Tensor, labels: Tensor) -> None:
    with pytest.raises(ValueError, match="logits"):
        soft_label_loss(student, teacher, labels)


def test_the_objective_calls_the_function() -> None:
    batch = Batch((STUDENT,), FIRST, torch.arange(1))
    loss = SoftLabels(0.25)(Signals(STUDENT), Signals(TEACHER), batch, CLOCK)
    torch.testing.assert_close(loss, soft_label_loss(STUDENT, TEACHER, FIRST, 0.25))


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_a_weight_outside_of_0_to_1_is_refused(alpha: float) -> None:
    with pytest.raises(RecipeError, match="alpha"):
        SoftLabels(alpha)


def test_a_stream_without_labels_is_refused() -> None:
    with pytest.raises(TaskError, match="without labels"):
        SoftLabels()(Signals(STUDENT), Signals(TEACHER), Batch((STUDENT,), None, torch.arange(1)), CLOCK)
