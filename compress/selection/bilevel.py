"""Gradients of architecture parameters whose weights are the solution of another problem.

Source: Liu, Simonyan, Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055, section 2.3:
the second order is equations 6 to 8, the first order the same with a learning rate of 0.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DIFFERENCE = 0.01  # length of the step that the difference of equation 8 is taken over, as their footnote 2 says

Loss = Callable[[], Tensor]
"""A scalar of weights and architecture as they are at the call."""


def first_order(alpha: Tensor, weights: Sequence[Tensor], train: Loss, validation: Loss, rate: float) -> Tensor:
    """dL_val/dalpha at the present weights, in the shape of alpha. `train`, `weights` and `rate` are not used."""
    return torch.autograd.grad(validation(), alpha)[0]


def second_order(alpha: Tensor, weights: Sequence[Tensor], train: Loss, validation: Loss, rate: float) -> Tensor:
    """The gradient of L_val(w - rate * dL_train/dw, alpha) in alpha, through the step.

    The product with the second derivative is a central difference of dL_train/dalpha along dL_val/dw. Weights come back
    bit by bit as they were.

    Args:
        alpha: architecture parameters, with requires_grad.
        weights: all that `train` is minimised over.
        train, validation: scalar losses.
        rate: learning rate of the step that is looked ahead, > 0.
    """
    before = [weight.detach().clone() for weight in weights]

    def place(direction: Sequence[Tensor], length: float) -> None:
        with torch.no_grad():
            for weight, value, part in zip(weights, before, direction, strict=True):
                weight.copy_(value + length * part)

    descent = torch.autograd.grad(train(), list(weights), materialize_grads=True)
    try:
        place(descent, -rate)
        direct, *slopes = torch.autograd.grad(validation(), [alpha, *weights], materialize_grads=True)
        norm = float(sum(float(slope.double().square().sum()) for slope in slopes) ** 0.5)
        if norm == 0.0:
            return direct
        step = DIFFERENCE / norm
        place(slopes, step)
        plus = torch.autograd.grad(train(), alpha, materialize_grads=True)[0]
        place(slopes, -step)
        minus = torch.autograd.grad(train(), alpha, materialize_grads=True)[0]
    finally:
        place(before, 0.0)
    return direct - rate * (plus - minus) / (2.0 * step)
