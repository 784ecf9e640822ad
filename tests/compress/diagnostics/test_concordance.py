"""Whose numbers agree with whose, over a whole set."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.diagnostics.concordance import ConcordanceWithTeacher

X = torch.tensor([1.0, 2.0, 3.0, 4.0])
STUDENT = torch.stack([X, X], dim=1)
TEACHER = torch.stack([torch.tensor([1.1, 1.9, 3.2, 3.8]), X + 1], dim=1)  # coefficients 0.9894736842, 0.7142857143
LABELS = torch.stack([X.flip(0), 2 * X], dim=1)  # -1 and 0.4 with the student


def answers(labels: Tensor | None, cut: int) -> Iterator[tuple[Batch, Signals, Signals]]:
    for index in torch.split(torch.arange(4), cut):
        given = None if labels is None else labels[index]
        yield Batch((X[index],), given, index), Signals(STUDENT[index]), Signals(TEACHER[index])


@pytest.mark.parametrize("cut", [1, 3, 4])
def test_coefficients_are_of_the_whole_set(cut: int) -> None:
    found = ConcordanceWithTeacher().measure(answers(LABELS, cut))
    assert found["student and teacher"] == pytest.approx((0.9894736842 + 0.7142857143) / 2, abs=1e-6)
    assert found["student and teacher, least of outputs"] == pytest.approx(0.7142857143, abs=1e-6)
    assert found["student and labels"] == pytest.approx((-1 + 0.4) / 2, abs=1e-6)
    assert found["teacher and labels"] < found["student and teacher"]


def test_labels_that_are_no_such_numbers_are_left_out() -> None:
    for labels in (None, torch.zeros(4, dtype=torch.int64), torch.zeros(4)):
        assert set(ConcordanceWithTeacher().measure(answers(labels, 2))) == {
            "student and teacher",
            "student and teacher, least of outputs",
        }


def test_answers_that_are_no_rows_of_numbers_have_no_figures() -> None:
    one = torch.zeros(2, 3, 4)
    assert (
        ConcordanceWithTeacher().measure(iter([(Batch((one,), None, X[:2].long()), Signals(one), Signals(one))])) == {}
    )
    assert ConcordanceWithTeacher().measure(iter([])) == {}
