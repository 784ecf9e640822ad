"""DIST: correlations by hand and what they do not see."""

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.objectives.correlations import BetweenClasses, BetweenExamples, pearson_distance

CLOCK = Clock("distill", 0, 10, 0, 1)
BATCH = Batch((torch.zeros(4, 1),), None, torch.arange(4))


def logits(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand() -> None:
    a = torch.tensor([[1.0, 2.0, 3.0]])
    assert pearson_distance(a, torch.tensor([[2.0, 4.0, 6.0]]), dim=1).item() == pytest.approx(0.0, abs=1e-6)
    assert pearson_distance(a, torch.tensor([[3.0, 2.0, 1.0]]), dim=1).item() == pytest.approx(2.0, abs=1e-6)
    # deviations (-1, 0, 1) and (-1, 1, 0): 1 / 2
    assert pearson_distance(a, torch.tensor([[0.0, 2.0, 1.0]]), dim=1).item() == pytest.approx(0.5, abs=1e-6)
    assert pearson_distance(a, torch.ones(1, 3), dim=1).item() == 1.0


def test_the_two_terms_are_rows_and_columns_of_the_probabilities() -> None:
    student, teacher = logits(0), logits(1)
    p, q = (student / 2).softmax(1), (teacher / 2).softmax(1)
    rows = torch.stack([1 - torch.corrcoef(torch.stack([p[i], q[i]]))[0, 1] for i in range(4)])
    columns = torch.stack([1 - torch.corrcoef(torch.stack([p[:, j], q[:, j]]))[0, 1] for j in range(3)])
    found = BetweenClasses(2.0)(Signals(student), Signals(teacher), BATCH, CLOCK)
    torch.testing.assert_close(found, 4 * rows)
    found = BetweenExamples(2.0)(Signals(student), Signals(teacher), BATCH, CLOCK)
    torch.testing.assert_close(found, 4 * columns)


def test_a_copy_is_at_distance_zero() -> None:
    for term in (BetweenClasses(), BetweenExamples()):
        values = term(Signals(logits(2)), Signals(logits(2) + 3.0), BATCH, CLOCK)
        torch.testing.assert_close(values, torch.zeros_like(values), rtol=0, atol=1e-12)


def test_refusals() -> None:
    for make in (BetweenClasses, BetweenExamples):
        with pytest.raises(RecipeError, match="temperature -1"):
            make(temperature=-1.0)
    with pytest.raises(ValueError, match="teacher"):
        BetweenClasses()(Signals(torch.zeros(4, 3)), Signals(torch.zeros(4, 2)), BATCH, CLOCK)
