"""DKD: its identity with soft targets, values by hand, refusals."""

import math

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.errors import RecipeError, TaskError
from compress.methods.dkd import METHOD, warmed_up
from compress.objectives.decoupled import Decoupled, others_divergence, target_divergence
from compress.objectives.soft_targets import soft_target_loss

CLOCK = Clock("distill", 0, 10, 0, 1)
STUDENT = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.5]], dtype=torch.float64)
TEACHER = torch.tensor([[math.log(2), math.log(1), math.log(1)], [3.0, 1.0, 2.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 0])


def test_the_parts_by_hand() -> None:
    # Row 0: (1/2, 1/2) against (1/3, 2/3) on the true class; the two others are equally likely in both.
    expected = 0.5 * math.log(1.5) + 0.5 * math.log(0.75)
    assert target_divergence(STUDENT, TEACHER, LABELS, 1.0)[0].item() == pytest.approx(expected, abs=1e-12)
    assert others_divergence(STUDENT, TEACHER, LABELS, 1.0)[0].item() == pytest.approx(0.0, abs=1e-12)
    p, q = 1 / (1 + math.e), 1 / (1 + math.exp(-1.5))  # row 1, classes 1 and 2: 1 against 2, 2 against 0.5
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert others_divergence(STUDENT, TEACHER, LABELS, 1.0)[1].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_together_they_are_the_soft_targets(temperature: float) -> None:
    target = target_divergence(STUDENT, TEACHER, LABELS, temperature)
    others = others_divergence(STUDENT, TEACHER, LABELS, temperature)
    p = (TEACHER / temperature).softmax(1)[:, 0]
    torch.testing.assert_close(target + (1 - p) * others, soft_target_loss(STUDENT, TEACHER, temperature))


def test_a_sure_teacher_stays_finite() -> None:
    student = torch.zeros(1, 3, requires_grad=True)
    teacher = torch.tensor([[200.0, 0.0, -5.0]])
    loss = Decoupled(1.0)(Signals(student), Signals(teacher), Batch((student,), LABELS[:1], LABELS[:1]), CLOCK)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_warm_up() -> None:
    assert warmed_up(Clock("distill", 0, 240, 0, 1)) == 0.0
    assert warmed_up(Clock("distill", 10, 240, 0, 1)) == pytest.approx(0.5)
    assert warmed_up(Clock("distill", 100, 240, 0, 1)) == 1.0
    assert METHOD.weights["labels"] == 1.0


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="temperature 0"):
        Decoupled(temperature=0.0)
    logits = Signals(torch.zeros(2, 3))
    with pytest.raises(TaskError, match="without labels"):
        Decoupled()(logits, logits, Batch((torch.zeros(2, 3),), None, LABELS), CLOCK)
    with pytest.raises(ValueError, match="teacher"):
        Decoupled()(logits, Signals(torch.zeros(2, 4)), Batch((torch.zeros(2, 3),), LABELS, LABELS), CLOCK)
