"""Values worked by hand, the full form, invariances, gradients, refusals."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.similarity import (
    class_relation_distance,
    classifier_gradient,
    relation_distance,
    relation_rows,
    semantic_distance,
    semantic_rows,
)

ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def values(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(size: int) -> Tensor:
    return torch.linalg.qr(normal(size, size, seed=9)).Q


def full_semantic_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """The same by D x D matrices, as the paper writes it."""
    classes, width = student.shape
    outer = [F.normalize(g[:, :, None] * g[:, None, :], dim=2) for g in (student, teacher)]
    return (outer[0] - outer[1]).square().sum() / (classes * width)


@pytest.mark.parametrize(
    ("teacher", "student", "expected"),
    [
        (((1, 0), (0, 1)), ((1, 0), (1, 1)), 0.19923301390676826),
        (((1, 2, 3), (0, 1, 1)), ((1, 0), (1, 1)), 0.17442642121140078),
    ],
)
def test_relation_distances_worked_by_hand(teacher: object, student: object, expected: float) -> None:
    one, other = (torch.tensor(rows, dtype=torch.float64) for rows in (student, teacher))
    torch.testing.assert_close(relation_distance(one, other).item(), expected, **ROUNDING)
    torch.testing.assert_close(relation_rows(one, other).mean().item(), expected, **ROUNDING)


def test_semantic_distances_worked_by_hand() -> None:
    assert semantic_distance(values((4, 3)), values((3, 4))).item() == pytest.approx(0.08, abs=1e-12)
    assert semantic_distance(values((-3, -4)), values((3, 4))).item() == pytest.approx(0.0, abs=1e-15)
    teacher, student = values((3, 4), (1, -2)), values((-4, 3), (2, -1))
    assert semantic_distance(student, teacher).item() == pytest.approx(1.2, abs=1e-12)
    assert full_semantic_distance(student, teacher).item() == pytest.approx(1.2, abs=1e-12)


def test_the_closed_form_is_the_full_form_also_where_channels_are_silent() -> None:
    student, teacher = normal(5, 7, seed=1), normal(5, 7, seed=2)
    student[:, 2], teacher[:, 4], teacher[3] = 0.0, 0.0, 0.0
    student[1, :5] = 0.0
    torch.testing.assert_close(
        semantic_distance(student, teacher), full_semantic_distance(student, teacher), **ROUNDING
    )


def test_the_classifier_gradient_worked_by_hand_and_by_autograd() -> None:
    inputs, labels = values((1, 2), (0, 1)), torch.tensor([0, 2])
    weight = values((1, 0), (0, 1), (0, 0)).requires_grad_()
    logits = inputs @ weight.T
    found = classifier_gradient(logits.detach(), inputs, labels)
    expected = values((-0.377636, -0.649301), (0.332620, 0.953299), (0.045015, -0.303999))
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-7)
    F.cross_entropy(logits, labels).backward()
    torch.testing.assert_close(found, weight.grad, **ROUNDING)
    torch.testing.assert_close(found.sum(dim=0), torch.zeros(2, dtype=torch.float64), **ROUNDING)


def test_relations_do_not_feel_factors_rotations_or_the_order_of_samples() -> None:
    student, teacher = normal(6, 4, 3, seed=1), normal(6, 5, seed=2)
    expected = relation_distance(student, teacher)
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    turned = student.flatten(1) @ rotation(12)
    for one, other in [
        (-7.5 * student, teacher),
        (student, 1e-9 * teacher),
        (turned, teacher),
        (student, teacher @ rotation(5)),
        (student[order], teacher[order]),
        (teacher, student),
    ]:
        torch.testing.assert_close(relation_distance(one, other), expected, **ROUNDING)
    assert not torch.isclose(relation_distance(student[order], teacher), expected)
    assert relation_distance(student, student) == 0


def test_semantics_do_not_feel_a_factor_per_class() -> None:
    student, teacher = normal(4, 6, seed=1), normal(4, 6, seed=2)
    factors = torch.tensor([[2.0], [-0.5], [1e-9], [-30.0]], dtype=torch.float64)
    expected = semantic_distance(student, teacher)
    torch.testing.assert_close(semantic_distance(student * factors, teacher), expected, **ROUNDING)
    torch.testing.assert_close(semantic_distance(student, teacher * factors), expected, **ROUNDING)
    assert semantic_distance(teacher * factors, teacher).item() == pytest.approx(0.0, abs=1e-15)


def test_distances_stay_in_their_range() -> None:
    for seed in range(20):
        student, teacher = normal(8, 5, seed=seed), normal(8, 5, seed=seed + 100)
        assert 0 <= relation_distance(student, teacher) <= 4 / 8
        assert (semantic_rows(student, teacher) >= 0).all()
        assert (semantic_rows(student, teacher) <= 4).all()


def test_large_features_in_single_precision_do_not_overflow() -> None:
    student, teacher = normal(6, 4, seed=1).float(), normal(6, 5, seed=2).float()
    expected = relation_distance(student, teacher)
    torch.testing.assert_close(relation_distance(1e25 * student, 1e25 * teacher), expected, rtol=1e-5, atol=1e-6)


def test_tiny_gradients_in_single_precision_do_not_vanish() -> None:
    student, teacher = normal(4, 6, seed=1).float(), normal(4, 6, seed=2).float()
    expected = semantic_distance(student, teacher)
    torch.testing.assert_close(semantic_distance(1e-30 * student, 1e-34 * teacher), expected, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    student, teacher = normal(4, 3, seed=1).requires_grad_(), normal(4, 3, seed=2)
    assert torch.autograd.gradcheck(lambda s: relation_rows(s, teacher), (student,))
    assert torch.autograd.gradcheck(lambda s: semantic_rows(s, teacher), (student,))


def test_classifiers_of_different_width_are_refused_and_compare_by_classes() -> None:
    student, teacher = normal(4, 3, seed=1), normal(4, 6, seed=2)
    with pytest.raises(ValueError, match=r"one width.*\(4, 3\).*\(4, 6\)"):
        semantic_distance(student, teacher)
    assert 0 < class_relation_distance(student, teacher) <= 1
    assert class_relation_distance(student, student @ rotation(3)).item() == pytest.approx(0.0, abs=1e-15)


def test_other_samples_classes_and_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="student features"):
        relation_distance(normal(4, 3), normal(5, 3))
    with pytest.raises(ValueError, match="student features"):
        relation_distance(normal(4), normal(4))
    with pytest.raises(ValueError, match="labels -1 to 2 for 3 classes"):
        classifier_gradient(normal(2, 3), normal(2, 4), torch.tensor([-1, 2]))
    with pytest.raises(ValueError, match="classifier inputs"):
        classifier_gradient(normal(2, 3), normal(3, 4), torch.tensor([0, 2]))
