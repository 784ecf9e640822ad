"""Metrics that are no mean over examples, and those that are."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.metric import Metric, read_metric
from compress.contracts.task import Task
from compress.errors import TaskError
from compress.tally import Tally, difference, linearised, metric, metric_of, shown, shown_gap, total
from compress.training.evaluate import evaluate


class Numbers(Task):
    """A toy."""

    name = "numbers"
    labels = ("value",)
    input_shape = (1,)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Identity()


class Concordance(Numbers):
    """Lin's coefficient of all examples together, from five sums."""

    metric = "concordance"

    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        p, t = output.flatten(1).double(), labels.flatten(1).double()
        return torch.cat([p, t, p * p, t * t, p * t], dim=1)

    def total(self, sums: Tensor, count: int) -> float:
        p, t, pp, tt, pt = (sums / count).tolist()
        return 2 * (pt - p * t) / (pp - p * p + tt - t * t + (p - t) ** 2)


LABELS = torch.tensor([[1.1], [1.9], [3.2], [3.8]])
OUTPUT = torch.tensor([[1.0], [2.0], [3.0], [4.0]])


def test_a_metric_of_the_whole_set_by_hand() -> None:
    assert metric(Concordance(), OUTPUT, LABELS) == pytest.approx(0.9894736842, abs=1e-7)


@pytest.mark.parametrize("cut", [1, 2, 3, 4])
def test_it_does_not_depend_on_how_the_set_is_cut(cut: int) -> None:
    found = Tally(Concordance())
    for output, labels in zip(OUTPUT.split(cut), LABELS.split(cut), strict=True):
        found.add(output, labels)
    assert found.value() == pytest.approx(0.9894736842, abs=1e-7)  # float32 labels
    examples = TensorExamples(OUTPUT, LABELS, "x")
    assert evaluate(nn.Identity(), examples, Concordance(), batch_size=cut).score == pytest.approx(
        0.9894736842, abs=1e-7
    )


def test_a_mean_of_batch_figures_would_be_another_number() -> None:
    halves = [metric(Concordance(), o, t) for o, t in zip(OUTPUT.split(2), LABELS.split(2), strict=True)]
    assert sum(halves) / 2 < 0.95


def test_accuracy_is_a_mean() -> None:
    logits, labels = torch.eye(4), torch.tensor([0, 1, 2, 0])
    assert metric(Numbers(), logits, labels) == 0.75


def test_a_fraction_is_said_in_percent_and_a_coefficient_as_it_is() -> None:
    class Coefficient(Concordance):
        metric_unit = ""

    assert (shown(Numbers(), 0.912), shown_gap(Numbers(), 0.012)) == ("91.20 %", "1.20 points")
    assert (shown(Coefficient(), 0.912), shown_gap(Coefficient(), 0.012)) == ("0.912", "0.012")
    assert metric_of(Numbers()).value(0.912, 0.004) == "91.20 ± 0.4 %"
    assert metric_of(Coefficient()).value(-0.0912, 0.004) == "-0.091 ± 0.004"
    assert (read_metric({}), read_metric({"metric": "r", "metric_unit": ""})) == (Metric("score", "%"), Metric("r", ""))


def test_differences_of_two_metrics_and_their_errors() -> None:
    right, wrong = torch.tensor([1.0, 1.0, 1.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    value, error = difference(Numbers(), right, wrong)  # differences 0, 1, 1, 0: s / sqrt(4), s^2 = 1/3
    assert (value, error) == (0.5, pytest.approx(math.sqrt(1 / 3) / 2))
    task = Concordance()
    value, error = difference(task, task.score(LABELS, LABELS), task.score(OUTPUT, LABELS))
    assert value == pytest.approx(1 - 0.9894736842, abs=1e-7)
    assert error is not None
    assert 0 < error < 0.02


def test_a_metric_by_examples_is_exact_for_means_and_of_first_order_else() -> None:
    logits, labels = torch.eye(4), torch.tensor([0, 1, 2, 0])
    by_examples = linearised(Numbers(), torch.tensor([3.0], dtype=torch.float64), 4)
    assert by_examples(logits, labels).tolist() == [1.0, 1.0, 1.0, 0.0]
    task = Concordance()
    by_examples = linearised(task, task.score(OUTPUT, LABELS).sum(dim=0), 4)
    assert float(by_examples(OUTPUT, LABELS).mean()) == pytest.approx(metric(task, OUTPUT, LABELS), abs=1e-9)
    moved = OUTPUT + 0.01 * torch.tensor([[1.0], [0.0], [-1.0], [0.5]])
    found = float(by_examples(moved, LABELS).mean()) - metric(task, OUTPUT, LABELS)
    assert found == pytest.approx(metric(task, moved, LABELS) - metric(task, OUTPUT, LABELS), rel=0.1)


def test_nothing_scores_nan_and_wrong_shapes_are_named() -> None:
    assert math.isnan(Tally(Numbers()).value())
    assert math.isnan(total(Numbers(), [], 0))
    with pytest.raises(TaskError, match="no labels"):
        Tally(Numbers()).add(OUTPUT, None)

    class Wrong(Numbers):
        def score(self, output: Tensor, labels: Tensor) -> Tensor:
            return output.mean()

    with pytest.raises(TaskError, match=r"gives \(\) for 4 examples"):
        Tally(Wrong()).add(OUTPUT, LABELS)

    class Changing(Numbers):
        def score(self, output: Tensor, labels: Tensor) -> Tensor:
            return output.new_zeros(len(labels), len(labels))

    found = Tally(Changing())
    found.add(OUTPUT, LABELS)
    with pytest.raises(TaskError, match="gives 3 figures here and 4 before"):
        found.add(OUTPUT[:3], LABELS[:3])


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_what_examples_add_does_not_depend_on_the_unit_of_the_labels(size: float) -> None:
    task, other = Concordance(), OUTPUT + torch.tensor([[0.1], [-0.2], [0.0], [0.1]])
    sums = task.score(size * OUTPUT, size * LABELS).sum(dim=0)
    found = linearised(task, sums, 4)(size * other, size * LABELS)
    expected = linearised(task, task.score(OUTPUT, LABELS).sum(dim=0), 4)(other, LABELS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
