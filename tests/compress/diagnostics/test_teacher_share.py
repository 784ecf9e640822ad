"""Mean ratios by group, by hand."""

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.diagnostics import teacher_share
from compress.diagnostics.teacher_share import TeacherShare, share_by_group
from compress.objectives.adaptive_ratio import AdaptiveRatio, margin_ratio
from compress.objectives.labels import Labels


def rows() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eight samples whose edges grow with their place; the teacher says class 0, and every other label is 1."""
    ours = torch.stack([torch.linspace(4.0, -3.0, 8), torch.zeros(8)], dim=1)
    theirs = torch.tensor([[5.0, 0.0]]).expand(8, 2)
    labels = torch.tensor([0, 1, 0, 1, 0, 1, 0, 1])
    return torch.tensor([0.9, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6, 0.4]), ours, theirs, labels


def test_by_hand() -> None:
    figures = share_by_group(*rows())
    assert figures["teacher_share"] == pytest.approx(0.5)
    assert figures["teacher_share_confirming"] == pytest.approx(0.75)
    assert figures["teacher_share_contradicting"] == pytest.approx(0.25)
    assert figures["contradicted_labels"] == pytest.approx(0.5)
    shown = [figures[f"teacher_share_confirming_{name}"] for name in ("nearest", "second", "third", "farthest")]
    assert shown == pytest.approx([0.9, 0.8, 0.7, 0.6])
    shown = [figures[f"teacher_share_contradicting_{name}"] for name in ("nearest", "second", "third", "farthest")]
    assert shown == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_order_of_samples_does_not_matter_and_empty_groups_are_left_out() -> None:
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    assert share_by_group(*(row[order] for row in rows())) == pytest.approx(share_by_group(*rows()))
    ratio, ours, theirs, labels = rows()
    assert not any("contradicting" in name for name in share_by_group(ratio, ours, theirs, labels * 0))


def test_asks_the_objective_that_has_a_ratio_whatever_the_batches() -> None:
    _, ours, theirs, labels = rows()
    batches = [
        (Batch((ours[cut],), labels[cut], torch.arange(8)[cut]), Signals(ours[cut]), Signals(theirs[cut]))
        for cut in (slice(0, 3), slice(3, 8))
    ]
    diagnostic = TeacherShare()
    assert diagnostic.measure(iter(batches)) == {}  # nobody has said what the student was trained by
    diagnostic.learned([Labels()])
    assert diagnostic.measure(iter(batches)) == {}
    diagnostic.learned([Labels(), AdaptiveRatio()])
    expected = share_by_group(margin_ratio(theirs, labels), ours, theirs, labels)
    assert diagnostic.measure(iter(batches)) == pytest.approx(expected)


def test_without_class_labels_there_is_nothing_to_say() -> None:
    _, ours, theirs, _ = rows()
    diagnostic = TeacherShare()
    diagnostic.learned([AdaptiveRatio()])
    assert diagnostic.measure(iter([(Batch((ours,), None, torch.arange(8)), Signals(ours), Signals(theirs))])) == {}


def test_looks_at_the_first_training_examples_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher_share, "SEEN", 8)
    _, ours, theirs, labels = rows()
    batch = (Batch((ours,), labels, torch.arange(8)), Signals(ours), Signals(theirs))
    answers = iter([batch, batch])
    diagnostic = TeacherShare()
    diagnostic.learned([AdaptiveRatio()])
    assert diagnostic.measure(answers)
    assert len(list(answers)) == 1
    assert TeacherShare.stream == "train"
