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
    whole = soft_target_loss(STUDENT, TEACHER, temperature)
    torch.testing.assert_close(target + (1 - p) * others, whole, rtol=0, atol=1e-12)  # float64


@pytest.mark.parametrize(
    ("temperature", "target", "others", "both"),
    [(1.0, 0.40746788, 0.58895760, 1.58538307), (4.0, 0.40669414, 0.63705926, 1.68081266)],
)
def test_reference_values(temperature: float, target: float, others: float, both: float) -> None:
    student = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.5, -0.5]], dtype=torch.float64)
    labels, last = torch.tensor([0, 1]), 5e-9  # half of the last digit given
    assert target_divergence(student, teacher, labels, temperature).mean().item() == pytest.approx(target, abs=last)
    assert others_divergence(student, teacher, labels, temperature).mean().item() == pytest.approx(others, abs=last)
    batch = Batch((student,), labels, torch.arange(2))
    found = Decoupled(temperature, 1.0, 2.0)(Signals(student), Signals(teacher), batch, CLOCK)
    assert found.mean().item() == pytest.approx(both, abs=last)
    found = Decoupled(temperature, 3.0, 0.5)(Signals(student), Signals(teacher), batch, CLOCK)
    assert found.mean().item() == pytest.approx(3 * target + 0.5 * others, abs=3.5 * last)


def test_gradients_are_right_reach_the_student_alone_and_constants_change_nothing() -> None:
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
    batch = Batch((STUDENT,), LABELS, LABELS)

    def loss(ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        return Decoupled(2.0, 1.0, 8.0)(Signals(ours), Signals(theirs), batch, CLOCK)

    loss(student, teacher).sum().backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert torch.autograd.gradcheck(lambda z: loss(z, TEACHER), (STUDENT.clone().requires_grad_(),))
    torch.testing.assert_close(loss(STUDENT + 3.0, TEACHER - 7.0), loss(STUDENT, TEACHER), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_logits_far_apart_stay_finite(kind: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0]], dtype=kind, requires_grad=True)
    teacher = torch.tensor([[-1e4, 0.0, 1e4]], dtype=kind)
    loss = Decoupled(4.0)(Signals(student), Signals(teacher), Batch((student,), LABELS[:1], LABELS[:1]), CLOCK)
    # p of the true class is 0 and q is 1, 1e4 apart; the others agree
    torch.testing.assert_close(loss, torch.tensor([4.0 * 1e4]), rtol=2**-8, atol=0)  # bfloat16 holds 8 bits
    loss.sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


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
    assert METHOD.weights == {"decoupled": warmed_up, "labels": 1.0}


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="temperature 0"):
        Decoupled(temperature=0.0)
    for wrong in (-1.0, math.nan, math.inf):
        for numbers in ((wrong, 1.0, 1.0), (1.0, wrong, 1.0), (1.0, 1.0, wrong)):
            with pytest.raises(RecipeError, match="decoupled has"):
                Decoupled(*numbers)
    logits = Signals(torch.zeros(2, 3))
    with pytest.raises(TaskError, match="without labels"):
        Decoupled()(logits, logits, Batch((torch.zeros(2, 3),), None, LABELS), CLOCK)
    with pytest.raises(ValueError, match="teacher"):
        Decoupled()(logits, Signals(torch.zeros(2, 4)), Batch((torch.zeros(2, 3),), LABELS, LABELS), CLOCK)
