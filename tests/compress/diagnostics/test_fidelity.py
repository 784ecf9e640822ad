"""Fidelity: the values of a small table, the batch size, the bounds, the verdict."""

import math

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.diagnostics.fidelity import (
    Calibration,
    Fidelity,
    Likeness,
    agreement,
    agreement_bounds,
    ensemble_logits,
    fidelity,
    interval,
    kendall,
    predictive_kl,
    verdict,
)
from compress.objectives.soft_cross_entropy import soft_cross_entropy
from compress.objectives.soft_targets import soft_target_loss

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
    assert figures["nll"] == pytest.approx(1.08333606, abs=LAST_DIGIT)  # of matching pairs, not of all pairs
    assert figures["ece"] == pytest.approx(0.30991336, abs=LAST_DIGIT)
    assert predictive_kl(TEACHER, STUDENT).mean().item() == pytest.approx(0.24651587, abs=LAST_DIGIT)


@pytest.mark.parametrize("size", [1, 3, 7])
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


def test_an_ensemble_averages_probabilities() -> None:
    members = torch.tensor([[[3.0, 1, 2]], [[0.0, 2, 0]]], dtype=torch.float64)  # (member, example, class)
    expected = torch.tensor([[0.38587397, 0.43850831, 0.17561772]], dtype=torch.float64)
    found = ensemble_logits(members, axis=0)
    torch.testing.assert_close(found.softmax(1), expected, rtol=0, atol=LAST_DIGIT)
    assert found.argmax(1).item() == 1
    assert found.logsumexp(1).item() == pytest.approx(0.0, abs=1e-12)  # log-probabilities
    torch.testing.assert_close(ensemble_logits(members.transpose(0, 1), axis=1), found)
    of_logits = members.mean(0).softmax(1)  # another first class
    expected = torch.tensor([[0.38365173, 0.38365173, 0.23269654]], dtype=torch.float64)
    torch.testing.assert_close(of_logits, expected, rtol=0, atol=LAST_DIGIT)


def test_the_cross_entropy_form_has_the_teachers_entropy_as_its_floor() -> None:
    crossed = soft_cross_entropy(STUDENT, TEACHER, 4.0).mean()
    divergence = soft_target_loss(STUDENT, TEACHER, 4.0).mean()
    assert crossed.item() == pytest.approx(17.49348246, abs=LAST_DIGIT)
    assert divergence.item() == pytest.approx(0.23606181, abs=LAST_DIGIT)
    assert (crossed - divergence).item() == pytest.approx(17.25742064, abs=LAST_DIGIT)
    assert soft_cross_entropy(TEACHER, TEACHER, 4.0).mean().item() == pytest.approx(17.25742064, abs=LAST_DIGIT)


def test_at_high_temperature_the_gradient_is_the_difference_of_centred_logits() -> None:
    for loss in (soft_cross_entropy, soft_target_loss):
        student = STUDENT[:1].clone().requires_grad_()
        loss(student, TEACHER[:1], 1e4).sum().backward()
        assert student.grad is not None
        expected = torch.tensor([[-0.38890046, 0.61111065, -0.22221018]], dtype=torch.float64)
        torch.testing.assert_close(student.grad, expected, rtol=0, atol=1e-6)  # 1e8 x float64 rounding
    gap = STUDENT[0] - TEACHER[0]
    limit = (gap - gap.mean()) / 3
    expected = torch.tensor([-0.38888889, 0.61111111, -0.22222222], dtype=torch.float64)
    torch.testing.assert_close(limit, expected, rtol=0, atol=LAST_DIGIT)


def test_half_precision_is_summed_in_double() -> None:
    """These logits are numbers of half precision; their logarithms of probabilities are not."""
    for kind in (torch.float16, torch.bfloat16, torch.float32):
        assert predictive_kl(STUDENT[:1].to(kind), TEACHER[:1].to(kind)).item() == pytest.approx(
            0.66430686, abs=LAST_DIGIT
        )


def test_what_changes_nothing() -> None:
    shift = torch.tensor([[5.0], [-1], [0.5], [2]], dtype=torch.float64)
    torch.testing.assert_close(predictive_kl(STUDENT + shift, TEACHER - shift), predictive_kl(STUDENT, TEACHER))
    assert (predictive_kl(STUDENT, TEACHER) >= 0).all()
    assert torch.equal(agreement(STUDENT.exp() * 3 - 1, TEACHER), agreement(STUDENT, TEACHER))  # any monotone map


def test_bins_are_open_on_the_left() -> None:
    def of(p: float) -> list[float]:
        found = Calibration()
        found.add(torch.tensor([[math.log(p), math.log(1 - p)]], dtype=torch.float64), torch.tensor([0]))
        return found.bins[0].tolist()

    assert of(0.75).index(1.0) == 7
    assert of(0.625).index(1.0) == 6
    half = Calibration()
    half.add(torch.zeros(1, 2), torch.tensor([0]))
    assert half.bins[0].tolist().index(1.0) == 4  # 0.5 closes the bin from 0.4
    sure = Calibration()
    sure.add(torch.tensor([[100.0, 0.0]]), torch.tensor([0]))
    assert sure.bins[0].tolist().index(1.0) == 9


