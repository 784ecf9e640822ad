"""How sure the teacher is of the label, by hand."""

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
from compress.objectives.adaptive_ratio import AdaptiveRatio, margin_ratio
from compress.similarity import soft_target_loss

CLOCK = Clock("distill", 0, 1, 0, 1)
TEACHER = torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [1 / 3, 1 / 3, 1 / 3]]).log()


def test_ratio_by_hand() -> None:
    labels = torch.tensor([0, 0, 2])  # 0.8 - 0.2 / 2; 0.2 - 0.8 / 2 < 0; no better than chance
    torch.testing.assert_close(margin_ratio(TEACHER, labels), torch.tensor([0.7, 0.0, 0.0]), atol=1e-6, rtol=0)
    assert margin_ratio(torch.tensor([[200.0, 0.0]]), torch.tensor([0])).item() == 1.0
    assert not margin_ratio(TEACHER.clone().requires_grad_(), labels).requires_grad


def test_mixes_both_terms_by_it() -> None:
    torch.manual_seed(0)
    student, labels = torch.randn(3, 3, requires_grad=True), torch.tensor([0, 0, 2])
    empty = TensorExamples(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), "none")
    signals = Signals(student)
    objective = AdaptiveRatio(temperature=2.0)
    objective.prepare(
        Preparation(
            Splits(empty, empty, empty),
            lambda split: iter(()),
            signals,
            signals,
            3,
            0,
            lambda z, y: F.cross_entropy(z, y, reduction="none"),
        )
    )
    values = objective(signals, Signals(TEACHER), Batch((student,), labels, torch.arange(3)), CLOCK)
    soft, hard = soft_target_loss(student, TEACHER, 2.0), F.cross_entropy(student, labels, reduction="none")
    expected = torch.stack([0.7 * soft[0] + 0.3 * hard[0], hard[1], hard[2]])
    torch.testing.assert_close(values, expected)


def test_refusals() -> None:
    with pytest.raises(RecipeError, match="temperature"):
        AdaptiveRatio(temperature=math.nan)
    unlabelled = Batch((TEACHER,), None, torch.arange(3))
    with pytest.raises(TaskError, match="without labels"):
        AdaptiveRatio().ratio(Signals(TEACHER), Signals(TEACHER), unlabelled)
