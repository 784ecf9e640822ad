"""Soft targets: values worked by hand, invariances, refusals."""

import math

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.objectives.soft_targets import SoftTargets, soft_target_loss

STUDENT = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]], dtype=torch.float64)
TEACHER = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.5, -0.5]], dtype=torch.float64)


def test_equals_the_value_worked_by_hand() -> None:
    student = torch.tensor([[0.0, 0.0]])  # q = (1/2, 1/2)
    teacher = torch.tensor([[math.log(3.0), 0.0]])  # p = (3/4, 1/4)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    torch.testing.assert_close(soft_target_loss(student, teacher, 1.0), torch.tensor([expected]))


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, 0.66075601), (2.0, 0.75332450), (4.0, 0.79144327), (1000.0, 0.81935638)]
)
def test_reference_values(temperature: float, expected: float) -> None:
    found = soft_target_loss(STUDENT, TEACHER, temperature).mean()
    assert found.item() == pytest.approx(expected, abs=5e-9)  # half of the last digit given


def test_limit_of_high_temperature_is_half_the_mean_squared_centred_difference() -> None:
    difference = STUDENT - TEACHER
    centred = difference - difference.mean(dim=1, keepdim=True)
    expected = centred.square().sum(dim=1) / 6
    assert expected.mean().item() == pytest.approx(0.81944444, abs=5e-9)
    torch.testing.assert_close(soft_target_loss(STUDENT, TEACHER, 1e5), expected, rtol=1e-4, atol=0)  # O(1/T)


def test_gradient_is_the_difference_of_probabilities() -> None:
    student = STUDENT.clone().requires_grad_()
    teacher = TEACHER.clone().requires_grad_()
    soft_target_loss(student, teacher, 1.0).sum().backward()
    torch.testing.assert_close(student.grad, STUDENT.softmax(1) - TEACHER.softmax(1))
    assert teacher.grad is None


def test_a_constant_per_row_changes_nothing_and_equal_rows_give_zero() -> None:
    shift = torch.tensor([[5.0], [-300.0]], dtype=torch.float64)
    expected = soft_target_loss(STUDENT, TEACHER, 2.0)
    torch.testing.assert_close(soft_target_loss(STUDENT + shift, TEACHER, 2.0), expected)
    torch.testing.assert_close(soft_target_loss(STUDENT, TEACHER + shift, 2.0), expected)
    torch.testing.assert_close(soft_target_loss(TEACHER + shift, TEACHER, 2.0), torch.zeros(2, dtype=torch.float64))


def test_pixels_are_averaged() -> None:
    def maps(rows: Tensor) -> Tensor:
        return rows.T.reshape(1, 3, 2, 1)

    found = soft_target_loss(maps(STUDENT), maps(TEACHER), 2.0)
    torch.testing.assert_close(found, soft_target_loss(STUDENT, TEACHER, 2.0).mean(dim=0, keepdim=True))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_extreme_logits_stay_finite(kind: torch.dtype, temperature: float) -> None:
    """In half precision the factor of the temperature alone would overflow."""
    extreme = torch.tensor([[1e4, -1e4, 0.0]], dtype=kind)
    student = (-extreme).requires_grad_()
    loss = soft_target_loss(student, extreme, temperature)
    torch.testing.assert_close(loss, torch.tensor([2e4 * temperature]), rtol=2**-8, atol=0)  # bfloat16 holds 8 bits
    loss.sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_the_gradient_is_that_of_the_value() -> None:
    student = STUDENT.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: soft_target_loss(z, TEACHER, 2.0), (student,))


def test_the_objective_has_the_recipes_temperature() -> None:
    batch, clock = Batch((STUDENT,), None, torch.arange(2)), Clock("distill", 0, 1, 0, 1)
    for temperature, expected in ((2.0, 0.75332450), (4.0, 0.79144327)):
        values = SoftTargets(temperature)(Signals(STUDENT), Signals(TEACHER), batch, clock)
        assert values.mean().item() == pytest.approx(expected, abs=5e-9)


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\), teacher logits \(2, 2\)"):
        soft_target_loss(STUDENT, TEACHER[:, :2], 1.0)
    for temperature in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(RecipeError, match="temperature"):
            SoftTargets(temperature)
