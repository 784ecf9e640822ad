"""The triangle of student, teacher and label: worked values, invariances, the mixed loss."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.errors import RecipeError, TaskError
from compress.objectives.trilateral import Trilateral, trilateral_state

CLOCK = Clock("distill", 0, 10, 0, 1)
HALF_A_DIGIT = 5e-9  # of eight printed ones
S, T = (torch.tensor([row], dtype=torch.float64) for row in ([1.0, 2.0, 0.5], [3.0, 1.0, 2.0]))
Y = torch.tensor([0])
AVERAGES = torch.tensor([[0.7, 0.2, 0.1], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(output, labels, reduction="none")


def prepared(classes: int = 3, answers: list[tuple[Batch, Signals]] | None = None, **numbers: object) -> Trilateral:
    objective = Trilateral(**numbers)  # type: ignore[arg-type]
    example = Signals(torch.zeros(1, classes))
    empty = TensorExamples(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64), "none")

    def given(split: str) -> Iterator[tuple[Batch, Signals]]:
        assert split == "train"
        return iter(answers or [])

    objective.prepare(Preparation(Splits(empty, empty, empty), given, example, example, classes, 0, cross_entropy))
    return objective


def batch_of(labels: Tensor) -> Batch:
    return Batch((torch.zeros(len(labels), 1),), labels, torch.arange(len(labels)))


def shifted(objective: Trilateral, logit: float) -> Trilateral:
    """The same with every ratio forced to sigmoid(logit)."""
    last = objective.network[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, logit)
    return objective


def test_state_worked_by_hand() -> None:
    expected = [
        *(0.23122390, 0.62853172, 0.14024438),
        *(0.66524096, 0.09003057, 0.24472847),
        *(1.0, 0.0, 0.0),
        *(0.7, 0.2, 0.1),
        *(0.21975103, 0.18363943, 0.00161961),
        *(0.59101670, 0.39505212, 0.01966849),
        *(0.18837081, 0.28998348, 0.01091692),
        *(0.11206362, 0.00810550, 0.05989202),
        *(0.09, 0.04, 0.01),
    ]
    state = trilateral_state(S, T, Y, AVERAGES)
    assert state.shape == (1, 27)
    torch.testing.assert_close(state[0], torch.tensor(expected, dtype=torch.float64), atol=HALF_A_DIGIT, rtol=0)
    lengths = [float(state[0, 3 * block : 3 * block + 3].sum().sqrt()) for block in (5, 7, 6)]
    assert lengths == pytest.approx([1.00286455, 0.42433612, 0.69947925], abs=HALF_A_DIGIT)


def test_loss_worked_by_hand() -> None:
    objective = shifted(prepared(temperature=1.5).double(), -math.log(3.0))  # sigmoid: 1/4
    soft, hard = objective.terms(S, T, Y)
    assert soft.item() == pytest.approx(0.74410206, abs=HALF_A_DIGIT)
    assert hard.item() == pytest.approx(1.46436878, abs=HALF_A_DIGIT)
    value = objective(Signals(S), Signals(T), batch_of(Y), CLOCK)
    assert value.item() == pytest.approx(1.28430210, abs=HALF_A_DIGIT)
    twice = F.cross_entropy(S.softmax(1), Y).item()  # what the released code minimises instead
    assert twice == pytest.approx(1.22402548, abs=HALF_A_DIGIT)
    assert hard.item() != pytest.approx(twice, abs=0.1)


def test_ratios_of_0_and_1_leave_one_term_and_a_zero_layer_is_one_half() -> None:
    torch.manual_seed(0)
    s, t, y = torch.randn(5, 3), torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    objective = prepared()
    assert objective.ratios(s, t, y).tolist() == [0.5] * 5
    soft, hard = objective.terms(s, t, y)
    for logit, expected in ((-200.0, hard), (200.0, soft)):
        values = shifted(objective, logit)(Signals(s), Signals(t), batch_of(y), CLOCK)
        torch.testing.assert_close(values, expected)
    torch.testing.assert_close(hard, cross_entropy(s, y))


def test_state_does_not_see_constants_and_follows_permuted_classes() -> None:
    torch.manual_seed(1)
    s, t, y = torch.randn(6, 4).double(), torch.randn(6, 4).double(), torch.tensor([0, 1, 2, 3, 0, 1])
    averages, order = torch.rand(4, 4).double(), torch.tensor([2, 0, 3, 1])
    state = trilateral_state(s, t, y, averages)
    torch.testing.assert_close(trilateral_state(s + 3.0, t - 7.0, y, averages), state)
    inverse = order.argsort()
    moved = trilateral_state(s[:, order], t[:, order], inverse[y], averages[order][:, order])
    torch.testing.assert_close(moved, state.view(6, 9, 4)[:, :, order].flatten(1))


def test_parts_of_the_state_can_be_left_out() -> None:
    whole = trilateral_state(S, T, Y, AVERAGES).view(9, 3)
    assert torch.equal(trilateral_state(S, T, Y, None), whole[[0, 1, 2, 5, 6, 7]].view(1, -1))
    bare = trilateral_state(S, T, Y, None, student_teacher_edge=False)
    assert torch.equal(bare, whole[[0, 1, 2, 5, 7]].view(1, -1))
    for numbers, blocks in (({}, 9), ({"class_averages": False}, 6), ({"student_teacher_edge": False}, 8)):
        objective = prepared(**numbers)
        first = objective.network[0]
        assert isinstance(first, nn.Linear)
        assert first.in_features == 3 * blocks
        assert objective.ratios(S.float(), T.float(), Y).shape == (1,)


def test_the_student_cannot_move_its_own_ratio_and_the_loss_cannot_train_it() -> None:
    torch.manual_seed(2)
    s, t, y = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True), torch.tensor([0, 1, 2, 0])
    objective = prepared()
    nn.init.normal_(objective.network[-1].weight)  # type: ignore[arg-type]
    assert not trilateral_state(s, t, y, objective.averages).requires_grad
    objective.ratios(s, t, y).sum().backward()
    assert s.grad is None
    assert t.grad is None
    assert objective.network[0].weight.grad is not None  # type: ignore[union-attr]
    objective.zero_grad(set_to_none=True)
    objective(Signals(s), Signals(t), batch_of(y), CLOCK).mean().backward()
    assert all(parameter.grad is None for parameter in objective.parameters())
    ratio = objective.ratios(s, t, y).detach()
    soft, hard = objective.terms(s, t, y)
    (expected,) = torch.autograd.grad((ratio * soft + (1 - ratio) * hard).mean(), s)
    torch.testing.assert_close(s.grad, expected)


def test_class_averages_are_means_over_all_training_answers() -> None:
    first = (batch_of(torch.tensor([0, 1])), Signals(torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])))
    second = (batch_of(torch.tensor([0])), Signals(torch.tensor([[5.0, 0.0, 0.0]])))
    averages = prepared(answers=[first, second]).averages
    expected = (first[1].output[0].softmax(0) + second[1].output[0].softmax(0)) / 2
    torch.testing.assert_close(averages[0], expected)
    torch.testing.assert_close(averages[1], first[1].output[1].softmax(0))
    assert torch.isfinite(averages).all()  # of class 2 there is none


def test_a_learned_ratio_is_taken_up_and_stays() -> None:
    torch.manual_seed(3)
    s, t, y = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    learned = prepared(answers=[(batch_of(y), Signals(t))])
    nn.init.normal_(learned.network[-1].weight)  # type: ignore[arg-type]
    fresh = Trilateral()
    assert fresh.due(CLOCK)
    fresh.take_up(learned.state_dict())
    assert not fresh.due(CLOCK)
    assert not any(parameter.requires_grad for parameter in fresh.parameters())
    assert torch.equal(fresh.ratios(s, t, y), learned.ratios(s, t, y))


def test_when_the_network_is_trained() -> None:
    clocks = [Clock("distill", step, 4, 0, 1) for step in range(4)]
    assert [Trilateral(every=2).due(clock) for clock in clocks] == [True, False, True, False]
    assert not any(Trilateral(every=0).due(clock) for clock in clocks)


def test_its_numbers_and_the_size_of_its_network_are_the_published_and_proposed_ones() -> None:
    objective = prepared(classes=10)
    sizes = [tuple(layer.weight.shape) for layer in objective.network if isinstance(layer, nn.Linear)]
    assert sizes == [(32, 90), (16, 32), (1, 16)]
    assert [type(layer) for layer in objective.network[1::2]] == [nn.LeakyReLU, nn.LeakyReLU]
    assert (objective.temperature, objective.inner_rate) == (4.0, 0.3)
    assert [objective.due(Clock("distill", step, 4, 0, 1)) for step in range(4)] == [True, False, True, False]


@pytest.mark.parametrize(
    "numbers",
    [
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"inner_rate": -1.0},
        {"inner_rate": math.nan},
        {"every": -1},
        {"hidden": (0,)},
    ],
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        Trilateral(**numbers)  # type: ignore[arg-type]


def test_labels_that_are_no_classes_are_refused() -> None:
    with pytest.raises(TaskError, match="class index"):
        prepared()(Signals(S), Signals(T), Batch((S,), None, Y), CLOCK)
    with pytest.raises(ValueError, match="labels"):
        trilateral_state(S, T, torch.tensor([0, 1]), AVERAGES)
