"""Whether a teacher backs the labels, by hand."""

import math

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.diagnostics.true_class import TrueClass


def test_by_hand_in_two_batches() -> None:
    logits = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0], [0.0, 0.0]])
    labels = torch.tensor([0, 1, 1])

    def answers():  # type: ignore[no-untyped-def]
        for index in torch.arange(3).split(2):
            signals = Signals(logits[index])
            yield Batch((logits[index],), labels[index], index), signals, signals

    figures = TrueClass().measure(answers())
    assert figures["true_class_probability"] == pytest.approx((0.75 + 0.25 + 0.5) / 3, abs=1e-7)
    assert figures["true_class_improbable"] == pytest.approx(1 / 3)


def test_looks_at_the_labels_that_the_loss_weighs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of training examples, and of enough of them: the third batch is never asked for."""
    assert TrueClass.stream == "train"
    monkeypatch.setattr("compress.diagnostics.true_class.SEEN", 4)
    logits, asked = torch.tensor([[math.log(3.0), 0.0]] * 2), 0

    def answers():  # type: ignore[no-untyped-def]
        nonlocal asked
        for labels in ((0, 0), (1, 1), (1, 1)):
            asked += 1
            signals = Signals(logits)
            yield Batch((logits,), torch.tensor(labels), torch.arange(2)), signals, signals

    assert TrueClass().measure(answers())["true_class_probability"] == pytest.approx(0.5)
    assert asked == 2


def test_without_class_labels_there_is_nothing_to_say() -> None:
    signals = Signals(torch.zeros(2, 3))
    for labels in (None, torch.zeros(2, 4)):
        batch = Batch((torch.zeros(2, 3),), labels, torch.arange(2))
        assert TrueClass().measure(iter([(batch, signals, signals)])) == {}
    assert TrueClass().measure(iter(())) == {}
