"""Architecture gradients against autograd and against differences on a problem of two numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compress.selection.bilevel import first_order, second_order

RATE = 0.1


class Two:
    """One weight, one architecture parameter, losses in which they meet."""

    def __init__(self, w: float = 0.7, a: float = -0.4) -> None:
        self.w = torch.tensor([w], dtype=torch.float64, requires_grad=True)
        self.a = torch.tensor([a], dtype=torch.float64, requires_grad=True)

    def train(self) -> Tensor:
        return ((self.w * self.a).sin() + 0.5 * self.w**2 + self.w * self.a**2).sum()

    def validation(self) -> Tensor:
        return ((self.w - 1.0) ** 2 * (1.0 + self.a**2) + 0.3 * self.a).sum()

    def after_a_step(self, a: float) -> float:
        """L_val(w - rate dL_train/dw (w, a), a), by autograd for the inner step alone."""
        problem = Two(self.w.item(), a)
        (slope,) = torch.autograd.grad(problem.train(), problem.w)
        with torch.no_grad():
            problem.w -= RATE * slope
            return problem.validation().item()


def gradient(of: Callable[..., Tensor], problem: Two) -> float:
    return float(of(problem.a, [problem.w], problem.train, problem.validation, RATE))


def test_first_order_is_autograd_on_the_validation_loss() -> None:
    problem = Two()
    expected = 2 * (0.7 - 1.0) ** 2 * -0.4 + 0.3
    assert gradient(first_order, problem) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("w", "a"), [(0.7, -0.4), (1.3, 0.2), (-0.5, 0.9)])
def test_second_order_equals_a_difference_through_the_inner_step(w: float, a: float) -> None:
    problem = Two(w, a)
    by_difference = (problem.after_a_step(a + 1e-5) - problem.after_a_step(a - 1e-5)) / 2e-5
    assert gradient(second_order, problem) == pytest.approx(by_difference, abs=1e-3)
    assert abs(gradient(first_order, problem) - by_difference) > 1e-2  # so the test tells them apart
    assert problem.w.item() == w  # bit by bit


def test_second_order_with_no_slope_left_is_the_direct_part() -> None:
    problem = Two()
    free = problem.a.sum
    assert float(second_order(problem.a, [problem.w], problem.train, free, RATE)) == 1.0


def test_weights_come_back_where_a_loss_fails() -> None:
    problem = Two()

    def fails() -> Tensor:
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        second_order(problem.a, [problem.w], problem.train, fails, RATE)
    assert problem.w.item() == 0.7
