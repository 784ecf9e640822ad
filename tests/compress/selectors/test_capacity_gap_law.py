"""Sizes worked by hand, small runs that fit the law anew, and what is said where they cannot."""

from typing import Any

import pytest
import torch
from torch import nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.selector import Candidate
from compress.contracts.task import TrainingNumbers
from compress.errors import RecipeError
from compress.selection import pilots
from compress.selection.capacity_gap import PRIOR, PUBLISHED
from compress.selectors import capacity_gap_law
from compress.selectors.capacity_gap_law import SELECTOR
from tests.compress.selectors.problems import Number, Numbered, Numbers, Toy, candidate, cost_of


def sized(value: int, params: int, rejected: str | None = None) -> Candidate:
    return Candidate("a", Number(value), cost_of(20 * params), rejected)


SIZES = [1_000, 4_000, 16_000, 64_000, 256_000]
POOL = [sized(value, params) for value, params in enumerate(SIZES)]


def values(selection: Any) -> list[int]:
    return [c.plan.value for c in selection.ranked]


@pytest.mark.parametrize(("teacher_m", "student_m", "nearest"), [(0.04, 0.016, 2), (0.1, 0.04, 3), (9.0, 3.6, 4)])
def test_the_students_nearest_to_the_laws_size_are_tried(teacher_m: float, student_m: float, nearest: int) -> None:
    some = Numbered(POOL, lambda value, share, seed: 1.0, training=2 / 16)
    selection = SELECTOR(teacher_m=teacher_m, finalists=0)(some)
    assert selection.notes["student_m"] == pytest.approx(student_m)
    assert selection.notes["nearest_m"] == SIZES[nearest] / 1e6
    assert some.asked[0] == (nearest, 1 / 16, 0)
    assert len(some.asked) == 2


def test_by_ratio_and_not_by_difference() -> None:
    # 0.008 M lies between 0.004 and 0.016 in equal ratios; 0.009 is nearer to 0.016, though 0.005 from 0.004.
    for student_m, first in ((0.0079, 1), (0.0081, 2)):
        some = Numbered(POOL, lambda value, share, seed: 1.0, training=1 / 16)
        SELECTOR(teacher_m=2.5 * student_m, finalists=0)(some)
        assert some.asked[0][0] == first


def test_a_better_score_near_the_size_wins() -> None:
    scores = {0: 0.9, 1: 0.5, 2: 0.6, 3: 0.7, 4: 0.95}
    some = Numbered(POOL, lambda value, share, seed: scores[value], training=3 / 16)
    selection = SELECTOR(teacher_m=0.04, finalists=0)(some)  # 0.016 M: the student 2 and its neighbours
    assert values(selection)[0] == 3
    assert values(selection)[1:3] == [2, 1]
    assert values(selection)[3:] == [4, 0]  # equally far: the one that computes more
    assert SELECTOR(teacher_m=0.04)(Numbered(POOL, lambda v, s, d: scores[v], training=0.0)).ranked[0].plan.value == 2


def test_rejected_students_are_not_near() -> None:
    pool = [*POOL[:2], sized(2, SIZES[2], "over"), *POOL[3:]]
    some = Numbered(pool, lambda value, share, seed: 1.0, training=1 / 16)
    assert values(SELECTOR(teacher_m=0.04)(some))[-1] == 2
    assert some.asked == [(3, 1 / 16, 0)]  # equally far as 1


def test_the_teachers_parameters_are_counted() -> None:
    some = Numbered(POOL, lambda value, share, seed: 1.0, training=1.0)
    some.teacher = nn.Linear(99, 100)
    assert SELECTOR()(some).notes["teacher_m"] == 0.01


def test_a_black_box_has_to_be_told() -> None:
    with pytest.raises(RecipeError, match="black box") as caught:
        SELECTOR()(Numbered(POOL, lambda value, share, seed: 1.0, training=1.0))
    assert "teacher_m" in str(caught.value.fix)


def test_the_published_line_is_refused_for_small_teachers() -> None:
    some = Numbered(POOL, lambda value, share, seed: 1.0, training=1.0)
    line = SELECTOR(slope=PUBLISHED.slope, intercept_m=PUBLISHED.intercept_m, teacher_m=0.3)
    with pytest.raises(RecipeError, match="no student size"):
        line(some)
    assert SELECTOR(slope=2.498, intercept_m=-11.498, teacher_m=6740)(some).notes["student_m"] == pytest.approx(
        2702.7614, abs=5e-5
    )


