"""Who knows the label better, by hand."""

import math

import pytest
import torch
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.errors import RecipeError, TaskError
from compress.objectives.weighted_soft_labels import WeightedSoftLabels, relative_ratio
from compress.similarity import soft_target_loss

CLOCK = Clock("distill", 0, 1, 0, 1)
STUDENT, TEACHER = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log(), torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
LABELS = torch.tensor([0, 1])
RATIOS = torch.tensor([1 - math.exp(-2.0), 1 - math.exp(-1.0)])  # ln 4 / ln 2 = 2; equally good


def test_ratio_by_hand() -> None:
    torch.testing.assert_close(relative_ratio(STUDENT, TEACHER, LABELS), RATIOS)
    both = [logits.clone().requires_grad_() for logits in (STUDENT, TEACHER)]
    assert not relative_ratio(*both, LABELS).requires_grad


def test_a_certain_teacher_is_divided_by() -> None:
    certain = torch.tensor([[200.0, 0.0], [0.0, 200.0]])
    assert relative_ratio(STUDENT, certain, LABELS).tolist() == [1.0, 1.0]
    assert torch.isfinite(relative_ratio(certain, certain, LABELS)).all()


def test_mixes_both_terms_by_it_and_lets_no_gradient_through_it() -> None:
    student = STUDENT.clone().requires_grad_()
    empty = TensorExamples(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), "none")
    signals = Signals(student)
    objective = WeightedSoftLabels(temperature=2.0)
    objective.prepare(
        Preparation(
            Splits(empty, empty, empty),
            lambda split: iter(()),
            signals,
            signals,
            2,
            0,
            lambda z, y: F.cross_entropy(z, y, reduction="none"),
        )
    )
    objective(signals, Signals(TEACHER), Batch((student,), LABELS, torch.arange(2)), CLOCK).sum().backward()
    soft, hard = soft_target_loss(student, TEACHER, 2.0), F.cross_entropy(student, LABELS, reduction="none")
    (expected,) = torch.autograd.grad((RATIOS * soft + (1 - RATIOS) * hard).sum(), student)
    torch.testing.assert_close(student.grad, expected)


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="temperature"):
        WeightedSoftLabels(temperature=0.0)
    with pytest.raises(TaskError, match="without labels"):
        WeightedSoftLabels().ratio(Signals(STUDENT), Signals(TEACHER), Batch((STUDENT,), None, LABELS))
