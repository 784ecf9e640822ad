"""The divergence from a vote: values and gradients worked by hand."""

import pytest
import torch

from compress.objectives.soft_targets import soft_target_loss
from compress.objectives.votes import vote_divergence

VOTE = torch.tensor([[0.51666667, 0.4, 0.08333333]], dtype=torch.float64)


def test_value_and_gradient_equal_those_worked_by_hand() -> None:
    z = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    loss = vote_divergence(z, VOTE)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.tensor([0.12000157], dtype=torch.float64), rtol=0, atol=1e-7)
    expected = torch.tensor([[0.05945022, -0.18805844, 0.12860823]], dtype=torch.float64)
    assert z.grad is not None
    torch.testing.assert_close(z.grad, expected, rtol=0, atol=1e-7)
    assert abs(float(z.grad.sum())) < 1e-7


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_gradient_is_temperature_times_the_difference(temperature: float) -> None:
    z = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    vote = torch.softmax(torch.randn(3, 5, dtype=torch.float64), dim=1)
    vote_divergence(z, vote, temperature).sum().backward()
    torch.testing.assert_close(z.grad, temperature * (torch.softmax(z.detach() / temperature, dim=1) - vote))


def test_it_is_zero_where_student_and_vote_agree_and_never_negative() -> None:
    z = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    own = vote_divergence(z, torch.softmax(z / 2.0, dim=1), 2.0)
    own.sum().backward()
    torch.testing.assert_close(own.detach(), torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(z.grad, torch.zeros(6, 4, dtype=torch.float64))
    assert (vote_divergence(z, torch.softmax(torch.randn(6, 4).double(), dim=1)) > 0).all()


def test_votes_with_zeros_give_finite_values() -> None:
    z = torch.tensor([[2.0, 0.0, -1.0]], requires_grad=True)
    loss = vote_divergence(z, torch.tensor([[1.0, 0.0, 0.0]]))
    loss.sum().backward()
    torch.testing.assert_close(loss, -torch.log_softmax(z, dim=1)[:, 0])  # cross-entropy of a certain vote
    assert z.grad is not None
    assert torch.isfinite(z.grad).all()


def test_one_voter_is_ordinary_distillation() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    torch.testing.assert_close(
        vote_divergence(student, torch.softmax(teacher / 4.0, dim=1), 4.0), soft_target_loss(student, teacher, 4.0)
    )


def test_no_gradient_flows_into_the_vote_and_shapes_must_agree() -> None:
    vote = torch.full((2, 2), 0.5, requires_grad=True)
    vote_divergence(torch.randn(2, 2, requires_grad=True), vote).sum().backward()
    assert vote.grad is None
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        vote_divergence(torch.zeros(2, 3), vote)
