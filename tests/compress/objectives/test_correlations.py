"""DIST: correlations by hand and what they do not see."""

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.methods.dist import METHOD
from compress.objectives.correlations import EPSILON, BetweenClasses, BetweenExamples, pearson_distance

CLOCK = Clock("distill", 0, 10, 0, 1)
BATCH = Batch((torch.zeros(4, 1),), None, torch.arange(4))


def logits(seed: int) -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand() -> None:
    def from_a(*other: float) -> float:
        a, b = (torch.tensor([values], dtype=torch.float64) for values in ((1.0, 2.0, 3.0), other))
        return pearson_distance(a, b, dim=1).item()

    assert from_a(2.0, 4.0, 6.0) == pytest.approx(0.0, abs=EPSILON)
    assert from_a(3.0, 2.0, 1.0) == pytest.approx(2.0, abs=EPSILON)
    assert from_a(0.0, 2.0, 1.0) == pytest.approx(0.5, abs=EPSILON)  # deviations (-1, 0, 1) and (-1, 1, 0): 1 / 2
    assert from_a(1.0, 1.0, 1.0) == 1.0


def test_reference_values() -> None:
    """With two examples every class correlates by +1 or -1; what lacks to 2 is the 1e-8 of the denominator."""
    student = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[3.0, 1.0, 2.0], [0.5, 0.5, -0.5]], dtype=torch.float64)
    between, within = (
        term(1.0)(Signals(student), Signals(teacher), BATCH, CLOCK).mean().item()
        for term in (BetweenClasses, BetweenExamples)
    )
    last = 5e-9  # half of the last digit given
    assert between == pytest.approx(1.76941052, abs=last)
    assert within == pytest.approx(1.99999779, abs=last)
    assert between + within == pytest.approx(3.76940830, abs=2 * last)
    assert METHOD.weights == {"between_classes": 2.0, "between_examples": 2.0, "labels": 1.0}


def test_positive_affine_maps_of_rows_and_columns_change_nothing() -> None:
    p, q = logits(3).softmax(1), logits(4).softmax(1)
    scale, shift = torch.tensor([0.5, 2.0, 3.0, 1.5]).double(), torch.tensor([4.0, -1.0, 0.0, 2.0]).double()
    expected = pearson_distance(p, q, dim=1)
    mapped = pearson_distance(scale[:, None] * p + shift[:, None], q, dim=1)
    torch.testing.assert_close(mapped, expected, rtol=0, atol=1e-6)  # EPSILON over lengths of about a tenth
    expected = pearson_distance(p, q, dim=0)
    mapped = pearson_distance(p, scale[:3] * q + shift[:3], dim=0)
    torch.testing.assert_close(mapped, expected, rtol=0, atol=1e-6)


def test_every_position_of_a_map_is_a_row() -> None:
    def maps(rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(2, 2, 3).movedim(2, 1)

    for term in (BetweenClasses(), BetweenExamples()):
        found = term(Signals(maps(logits(0))), Signals(maps(logits(1))), BATCH, CLOCK)
        torch.testing.assert_close(found, term(Signals(logits(0)), Signals(logits(1)), BATCH, CLOCK))


def test_classes_that_do_not_vary_are_left_out_of_the_mean() -> None:
    teacher = logits(6)
    student = logits(5)
    student[:, 2] = -torch.inf  # probability 0 throughout
    two = pearson_distance(student.softmax(1)[:, :2], teacher.softmax(1)[:, :2], dim=0)
    found = BetweenExamples()(Signals(student), Signals(teacher), BATCH, CLOCK)
    assert found[2].item() == 0.0
    torch.testing.assert_close(found.mean(), two.mean(), rtol=0, atol=1e-12)
    one = BetweenExamples()(Signals(student[:1]), Signals(teacher[:1]), BATCH, CLOCK)
    assert one.tolist() == [0.0, 0.0, 0.0]


def test_a_student_that_says_the_same_of_everything_gets_no_huge_gradient() -> None:
    """As at the first step of a last layer that begins at zero; 1e-8 alone in the denominator would make it 1e6."""
    for term in (BetweenClasses(), BetweenExamples()):
        student = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
        term(Signals(student), Signals(logits(7)), BATCH, CLOCK).sum().backward()
        assert student.grad is not None
        assert student.grad.abs().max() <= 1.0


def test_gradients_are_right_and_reach_the_student_alone() -> None:
    for term in (BetweenClasses(2.0), BetweenExamples(2.0)):
        student, teacher = logits(8).requires_grad_(), logits(9).requires_grad_()
        term(Signals(student), Signals(teacher), BATCH, CLOCK).sum().backward()
        assert student.grad is not None
        assert student.grad.abs().max() > 0
        assert teacher.grad is None

        def loss(z: torch.Tensor, of: Objective = term, to: torch.Tensor = teacher) -> torch.Tensor:
            return of(Signals(z), Signals(to), BATCH, CLOCK)

        assert torch.autograd.gradcheck(loss, (student,))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_and_logits_far_apart_stay_finite(kind: torch.dtype) -> None:
    for term in (BetweenClasses(), BetweenExamples()):
        student = (1e4 * logits(10)).to(kind).requires_grad_()
        values = term(Signals(student), Signals((1e4 * logits(11)).to(kind)), BATCH, CLOCK)
        values.sum().backward()
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()
        assert student.grad is not None
        assert torch.isfinite(student.grad).all()


def test_the_two_terms_are_rows_and_columns_of_the_probabilities() -> None:
    student, teacher = logits(0), logits(1)
    p, q = (student / 2).softmax(1), (teacher / 2).softmax(1)
    rows = torch.stack([1 - torch.corrcoef(torch.stack([p[i], q[i]]))[0, 1] for i in range(4)])
    columns = torch.stack([1 - torch.corrcoef(torch.stack([p[:, j], q[:, j]]))[0, 1] for j in range(3)])
    found = BetweenClasses(2.0)(Signals(student), Signals(teacher), BATCH, CLOCK)
    torch.testing.assert_close(found, 4 * rows, rtol=0, atol=4e-6)  # EPSILON over squared lengths
    found = BetweenExamples(2.0)(Signals(student), Signals(teacher), BATCH, CLOCK)
    torch.testing.assert_close(found, 4 * columns, rtol=0, atol=4e-6)


def test_a_copy_is_at_distance_zero() -> None:
    for term in (BetweenClasses(), BetweenExamples()):
        values = term(Signals(logits(2)), Signals(logits(2) + 3.0), BATCH, CLOCK)
        torch.testing.assert_close(values, torch.zeros_like(values), rtol=0, atol=1e-6)  # EPSILON over squared lengths


def test_refusals() -> None:
    for make in (BetweenClasses, BetweenExamples):
        for temperature in (-1.0, 0.0, float("nan"), float("inf")):
            with pytest.raises(RecipeError, match=f"temperature {temperature}"):
                make(temperature=temperature)
    with pytest.raises(ValueError, match="teacher"):
        BetweenClasses()(Signals(torch.zeros(4, 3)), Signals(torch.zeros(4, 2)), BATCH, CLOCK)
