"""The cross-entropy form of distillation: values worked by hand, what separates it from the divergence, refusals."""

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.methods.kd_fidelity import METHOD
from compress.objectives.soft_cross_entropy import SoftCrossEntropy, soft_cross_entropy
from compress.objectives.soft_targets import soft_target_loss

TEACHER = torch.tensor([[3.0, 1, 2], [0.5, 1.5, -0.5], [0, 0, 1], [2, 2.5, 0]], dtype=torch.float64)
STUDENT = torch.tensor([[1.0, 2, 0.5], [0, 1, 0], [0.2, 0.1, 0.9], [2.2, 2.4, 0.1]], dtype=torch.float64)
BATCH, CLOCK = Batch((STUDENT,), None, torch.arange(4)), Clock("distill", 0, 1, 0, 1)


def test_the_objective_needs_no_labels_and_has_the_papers_temperature() -> None:
    given = METHOD.objectives["soft_cross_entropy"]()(Signals(STUDENT), Signals(TEACHER), BATCH, CLOCK)
    assert given.shape == (4,)
    assert given.mean().item() == pytest.approx(17.49348246, abs=5e-9)  # half of the last digit given
    softer = SoftCrossEntropy(1.0)(Signals(STUDENT), Signals(TEACHER), BATCH, CLOCK)
    torch.testing.assert_close(softer, soft_cross_entropy(STUDENT, TEACHER, 1.0), rtol=0, atol=0)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradients_are_those_of_the_divergence_and_reach_the_student_alone(temperature: float) -> None:
    slopes = []
    for loss in (soft_cross_entropy, soft_target_loss):
        student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone().requires_grad_()
        loss(student, teacher, temperature).sum().backward()
        assert teacher.grad is None
        slopes.append(student.grad)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=0, atol=1e-14)  # float64
    given = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: soft_cross_entropy(z, TEACHER, temperature), (given,))


def test_positions_are_averaged() -> None:
    def maps(rows: Tensor) -> Tensor:
        return rows.reshape(2, 2, 3).transpose(1, 2)

    found = soft_cross_entropy(maps(STUDENT), maps(TEACHER), 2.0)
    torch.testing.assert_close(found, soft_cross_entropy(STUDENT, TEACHER, 2.0).reshape(2, 2).mean(1))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_logits_far_apart_stay_finite(kind: torch.dtype) -> None:
    extreme = torch.tensor([[1e4, -1e4, 0.0]], dtype=kind)
    found = soft_cross_entropy(-extreme, extreme, 4.0)
    torch.testing.assert_close(found, torch.tensor([8e4]), rtol=2**-8, atol=0)  # bfloat16 holds 8 bits


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\(4, 3\), teacher logits \(4, 1\)"):
        soft_cross_entropy(STUDENT, TEACHER[:, :1], 1.0)
    for temperature in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(RecipeError, match="temperature"):
            SoftCrossEntropy(temperature)