def test_bins_that_err_to_either_side_do_not_cancel() -> None:
    found = Calibration()
    logits = torch.tensor([[0.75, 0.25], [0.55, 0.45]], dtype=torch.float64).log()
    found.add(logits, torch.tensor([0, 1]))  # right at 0.75, wrong at 0.55
    assert found.ece == pytest.approx((0.25 + 0.55) / 2)


def test_kendall_of_the_first_classes() -> None:
    teacher = torch.tensor([[6.0, 5, 4, 3, 2, 1]])
    assert kendall(teacher * 2, teacher).item() == 1.0
    assert kendall(-teacher, teacher).item() == -1.0
    swapped = torch.tensor([[5.0, 6, 4, 3, 2, 9]])  # one of ten pairs; the last class is not of the first five
    assert kendall(swapped, teacher).item() == pytest.approx(0.8)
    tied = torch.tensor([[6.0, 6, 4, 3, 2, 1]])
    assert kendall(tied, teacher).item() == pytest.approx(0.9)
    # of an artifact with coarse steps: four of six pairs have an order, of which this student has two
    coarse = torch.tensor([[2.0, 2.0, 1.0, 1.0]])
    assert kendall(coarse, coarse).item() == 1.0
    assert kendall(torch.tensor([[2.0, 1.0, 1.0, 1.0]]), coarse).item() == pytest.approx(0.5)
    assert kendall(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 1.0
    assert kendall(torch.zeros(1, 4), coarse).item() == 0.0


def test_maps_count_by_the_example() -> None:
    student, teacher = (torch.randn(3, 4, 2, 5, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    rows = [logits.movedim(1, -1).reshape(-1, 4) for logits in (student, teacher)]
    for figure in (agreement, predictive_kl, kendall):
        torch.testing.assert_close(figure(student, teacher).flatten(), figure(*rows))
    found = Likeness()
    found.add(student, teacher)
    assert found.count == 3
    assert found.agreement == pytest.approx(agreement(student, teacher).mean().item())
    assert found.kl == pytest.approx(predictive_kl(student, teacher).mean().item())
    assert found.kendall == pytest.approx(kendall(student, teacher).mean().item())


def test_standard_error_of_the_divergence() -> None:
    found = Likeness()
    found.add(STUDENT, TEACHER)
    assert found.kl_error == pytest.approx(predictive_kl(STUDENT, TEACHER).std().item() / 2)
    assert math.isnan(Likeness().kl_error)


def test_wilsons_interval() -> None:
    assert interval(0.5, 100) == pytest.approx((0.4038315, 0.5961685), abs=1e-6)
    low, high = interval(1.0, 100)
    assert low == pytest.approx(0.9630065, abs=1e-6)
    assert high == pytest.approx(1.0)


def test_verdicts() -> None:
    assert verdict(0.97, 0.97) == "optimisation"
    assert verdict(0.9799, 0.9799) == "optimisation"
    assert verdict(0.98, 0.98) == "ok"  # 98 % is enough
    assert verdict(1.0, 0.949) == "identifiability"
    assert verdict(1.0, 0.951) == "ok"
    assert verdict(0.99, 0.93) == "identifiability"
    assert verdict(0.99, 0.95) == "ok"
    assert verdict(math.nan, 0.5) == "unknown"


@pytest.mark.parametrize("size", [1, 3, 4])
def test_the_whole_report(size: int) -> None:
    def batches():  # type: ignore[no-untyped-def]
        for index in torch.arange(4).split(size):
            yield Batch((index,), LABELS[index], index)

    said = fidelity(
        lambda batch: STUDENT[batch.index],
        lambda batch: TEACHER[batch.index],
        batches(),
        distill=batches(),
        control=lambda batch: TEACHER[batch.index].flip(1),
    )
    assert (said.agree_test, said.agree_train) == (0.75, 0.75)
    assert (said.kl_test, said.kl_train) == pytest.approx((0.18421065, 0.18421065), abs=LAST_DIGIT)
    assert (said.nll, said.ece) == pytest.approx((1.08333606, 0.30991336), abs=LAST_DIGIT)
    assert (said.acc, said.acc_teacher, said.bounds) == (0.25, 0.5, (0.0, 0.75))
    assert said.verdict == "optimisation"
    assert said.agree_control == 0.5  # rows 1 and 3 are their own mirror's first class
    assert said.fidelity_gap == 0.25
    turned = fidelity(
        lambda batch: STUDENT[batch.index],
        lambda batch: TEACHER[batch.index],
        batches(),
        control=lambda batch: STUDENT[batch.index],
    )
    assert (turned.agree_control, turned.fidelity_gap) == (0.75, 0.0)  # with the teacher, not with the student
    alone = fidelity(lambda b: TEACHER[b.index], lambda b: TEACHER[b.index], batches())
    assert (alone.agree_test, alone.fidelity_gap, alone.verdict) == (1.0, None, "unknown")
    assert math.isnan(alone.agree_train)
    with pytest.raises(ValueError, match="labels"):
        fidelity(lambda b: TEACHER, lambda b: TEACHER, [Batch((LABELS,), None, LABELS)])
