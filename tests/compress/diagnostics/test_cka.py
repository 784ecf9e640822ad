"""CKA: values worked by hand, invariances, batches, and what the diagnostic reads."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.diagnostics.cka import CKA, hsic, linear_cka, unbiased_cka, vectors

X = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.0]], dtype=torch.float64)
Y = torch.tensor([[1.0], [0.0], [2.0], [1.0]], dtype=torch.float64)


def drawn() -> tuple[Tensor, Tensor]:
    source = np.random.default_rng(0)
    return torch.from_numpy(source.standard_normal((32, 64))), torch.from_numpy(source.standard_normal((32, 64)))


def test_equals_the_values_worked_by_hand() -> None:
    assert linear_cka(X, Y) == pytest.approx(0.18898224, abs=5e-9)
    assert unbiased_cka(X, Y) == pytest.approx(-0.86602540, abs=5e-9)


def test_few_random_examples_look_alike_to_the_biased_form_alone() -> None:
    assert linear_cka(*drawn()) == pytest.approx(0.68484839, abs=5e-9)
    assert unbiased_cka(*drawn()) == pytest.approx(0.05443381, abs=1e-8)


@pytest.mark.parametrize("cka", [linear_cka, unbiased_cka])
def test_a_network_is_like_itself_and_the_order_does_not_matter(cka: type) -> None:
    x, y = drawn()
    assert cka(x, x) == pytest.approx(1.0, abs=1e-12)
    assert cka(x, y) == pytest.approx(cka(y, x), abs=1e-12)


@pytest.mark.parametrize("cka", [linear_cka, unbiased_cka])
def test_rotations_one_factor_and_shifts_change_nothing(cka: type) -> None:
    x, y = drawn()
    rotation = torch.linalg.qr(torch.from_numpy(np.random.default_rng(1).standard_normal((64, 64))))[0]
    assert cka(-3.0 * x @ rotation + 7.0, y) == pytest.approx(cka(x, y), abs=1e-10)


def test_hsic_of_its_definition_needs_no_centring() -> None:
    x, y = X + 100.0, Y - 3.0
    k, l_ = (rows @ rows.T for rows in (x, y))
    k.fill_diagonal_(0.0)
    l_.fill_diagonal_(0.0)
    ones, n = torch.ones(4, dtype=torch.float64), 4
    expected = torch.trace(k @ l_) + (ones @ k @ ones) * (ones @ l_ @ ones) / ((n - 1) * (n - 2))
    expected -= 2 / (n - 2) * (ones @ k @ l_ @ ones)
    assert hsic(x, y) == pytest.approx(float(expected) / (n * (n - 3)), rel=1e-9)


def test_three_examples_are_too_few() -> None:
    with pytest.raises(ValueError, match="needs 4"):
        hsic(X[:3], Y[:3])


def test_two_networks_answer_the_same_examples() -> None:
    with pytest.raises(ValueError, match="teacher features"):
        linear_cka(X, Y[:3])


def test_maps_become_the_mean_over_positions() -> None:
    assert torch.equal(vectors(torch.arange(8.0).reshape(1, 2, 2, 2)), torch.tensor([[1.5, 5.5]]))


def signals(features: list[Tensor]) -> Signals:
    return Signals(
        features[0], taps={name: each.clone() for name, each in zip(CKA.student_taps, features, strict=True)}
    )


def answers(batches: list[tuple[list[Tensor], list[Tensor]]]) -> Iterator[tuple[Batch, Signals, Signals]]:
    for ours, theirs in batches:
        yield Batch((ours[0],), None, torch.arange(len(ours[0]))), signals(ours), signals(theirs)


def test_hsic_is_averaged_over_batches_before_the_ratio() -> None:
    x, y = drawn()
    halves = [([x[part]] * 4, [y[part]] * 4) for part in (slice(0, 16), slice(16, 32))]
    expected = sum(hsic(ours[0], theirs[0]) for ours, theirs in halves)
    own = sum(hsic(ours[0], ours[0]) for ours, _ in halves) * sum(hsic(theirs[0], theirs[0]) for _, theirs in halves)
    figures = CKA().measure(answers(halves))
    assert figures["teacher_2_student_3"] == pytest.approx(expected / own**0.5, abs=1e-12)
    ratios = [unbiased_cka(ours[0], theirs[0]) for ours, theirs in halves]
    assert figures["teacher_2_student_3"] != pytest.approx(sum(ratios) / 2, abs=1e-4)


def test_each_pair_of_stages_has_its_figure() -> None:
    x, y = drawn()
    figures = CKA().measure(answers([([x, y, x, y], [x, x, y, y])]))
    assert len(figures) == 17
    assert figures["teacher_1_student_1"] == pytest.approx(1.0)
    assert figures["teacher_1_student_2"] == pytest.approx(0.05443381, abs=1e-8)
    assert figures["diagonal"] == pytest.approx((1 + 0.05443381 + 0.05443381 + 1) / 4, abs=1e-8)


def test_batches_that_are_too_small_are_passed_over() -> None:
    x, y = (side.split([16, 13, 3]) for side in drawn())
    whole = [
        ([one.clone() for _ in range(4)], [other.clone() for _ in range(4)]) for one, other in zip(x, y, strict=True)
    ]
    expected = CKA().measure(answers(whole[:2]))
    assert CKA().measure(answers(whole)) == expected
    assert len(expected) == 17
    assert CKA().measure(answers(whole[2:])) == {}


def test_a_stage_that_says_the_same_of_everything_has_no_figure() -> None:
    x, y = drawn()
    still = torch.ones_like(x)
    assert np.isnan(unbiased_cka(still, y))
    assert linear_cka(still, y) == 0.0
    ours = [x, still, *(x.clone() for _ in range(2))]
    figures = CKA().measure(answers([(ours, [y.clone() for _ in range(4)])]))
    assert len(figures) == 12  # neither its four nor the mean of the diagonal
    assert not any(name.endswith("student_2") or name == "diagonal" for name in figures)


def test_a_black_box_gives_no_figures() -> None:
    batch = Batch((X,), None, torch.arange(4))
    assert CKA().measure(iter([(batch, Signals(X), Signals(Y))])) == {}


def test_a_stage_under_several_names_is_there_once() -> None:
    torch.manual_seed(0)
    low, high = torch.randn(16, 3, 2, 2), torch.randn(16, 5)
    ours = dict(zip(CKA.student_taps, (low, low, high, high), strict=True))
    theirs = {name: torch.randn(16, 6) for name in CKA.teacher_taps} | {CKA.teacher_taps[1]: vectors(low)}
    said = [Signals(torch.zeros(16, 2), taps=taps) for taps in (ours, theirs)]
    batch = Batch((torch.zeros(16, 1),), None, torch.arange(16))
    found = CKA().measure(iter([(batch, said[0], said[1])]))
    assert {name for name in found if name != "diagonal"} <= {
        f"teacher_{row}_student_{place}" for row in (1, 2, 3, 4) for place in (2, 4)
    }
    assert found["teacher_2_student_2"] == pytest.approx(1.0)
    expected = (found["teacher_2_student_2"] + found["teacher_4_student_4"]) / 2
    assert found["diagonal"] == pytest.approx(expected)
