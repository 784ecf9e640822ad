"""The concordance coefficient by hand, what must not change it, and what it refuses."""

import pytest
import torch
from torch import Tensor

from compress.coefficients import concordance, concordance_of, concordance_sums
from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.objectives.concordance import Concordance

X = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
Y = torch.tensor([[1.1], [1.9], [3.2], [3.8]], dtype=torch.float64)
CLOCK = Clock("distill", 9, 10, 0, 1)  # the last step of an epoch


def loss(objective: Concordance, student: Tensor, teacher: Tensor) -> Tensor:
    batch = Batch((student,), None, torch.arange(len(student)))
    return objective(Signals(student), Signals(teacher), batch, CLOCK)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Y, 0.9894736842),
        (X + 1, 0.7142857143),
        (2 * X, 0.4),
        (X.flip(0), -1.0),
        (torch.full_like(X, 7.0), 0.0),
        (X, 1.0),
    ],
)
def test_values_worked_by_hand(other: Tensor, expected: float) -> None:
    assert float(concordance(X, other)) == pytest.approx(expected, abs=1e-8)
    assert float(concordance(other, X)) == pytest.approx(expected, abs=1e-8)
    assert float(concordance_of(concordance_sums(X, other).sum(dim=0), 4)) == pytest.approx(expected, abs=1e-10)


def test_the_gradient_worked_by_hand() -> None:
    student = Y.clone().requires_grad_()
    loss(Concordance(fewest=4), student, X).sum().backward()
    expected = torch.tensor([0.02415512, -0.01972299, 0.04055402, -0.04498615], dtype=torch.float64)
    torch.testing.assert_close(student.grad[:, 0], expected, atol=1e-8, rtol=0)


def test_the_same_affine_map_of_both_changes_nothing() -> None:
    assert float(concordance(3 * X - 5, 3 * Y - 5)) == pytest.approx(0.9894736842, abs=1e-8)


def test_outputs_are_averaged_and_the_squared_error_is_added() -> None:
    student, teacher = torch.cat([X, X], dim=1).repeat(2, 1), torch.cat([Y, X + 1], dim=1).repeat(2, 1)
    expected = 1 - (0.9894736842 + 0.7142857143) / 2
    assert loss(Concordance(), student, teacher).shape == (1,)
    assert float(loss(Concordance(), student, teacher)) == pytest.approx(expected, abs=1e-8)
    squares = (0.01 + 0.01 + 0.04 + 0.04 + 4) / 8
    assert float(loss(Concordance(squared_error=0.5), student, teacher)) == pytest.approx(
        expected + 0.5 * squares, abs=1e-8
    )


def test_two_constants_are_finite_and_few_examples_teach_nothing() -> None:
    constant = torch.ones(8, 2, requires_grad=True)
    value = loss(Concordance(), constant, torch.ones(8, 2))
    value.sum().backward()
    assert float(value.detach()) == 1.0
    assert torch.isfinite(constant.grad).all()
    few = X.clone().requires_grad_()
    value = loss(Concordance(), few, Y)
    value.sum().backward()
    assert float(value.detach()) == 0.0
    assert torch.all(few.grad == 0)
    assert torch.equal(
        concordance_of(concordance_sums(torch.ones(4, 1), torch.ones(4, 1)).sum(dim=0), 4), torch.zeros(1)
    )


def test_the_teacher_gets_no_gradient() -> None:
    teacher = torch.randn(8, 3, requires_grad=True)
    loss(Concordance(squared_error=1.0), torch.randn(8, 3, requires_grad=True), teacher).sum().backward()
    assert teacher.grad is None


def test_batches_that_are_all_too_small_are_refused_instead_of_teaching_nothing() -> None:
    batch = Batch((X,), None, torch.arange(4))
    with pytest.raises(RecipeError, match="met a batch of 4, and looks at 8") as refused:
        Concordance()(Signals(X), Signals(Y), batch, Clock("distill", 0, 10, 0, 1))
    assert "distill.batch_size" in refused.value.fix


def test_gradients_are_those_of_the_coefficient() -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(8, 2, dtype=torch.float64) for _ in range(2))
    assert torch.autograd.gradcheck(
        lambda p: loss(Concordance(squared_error=0.3), p, teacher), [student.requires_grad_()]
    )


def test_sums_are_exact_far_from_zero() -> None:
    """In float32 the squares of 1,000 leave nothing of a variance of 1."""
    far = concordance_of(concordance_sums((X + 1000).float(), (X + 1001).float()).sum(dim=0), 4)
    assert float(far) == pytest.approx(0.7142857143, abs=1e-6)


def test_a_teacher_that_always_says_the_same_gives_a_loss_of_one_and_no_gradient() -> None:
    student = torch.randn(16, 3, requires_grad=True)
    value = loss(Concordance(), student, torch.full((16, 3), 0.4))
    value.sum().backward()
    assert float(value.detach()) == pytest.approx(1.0, abs=1e-6)
    assert student.grad is not None
    assert float(student.grad.abs().max()) < 1e-6


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="squared_error"):
        Concordance(squared_error=-1.0)
    with pytest.raises(RecipeError, match="fewest"):
        Concordance(fewest=1)
    with pytest.raises(ValueError, match="shapes"):
        concordance(X, Y[:3])