def test_the_report_says_what_the_prior_rests_on() -> None:
    some = Numbered(POOL, lambda value, share, seed: 1.0, training=1.0)
    law = SELECTOR(teacher_m=0.04)(some).notes["law"]
    assert law == {"slope": 2.5, "intercept_m": 0.0, "source": PRIOR.source}
    assert "language models" in law["source"]


class Learnable(Toy):
    teacher_numbers = TrainingNumbers(epochs=1, batch_size=16, learning_rate=0.05)


class Widths(Numbers):  # type: ignore[misc]
    """MLPs with as many hidden units as the number says."""

    def build(self, plan: Number) -> nn.Module:
        return nn.Sequential(nn.Linear(2, plan.value), nn.ReLU(), nn.Linear(plan.value, 2))


def learnable(training: float) -> Numbered:
    widths = (1, 2, 4, 8, 16, 32, 64)
    pool = [Candidate("a", Number(w), cost_of(20 * (5 * w + 2))) for w in widths]
    some = Numbered(pool, lambda value, share, seed: 1.0, training=training, spaces={"a": Widths(most=64)})
    some.task = Learnable()
    inputs = torch.randn(96, 2, generator=torch.Generator().manual_seed(0))
    examples = TensorExamples(inputs, (inputs[:, 0] > 0).long(), "circle")
    some.splits = Splits(examples, examples, examples)
    return some


def test_small_runs_are_charged_and_reported() -> None:
    some = learnable(training=4.0)
    notes = SELECTOR(teacher_m=0.001, pilot=0.5, pilot_epochs=1)(some).notes
    assert pilots.runs(1) == 20
    assert some.charged == [(2.0, "small runs for the law of capacity gap")]  # 2 seeds of 20 runs of 1/20
    assert notes["pilot"]["runs"] == 40
    assert notes["pilot"]["used"] == (notes["law"]["source"] != PRIOR.source)
    assert notes["pilot"]["used"] or notes["pilot"]["why"]
    assert some.spent <= 4.0
    again = learnable(training=4.0)
    assert SELECTOR(teacher_m=0.001, pilot=0.5, pilot_epochs=1)(again).notes == notes


def test_a_fit_of_small_runs_replaces_the_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    import math

    from compress.selection.capacity_gap import Pilot

    def rows(problem: Any, grid: Any, epochs: int, alpha: float) -> list[Pilot]:
        sizes = [10.0, 20.0, 40.0, 80.0, 160.0]
        return [Pilot(s, t, (math.log(t / (4 * s))) ** 2, seed) for s in (5, 10, 20) for t in sizes for seed in (0, 1)]

    monkeypatch.setattr(capacity_gap_law.pilots, "run", rows)
    notes = SELECTOR(teacher_m=0.001, pilot=0.9)(learnable(training=4.0)).notes
    assert notes["pilot"]["used"]
    assert notes["law"]["slope"] == pytest.approx(4.0)
    assert notes["student_m"] == pytest.approx(0.00025, rel=1e-3)


def test_small_runs_that_cannot_be_paid_leave_the_prior() -> None:
    some = learnable(training=0.5)
    notes = SELECTOR(teacher_m=0.001, pilot=0.5, pilot_epochs=1)(some).notes
    assert not notes["pilot"]["used"]
    assert "0.25 full trainings were allowed" in notes["pilot"]["why"]
    assert notes["law"]["source"] == PRIOR.source
    assert some.charged == []


def test_the_grid_spans_the_pool() -> None:
    pool = [sized(n, 1000 * 2**n, rejected="over" if n > 5 else None) for n in range(9)]
    found = pilots.grid(pool, 45)
    assert found is not None
    assert [c.plan.value for c in found.teachers] == [0, 2, 4, 6, 8]
    assert [c.plan.value for c in found.students] == [0, 2, 4]
    assert (found.seeds, found.runs) == (2, 40)
    assert pilots.grid(pool, 19) is None
    assert pilots.grid(pool[:4], 45) is None
    assert pilots.grid([candidate(1)] * 9, 45) is None


@pytest.mark.parametrize(
    "settings",
    [
        {"slope": 1.0},
        {"intercept_m": float("nan")},
        {"teacher_m": -1.0},
        {"pilot": 1.0},
        {"pilot_epochs": 0},
        {"alpha": 1.1},
    ],
)
def test_nonsense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=next(iter(settings))):
        SELECTOR(**settings)
