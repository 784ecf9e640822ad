"""The published value of the loss, gradients to the student alone, refusals."""

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.objectives.relations import Relations

CLOCK = Clock("distill", 0, 1, 0, 1)


def signals(**taps: Tensor) -> Signals:
    return Signals(torch.zeros(2, 3), taps=taps)


def batch() -> Batch:
    return Batch((torch.zeros(2, 1),), torch.tensor([0, 1]), torch.arange(2))


def test_the_mean_over_samples_is_the_distance_worked_by_hand() -> None:
    student = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    teacher = torch.eye(2, dtype=torch.float64)
    values = Relations("a", "b")(signals(a=student), signals(b=teacher), batch(), CLOCK)
    assert values.shape == (2,)
    assert values.mean().item() == pytest.approx(0.19923301390676826, abs=1e-12)


def test_pairs_are_averaged_whatever_their_sizes() -> None:
    torch.manual_seed(0)
    one, other, far = torch.randn(4, 3, 5, 5), torch.randn(4, 6), torch.randn(4, 9, 2)
    both = Relations(["a", "b"], ["c", "d"])(signals(a=one, b=other), signals(c=far, d=other), batch(), CLOCK)
    alone = Relations("a", "c")(signals(a=one), signals(c=far), batch(), CLOCK)
    torch.testing.assert_close(both, alone / 2)


def test_only_the_student_gets_gradient() -> None:
    student, teacher = torch.randn(4, 3, 5, 5, requires_grad=True), torch.randn(4, 6, 3, 3, requires_grad=True)
    Relations("a", "b")(signals(a=student), signals(b=teacher), batch(), CLOCK).mean().backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


@pytest.mark.parametrize(("student", "teacher"), [([], []), (["a"], ["a", "b"])])
def test_lists_that_do_not_pair_are_refused(student: list[str], teacher: list[str]) -> None:
    with pytest.raises(RecipeError, match="relations pairs"):
        Relations(student, teacher)
