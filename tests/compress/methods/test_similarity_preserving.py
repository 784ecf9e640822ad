"""Similarity-preserving distillation: hand-worked values and what must not change them."""

import math

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.contracts.stages import stages
from compress.errors import RecipeError
from compress.methods.similarity_preserving import METHOD, Similarity
from compress.objectives.labels import Labels

BATCH, CLOCK = (
    Batch((torch.zeros(2, 1),), torch.zeros(2, dtype=torch.int64), torch.arange(2)),
    Clock("distill", 0, 1, 0, 1),
)


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """The objective with one pair of layers."""
    ours, theirs = Signals(torch.zeros(1), taps={"a": student}), Signals(torch.zeros(1), taps={"b": teacher})
    return Similarity("a", "b")(ours, theirs, BATCH, CLOCK)


def pair(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(count, 5, 2, generator=generator, dtype=torch.float64)
    return student, torch.randn(count, 7, generator=generator, dtype=torch.float64)


def test_orthogonal_samples_against_equal_ones() -> None:
    # identity against rows (1, 1) / sqrt 2: each row differs by (1 - 1/sqrt 2)^2 + 1/2 = 2 - sqrt 2
    loss = similarity_loss(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    torch.testing.assert_close(loss, torch.full((2,), (2.0 - math.sqrt(2.0)) / 2))


def test_one_value_for_each_row() -> None:
    # identity against products [[9, 12], [12, 16]], rows of length 15 and 20, hence (0.6, 0.8) twice:
    # 0.16 + 0.64 and 0.36 + 0.04, each over 2 samples
    loss = similarity_loss(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]), torch.tensor([[3.0], [4.0]]))
    torch.testing.assert_close(loss, torch.tensor([0.4, 0.2]))


def test_the_sign_of_a_similarity_counts() -> None:
    # rows (0.8, -0.6), (-0.8, 0.6) against (0.6, 0.8), (0.6, 0.8): 0.04 + 1.96 and 1.96 + 0.04
    loss = similarity_loss(torch.tensor([[4.0], [-3.0]]), torch.tensor([[3.0], [4.0]]))
    torch.testing.assert_close(loss, torch.tensor([1.0, 1.0]))


def test_the_mean_is_the_squared_norm_over_the_squared_batch_size() -> None:
    student, teacher = pair()
    total = 0.0
    for i in range(6):
        rows = []
        for features in (student, teacher):
            products = [float((features[i] * features[j]).sum()) for j in range(6)]
            rows.append([product / math.hypot(*products) for product in products])
        total += sum((ours - theirs) ** 2 for ours, theirs in zip(*rows, strict=True))
    assert float(similarity_loss(student, teacher).mean()) == pytest.approx(total / 36, rel=1e-12)


def test_rotated_features_give_the_same() -> None:
    student, teacher = pair()
    rotation, _ = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64))
    rotated = (student.flatten(1) @ rotation).reshape(student.shape)
    torch.testing.assert_close(similarity_loss(rotated, teacher), similarity_loss(student, teacher))


@pytest.mark.parametrize("factor", [-1.0, 0.01, 30.0])
def test_scaled_features_of_one_network_give_the_same(factor: float) -> None:
    student, teacher = pair()
    expected = similarity_loss(student, teacher)
    torch.testing.assert_close(similarity_loss(factor * student, teacher), expected)
    torch.testing.assert_close(similarity_loss(student, factor * teacher), expected)


def test_permuted_samples_give_permuted_values() -> None:
    student, teacher = pair()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(
        similarity_loss(student[order], teacher[order]), similarity_loss(student, teacher)[order]
    )
    assert not torch.allclose(similarity_loss(student[order], teacher), similarity_loss(student, teacher)[order])


def test_zero_where_the_student_is_the_teacher() -> None:
    student, _ = pair()
    assert torch.equal(similarity_loss(student, student), torch.zeros(6, dtype=torch.float64))


def test_a_batch_of_one_says_nothing() -> None:
    student, teacher = torch.randn(1, 3, requires_grad=True), torch.randn(1, 8, 4, 4)
    loss = similarity_loss(student, teacher)
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.zeros(1))
    torch.testing.assert_close(student.grad, torch.zeros(1, 3))


def test_a_dead_sample_keeps_values_and_gradients_finite() -> None:
    student = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    loss = similarity_loss(student, torch.eye(2))
    loss.sum().backward()
    # rows (0, 0), (0, 1) against (1, 0), (0, 1)
    torch.testing.assert_close(loss, torch.tensor([0.5, 0.0]))
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_widths_and_dimensions_may_differ() -> None:
    assert similarity_loss(torch.randn(4, 3, 8, 8), torch.randn(4, 16, 2, 2)).shape == (4,)
    assert similarity_loss(torch.randn(4, 3), torch.randn(4, 16, 2)).shape == (4,)


def test_the_gradient_is_right_and_reaches_the_student_alone() -> None:
    student, teacher = (features.requires_grad_() for features in pair(3))
    similarity_loss(student, teacher).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert torch.autograd.gradcheck(lambda features: similarity_loss(features, teacher.detach()), (student,))


@pytest.mark.parametrize(("student", "teacher"), [((2, 3), (3, 3)), ((2,), (2, 3)), ((2, 3), (2,))])
def test_refuses_what_cannot_be_compared(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="features"):
        similarity_loss(torch.ones(student), torch.ones(teacher))


def test_pairs_are_summed() -> None:
    eye, column = torch.eye(2), torch.tensor([[3.0], [4.0]])
    equal = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    student = Signals(torch.zeros(2, 3), taps={"a": eye, "b": eye})
    teacher = Signals(torch.zeros(2, 3), taps={"c": column, "d": equal})
    values = Similarity(("a", "b"), ("c", "d"))(student, teacher, BATCH, CLOCK)
    torch.testing.assert_close(values, torch.tensor([0.4, 0.2]) + (2.0 - math.sqrt(2.0)) / 2)


def test_a_single_name_is_one_pair() -> None:
    objective = Similarity("a", "c")
    assert (objective.student_taps, objective.teacher_taps) == (("a",), ("c",))


@pytest.mark.parametrize(("student", "teacher"), [((), ()), (("a", "b"), ("c",))])
def test_refuses_lists_that_do_not_pair(student: tuple[str, ...], teacher: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError, match="pairs"):
        Similarity(student, teacher)


def test_pairs_the_last_stages_with_the_published_weight() -> None:
    objective = Similarity()
    assert objective.student_taps == objective.teacher_taps == stages(1)
    assert dict(METHOD.objectives) == {"similarity": Similarity, "labels": Labels}
    assert dict(METHOD.weights) == {"similarity": 3000.0}
