"""Hinton's sum of two terms."""

import pytest
import torch
from torch.nn import functional as F

from compress.methods.vanilla_kd import METHOD
from compress.objectives.soft_targets import soft_target_loss


def test_reference_values_of_the_two_terms() -> None:
    student = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.5, -0.5]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    hard, soft = F.cross_entropy(student, labels), soft_target_loss(student, teacher, 1.0).mean()
    assert hard.item() == pytest.approx(1.93598737, abs=5e-9)  # half of the last digit given
    assert (hard + soft).item() == pytest.approx(2.59674338, abs=5e-9)


def test_gradient_is_towards_the_mixed_target() -> None:
    student = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.5, -0.5]], dtype=torch.float64)
    labels, mix = torch.tensor([0, 1]), 0.9
    loss = mix * soft_target_loss(student, teacher, 1.0).mean() + (1 - mix) * F.cross_entropy(student, labels)
    (slope,) = torch.autograd.grad(loss, student)
    target = mix * teacher.softmax(1) + (1 - mix) * F.one_hot(labels, 3).double()
    torch.testing.assert_close(slope, (student.detach().softmax(1) - target) / 2, rtol=0, atol=1e-15)  # float64


def test_weights_are_hintons() -> None:
    assert METHOD.weights == {"soft_targets": 0.9, "labels": 0.1}
