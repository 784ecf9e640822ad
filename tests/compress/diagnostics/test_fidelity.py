"""Fidelity: the values of a small table, the batch size, the bounds."""

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.diagnostics.fidelity import Fidelity, agreement, agreement_bounds, predictive_kl

TEACHER = torch.tensor([[3.0, 1, 2], [0.5, 1.5, -0.5], [0, 0, 1], [2, 2.5, 0]], dtype=torch.float64)
STUDENT = torch.tensor([[1.0, 2, 0.5], [0, 1, 0], [0.2, 0.1, 0.9], [2.2, 2.4, 0.1]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1, 0])
LAST_DIGIT = 5e-9  # half of the last digit given


def measured(size: int, student: torch.Tensor = STUDENT, labels: torch.Tensor | None = LABELS) -> dict[str, float]:
    def answers():  # type: ignore[no-untyped-def]
        for index in torch.arange(4).split(size):
            some = None if labels is None else labels[index]
            yield Batch((student[index],), some, index), Signals(student[index]), Signals(TEACHER[index])

    return dict(Fidelity().measure(answers()))


def test_reference_values() -> None:
    expected = torch.tensor([0.66430686, 0.05380818, 0.00831643, 0.01041114], dtype=torch.float64)
    torch.testing.assert_close(predictive_kl(STUDENT, TEACHER), expected, rtol=0, atol=LAST_DIGIT)
    assert agreement(STUDENT, TEACHER).mean().item() == 0.75
    figures = measured(4)
    assert figures["agreement"] == 0.75
    assert figures["predictive_kl"] == pytest.approx(0.18421065, abs=LAST_DIGIT)
    assert figures["student_accuracy"] == 0.25
    assert figures["teacher_accuracy"] == 0.5


@pytest.mark.parametrize("size", [1, 3])
def test_the_batch_size_changes_nothing(size: int) -> None:
    assert measured(size) == pytest.approx(measured(4), rel=1e-12)  # order of float64 sums


def test_a_perfect_copy() -> None:
    figures = measured(2, TEACHER + 5.0, None)
    assert figures == {"agreement": 1.0, "predictive_kl": pytest.approx(0.0, abs=1e-12)}  # float64 rounding


def test_bounds_of_the_paper() -> None:
    assert agreement_bounds(0.75, 0.95) == pytest.approx((0.70, 0.80))
    assert agreement_bounds(0.55, 0.95) == pytest.approx((0.50, 0.60))
    assert agreement_bounds(0.1, 0.2)[0] == 0.0


def test_what_is_no_classification_gives_no_figures_and_other_shapes_are_refused() -> None:
    one = Signals(torch.zeros(2, 1))
    batch = Batch((torch.zeros(2, 1),), None, torch.arange(2))
    assert Fidelity().measure(iter([(batch, one, one)])) == {}
    assert Fidelity().measure(iter(())) == {}
    with pytest.raises(ValueError, match=r"\(2, 1\), teacher \(2, 3\)"):
        Fidelity().measure(iter([(batch, one, Signals(torch.zeros(2, 3)))]))
