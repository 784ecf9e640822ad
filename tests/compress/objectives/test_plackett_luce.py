"""The list-wise loss: order, weights, padding, what it refuses."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.signals import Signals
from compress.errors import RecipeError, TaskError
from compress.objectives.plackett_luce import (
    PlackettLuce,
    Weights,
    first_weights,
    plackett_luce_loss,
    position_weights,
    ranking,
    teacher_weights,
    uniform_weights,
)

CLOCK = Clock("distill", 0, 10, 0, 1)
ROUNDING = 1e-12  # float64


def some(seed: int, rows: int = 5, classes: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(rows, classes, generator=source, dtype=torch.float64) for _ in range(2))
    return student, teacher, torch.randint(classes, (rows,), generator=source)


def test_equal_logits_of_the_teacher_keep_the_order_of_classes() -> None:
    teacher = torch.tensor([[1.0, 1.0, 2.0, 1.0, 1.0]])
    for _ in range(3):
        assert ranking(teacher, torch.tensor([3])).tolist() == [[3, 2, 0, 1, 4]]
    many = ranking(torch.zeros(1, 4096), torch.tensor([7]))[0].tolist()  # short rows are sorted stably by any sort
    assert many == [7, *range(7), *range(8, 4096)]


def test_the_label_is_first_however_sure_the_teacher_is_of_another() -> None:
    assert ranking(torch.tensor([[1e4, -1e4, 3e38]]), torch.tensor([1])).tolist() == [[1, 2, 0]]


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher, labels = some(6)
    for present in (None, torch.tensor([True] * 6).expand(5, 6)):
        both = [logits.clone().requires_grad_() for logits in (student, teacher)]
        plackett_luce_loss(*both, labels, present=present).sum().backward()
        assert both[0].grad is not None
        assert both[1].grad is None


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("teacher", teacher_weights),
        ("uniform", uniform_weights),
        ("first", first_weights),
        ("position", position_weights),
    ],
)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_recipes_name_a_rule_and_a_temperature(name: str, rule: Weights, temperature: float) -> None:
    student, teacher, labels = some(5)
    batch = Batch((student,), labels, torch.arange(5))
    found = PlackettLuce(temperature, name)(Signals(student), Signals(teacher), batch, CLOCK)
    torch.testing.assert_close(found, plackett_luce_loss(student, teacher, labels, temperature, rule), rtol=0, atol=0)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_logits_far_apart_stay_finite(kind: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], dtype=kind, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [1e4, 0.0, -1e4]], dtype=kind)
    found = plackett_luce_loss(student, teacher, torch.tensor([0, 1]))
    # the teacher is sure of class 1, then of class 0: after the label that choice is left, lost by 1e4 each time
    torch.testing.assert_close(found, torch.full((2,), 1e4), rtol=2**-8, atol=0)  # bfloat16 holds 8 bits
    found.sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_the_label_is_first_and_the_teacher_orders_the_rest() -> None:
    _, teacher, labels = some(0)
    expected = ranking(teacher, labels)
    assert torch.equal(expected[:, 0], labels)
    rest = teacher.gather(1, expected)[:, 1:]
    assert (rest.diff(dim=1) <= 0).all()
    assert torch.equal(expected.sort(dim=1).values, torch.arange(6).expand(5, 6))


@pytest.mark.parametrize("weights", ["teacher", "uniform", "first", "position"])
def test_padded_candidates_are_as_if_they_were_not_there(weights: str) -> None:
    student, teacher, labels = some(1)
    present = torch.tensor([True] * 6 + [False] * 3).expand(5, 9)
    longer = [torch.cat([logits, torch.full((5, 3), fill)], 1) for logits, fill in ((student, 50.0), (teacher, 9.0))]
    longer[0][:, -1] = -torch.inf
    longer[0].requires_grad_()
    rule = {"uniform": uniform_weights, "position": position_weights}.get(weights)
    if weights == "first":
        expected = F.cross_entropy(student, labels, reduction="none")
        found = PlackettLuce(weights="first")(
            Signals(longer[0]),
            Signals(longer[1]),
            Batch((student,), labels, torch.arange(5), {"present": present}),
            CLOCK,
        )
    else:
        expected = plackett_luce_loss(student, teacher, labels, weights=rule)
        found = plackett_luce_loss(longer[0], longer[1], labels, weights=rule, present=present)
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)
    found.sum().backward()
    assert longer[0].grad is not None
    assert torch.equal(longer[0].grad[:, 6:], torch.zeros(5, 3, dtype=torch.float64))


def test_a_list_with_one_candidate_teaches_nothing() -> None:
    present = torch.tensor([[True, False]])
    logits = torch.zeros(1, 2)
    for rule in (None, uniform_weights, position_weights):
        assert plackett_luce_loss(logits, logits, torch.tensor([0]), weights=rule, present=present).item() == 0.0


def test_position_weights_are_powers_of_two_less_one() -> None:
    weights = position_weights(torch.zeros(1, 4, dtype=torch.float64), 1.0)
    torch.testing.assert_close(weights, torch.tensor([[7.0, 3, 1, 0]], dtype=torch.float64) / 11)
    many = position_weights(torch.zeros(1, 1000), 1.0)
    assert torch.isfinite(many).all()
    assert many.sum().item() == pytest.approx(1.0)


def test_maps_are_means_over_their_positions() -> None:
    student, teacher, labels = some(2, rows=6)
    maps = [logits.reshape(2, 3, 6).transpose(1, 2) for logits in (student, teacher)]
    batch = Batch((student,), labels.reshape(2, 3), torch.arange(2))
    found = PlackettLuce()(Signals(maps[0]), Signals(maps[1]), batch, CLOCK)
    expected = plackett_luce_loss(student, teacher, labels).reshape(2, 3).mean(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


def test_mixed_examples_are_ranked_for_both_labels() -> None:
    student, teacher, labels = some(3)
    share = torch.linspace(0, 1, 5, dtype=torch.float64)
    extras = {"first_labels": labels, "second_labels": labels.flip(0), "first_share": share}
    found = PlackettLuce()(Signals(student), Signals(teacher), Batch((student,), None, torch.arange(5), extras), CLOCK)
    first, second = (plackett_luce_loss(student, teacher, which) for which in (labels, labels.flip(0)))
    torch.testing.assert_close(found, share * first + (1 - share) * second, rtol=0, atol=ROUNDING)


def test_half_precision_keeps_the_tail() -> None:
    student, teacher = torch.zeros(1, 4096, dtype=torch.bfloat16), torch.zeros(1, 4096, dtype=torch.bfloat16)
    found = plackett_luce_loss(student, teacher, torch.tensor([0]))
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(math.lgamma(4097) / 4096, rel=1e-5)  # mean of log 1 .. log 4096


def test_other_orders_of_classes_are_not_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(2, 4\), teacher logits \(2, 1\)"):
        plackett_luce_loss(torch.zeros(2, 4), torch.zeros(2, 1), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="labels"):
        plackett_luce_loss(torch.zeros(2, 4), torch.zeros(2, 4), torch.tensor([0]))
    batch = Batch((torch.zeros(2, 4),), torch.tensor([0, 1]), torch.arange(2))
    with pytest.raises(ValueError, match="teacher logits"):
        PlackettLuce()(Signals(torch.zeros(2, 4)), Signals(torch.zeros(2, 5)), batch, CLOCK)
    maps = Batch((torch.zeros(1, 4),), torch.zeros(1, 2, 3, dtype=torch.int64), torch.arange(1))
    with pytest.raises(ValueError, match=r"\(1, 4, 2, 3\), teacher logits \(1, 4, 3, 2\)"):  # as many positions
        PlackettLuce()(Signals(torch.zeros(1, 4, 2, 3)), Signals(torch.zeros(1, 4, 3, 2)), maps, CLOCK)


def test_numbers_and_streams_that_make_no_sense_are_refused() -> None:
    for temperature in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(RecipeError, match="temperature"):
            PlackettLuce(temperature=temperature)
    with pytest.raises(RecipeError, match="'ranked'"):
        PlackettLuce(weights="ranked")
    logits = Signals(torch.zeros(2, 4))
    with pytest.raises(TaskError, match="without labels"):
        PlackettLuce()(logits, logits, Batch((torch.zeros(2, 4),), None, torch.arange(2)), CLOCK)
