"""PLD: values worked by hand, the gradient's closed form, invariances, special cases, no trace in the exported file."""

import math
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method
from compress.contracts.signals import Signals
from compress.methods.list_mle import METHOD as LIST_MLE
from compress.methods.pld import METHOD
from compress.objectives.plackett_luce import (
    first_weights,
    plackett_luce_loss,
    ranking,
    teacher_weights,
    uniform_weights,
)
from exporters import torch_to_onnx

TOLERANCE = 1e-8  # one of the last digit given
ROUNDING = 1e-12  # float64
S1, T1, Y1 = [1.0, 2.0, 0.5], [3.0, 1.0, 2.0], 0
S2, T2, Y2 = [0.2, -1.0, 1.5, 0.0], [2.0, 0.5, -0.5, 1.0], 2


def row(values: list[float], *, grad: bool = False) -> Tensor:
    return torch.tensor([values], dtype=torch.float64, requires_grad=grad)


def close(found: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found.detach(), row(expected), rtol=0, atol=TOLERANCE)


def some(seed: int, classes: int = 7, rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    student, teacher = (2 * torch.randn(rows, classes, generator=source, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.randint(classes, (rows,), generator=source)


def steps(student: Tensor, order: Tensor) -> Tensor:
    """-log of each choice's probability, in plain steps."""
    worths = student.gather(1, order)
    return torch.stack([worths[:, k:].logsumexp(1) - worths[:, k] for k in range(worths.shape[1])], 1)


def closed_form(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float = 1.0) -> Tensor:
    """The published gradient: sum over the choices up to a class's rank of a_k times its share, less its own a."""
    order = ranking(teacher, labels)
    weights = teacher_weights(teacher.gather(1, order), temperature)
    worths = student.gather(1, order)
    gradient = -weights.clone()
    for k in range(worths.shape[1]):
        gradient[:, k:] += weights[:, k : k + 1] * worths[:, k:].softmax(1)
    return torch.zeros_like(student).scatter(1, order, gradient)


class TestWorkedByHand:
    def test_three_classes(self) -> None:
        student, teacher, label = row(S1, grad=True), row(T1), torch.tensor([Y1])
        order = ranking(teacher, label)
        assert order.tolist() == [[0, 2, 1]]
        close(teacher_weights(teacher.gather(1, order), 1.0), [0.66524096, 0.24472847, 0.09003057])
        close(steps(student, order), [1.46436878, 1.70141328, 0.0])
        loss = plackett_luce_loss(student, teacher, label)
        close(loss.unsqueeze(0), [1.39054236])
        loss.sum().backward()
        assert student.grad is not None
        close(student.grad, [-0.51142135, 0.61820879, -0.10678744])

    def test_four_classes_at_two_temperatures(self) -> None:
        student, teacher, label = row(S2, grad=True), row(T2), torch.tensor([Y2])
        order = ranking(teacher, label)
        assert order.tolist() == [[2, 0, 3, 1]]
        ranked = teacher.gather(1, order)
        close(teacher_weights(ranked, 1.0), [0.04906178, 0.59769483, 0.21987964, 0.13336374])
        close(steps(student, order), [0.45599785, 0.75138069, 0.31326169, 0.0])
        loss = plackett_luce_loss(student, teacher, label)
        close(loss.unsqueeze(0), [0.54034829])
        loss.sum().backward()
        assert student.grad is not None
        close(student.grad, [-0.30727865, 0.14660642, -0.01796568, 0.17863792])
        close(teacher_weights(ranked, 4.0), [0.17834013, 0.33318324, 0.25948336, 0.22899327])
        close(plackett_luce_loss(student, teacher, label, temperature=4.0).unsqueeze(0), [0.41295637])

    def test_the_first_choice_alone_is_the_cross_entropy(self) -> None:
        student, teacher, label = row(S2), row(T2), torch.tensor([Y2])
        found = plackett_luce_loss(student, teacher, label, weights=first_weights)
        assert found.item() == F.cross_entropy(student, label).item()
        close(found.unsqueeze(0), [0.45599785])

    @pytest.mark.parametrize(("label", "expected"), [(0, 0.22901264), (1, 0.35319047)])
    def test_two_classes_are_a_weighted_cross_entropy(self, label: int, expected: float) -> None:
        student, teacher, labels = row([0.3, -0.7]), row([1.2, 0.2]), torch.tensor([label])
        found = plackett_luce_loss(student, teacher, labels)
        close(found.unsqueeze(0), [expected])
        torch.testing.assert_close(found, teacher.softmax(1)[:, label] * F.cross_entropy(student, labels))

    def test_equal_weights_of_equal_worths(self) -> None:
        found = plackett_luce_loss(row([0.0] * 4), row(T2), torch.tensor([1]), weights=uniform_weights)
        close(found.unsqueeze(0), [0.79451346])
        assert found.item() == pytest.approx(math.log(24) / 4, abs=ROUNDING)


class TestLaws:
    def test_a_constant_per_example_changes_nothing(self) -> None:
        student, teacher, labels = some(0)
        shift = torch.tensor([[3.0], [-2.0], [0.5], [9.0]], dtype=torch.float64)
        expected = plackett_luce_loss(student, teacher, labels)
        for s, t in ((student + shift, teacher), (student, teacher + shift)):
            torch.testing.assert_close(plackett_luce_loss(s, t, labels), expected, rtol=0, atol=ROUNDING)

    def test_the_students_scale_counts(self) -> None:
        student, teacher, labels = some(1)
        change = plackett_luce_loss(2 * student, teacher, labels) - plackett_luce_loss(student, teacher, labels)
        assert (change.abs() > 0.01).all()

    def test_is_never_negative_and_convex(self) -> None:
        for seed in range(20):
            first, teacher, labels = some(seed)
            second = some(seed + 100)[0]
            share = torch.rand(1, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            at = [plackett_luce_loss(s, teacher, labels) for s in (first, second)]
            between = plackett_luce_loss(share * first + (1 - share) * second, teacher, labels)
            assert (between >= 0).all()
            assert (between <= share * at[0] + (1 - share) * at[1] + ROUNDING).all()

    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_gradient_is_the_closed_form_and_sums_to_zero(self, temperature: float) -> None:
        student, teacher, labels = some(2)
        student.requires_grad_()
        plackett_luce_loss(student, teacher, labels, temperature).sum().backward()
        assert student.grad is not None
        expected = closed_form(student.detach(), teacher, labels, temperature)
        torch.testing.assert_close(student.grad, expected, rtol=0, atol=ROUNDING)
        torch.testing.assert_close(student.grad.sum(1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=ROUNDING)
        assert torch.autograd.gradcheck(lambda s: plackett_luce_loss(s, teacher, labels, temperature), (student,))

    def test_classes_may_be_renamed(self) -> None:
        student, teacher, labels = some(3)
        order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
        renamed = order.argsort()[labels]
        found = plackett_luce_loss(student[:, order], teacher[:, order], renamed)
        expected = plackett_luce_loss(student, teacher, labels)
        torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)

    def test_a_teacher_that_knows_the_label_gives_the_cross_entropy(self) -> None:
        student, _, labels = some(4)
        teacher = 60.0 * F.one_hot(labels, 7).to(torch.float64)
        expected = F.cross_entropy(student, labels, reduction="none")
        torch.testing.assert_close(plackett_luce_loss(student, teacher, labels), expected, rtol=0, atol=ROUNDING)

    def test_a_teacher_that_is_surely_wrong_switches_the_label_off(self) -> None:
        student, teacher = row([0.0, 0.0, 0.0], grad=True), row([0.0, 20.0, 0.0])
        plackett_luce_loss(student, teacher, torch.tensor([0])).sum().backward()
        assert student.grad is not None
        assert student.grad[0, 0].abs() < 1e-8
        assert student.grad[0, 1] < -0.4  # among what is left, the teacher's class is wanted


def as_recipes_run_it(method: Method, numbers: tuple[list[float], list[float], int]) -> float:
    """The loss of one example with the method's own numbers."""
    student, teacher, label = row(numbers[0]), row(numbers[1]), torch.tensor([numbers[2]])
    batch, clock = Batch((student,), label, torch.arange(1)), Clock("distill", 0, 1, 0, 1)
    loss: Tensor = method.objectives["plackett_luce"]()(Signals(student), Signals(teacher), batch, clock)
    return loss.item()


def test_there_is_one_loss_and_no_weight_to_tune() -> None:
    assert METHOD.weights == {"plackett_luce": 1.0, "true_class": 0.0}
    assert METHOD.diagnostics == ("true_class",)
    assert as_recipes_run_it(METHOD, (S1, T1, Y1)) == pytest.approx(1.39054236, abs=TOLERANCE)
    assert as_recipes_run_it(METHOD, (S2, T2, Y2)) == pytest.approx(0.54034829, abs=TOLERANCE)


def test_the_control_weighs_all_choices_alike() -> None:
    assert list(LIST_MLE.objectives) == ["plackett_luce"]
    assert as_recipes_run_it(LIST_MLE, ([0.0] * 4, T2, 1)) == pytest.approx(0.79451346, abs=TOLERANCE)
    assert as_recipes_run_it(LIST_MLE, (S2, T2, Y2)) == pytest.approx(  # the steps that were given, over four
        (0.45599785 + 0.75138069 + 0.31326169) / 4, abs=TOLERANCE
    )


def test_nothing_of_the_loss_is_in_the_exported_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(64, 3))
    inputs, labels = torch.randn(2, 1, 6, 6), torch.tensor([0, 2])
    loss = METHOD.objectives["plackett_luce"]()
    batch, clock = Batch((inputs,), labels, torch.arange(2)), Clock("distill", 0, 1, 0, 1)
    loss(Signals(network(inputs)), Signals(torch.randn(2, 3)), batch, clock).mean().backward()
    names = {"input_names": ["input"], "output_names": ["logits"]}
    torch_to_onnx.convert(network.eval(), (inputs,), tmp_path / "student.onnx", opset=20, metadata={}, **names)
    operators = {node.op_type for node in onnx.load(str(tmp_path / "student.onnx")).graph.node}
    assert "Conv" in operators
    assert not operators & {"Sort", "TopK", "GatherElements", "Gather", "CumSum", "LogSoftmax"}
