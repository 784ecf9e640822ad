"""The law's numbers: the paper's fit and its inverse, optima between grid points, boundaries, intervals, refusals."""

import math

import pytest

from compress.selection.capacity_gap import (
    PRIOR,
    PUBLISHED,
    Law,
    Pilot,
    choose_student,
    choose_teacher,
    decoder_params,
    doubt,
    fit_law,
    fit_pilots,
    optima,
    optimum_teacher,
    side_sparsity,
    side_sparsity_percent,
)

SEVEN_DIGITS = 5e-8


@pytest.mark.parametrize(
    ("sparsity", "side", "percent"),
    [(0.1, 0.0513167, 5), (0.5, 0.2928932, 29), (0.6, 0.3675445, 37), (0.9, 0.6837722, 68), (0, 0, 0), (1, 1, 100)],
)
def test_sparsity_of_a_side(sparsity: float, side: float, percent: int) -> None:
    assert side_sparsity(sparsity) == pytest.approx(side, abs=SEVEN_DIGITS)
    assert side_sparsity_percent(sparsity) == percent
    assert (1 - side_sparsity(sparsity)) ** 2 == pytest.approx(1 - sparsity)


@pytest.mark.parametrize("sparsity", [-0.01, 1.01, math.nan])
def test_a_sparsity_outside_of_0_to_1_is_refused(sparsity: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        side_sparsity(sparsity)


def test_parameters_of_the_published_3b_student() -> None:
    assert decoder_params(vocabulary=32_000, hidden=3072, layers=0, feed_forward=8192) == 2 * 98_304_000
    assert decoder_params(vocabulary=0, hidden=3072, layers=1, feed_forward=8192) == 113_246_208
    assert decoder_params(vocabulary=32_000, hidden=3072, layers=24, feed_forward=8192) == 2_914_516_992


def test_the_line_is_found_again() -> None:
    students = [50.0, 100.0, 200.0, 400.0]
    fit = fit_law(students, [2.498 * s - 11.498 for s in students])
    assert (fit.slope, fit.intercept_m, fit.r2) == pytest.approx((2.498, -11.498, 1.0), abs=1e-9)
    assert fit.ci is None
    assert fit.law.teacher_m(1000) == pytest.approx(2486.502)


def test_a_line_through_scattered_optima() -> None:
    fit = fit_law([50, 100, 200, 400], [125, 220, 520, 980])
    assert fit.slope == pytest.approx(2.48086957, abs=5e-9)
    assert fit.intercept_m == pytest.approx(-3.91304348, abs=5e-9)
    assert fit.r2 == pytest.approx(0.99673584, abs=5e-9)


def test_weights_repeat_a_point_and_0_leaves_it_out() -> None:
    once = fit_law([50, 100, 200, 200], [125, 220, 520, 520])
    weighted = fit_law([50, 100, 200, 400], [125, 220, 520, 1e6], [1, 1, 2, 0])
    assert (weighted.slope, weighted.intercept_m, weighted.r2) == pytest.approx((once.slope, once.intercept_m, once.r2))


@pytest.mark.parametrize(
    ("students", "teachers", "weights"),
    [
        ([], [], None),
        ([50], [100], None),
        ([50, 50], [100, 120], None),
        ([50, 60], [1, 2], [1, 0]),
        ([1, 2], [1], None),
    ],
)
def test_no_line_is_drawn_through_one_point(
    students: list[float], teachers: list[float], weights: list[float] | None
) -> None:
    with pytest.raises(ValueError, match="two student sizes"):
        fit_law(students, teachers, weights)


def test_the_law_and_its_inverse() -> None:
    assert PUBLISHED.teacher_m(1000) == pytest.approx(2486.502)
    assert PUBLISHED.student_m(6740) == pytest.approx(2702.7614, abs=5e-5)
    assert PRIOR.teacher_m(1000) == 2500
    assert choose_student(6740) == PRIOR.student_m(6740) == 2696
    for size in (8.0, 100.0, 6740.0):
        assert PUBLISHED.student_m(PUBLISHED.teacher_m(size)) == pytest.approx(size)


def test_the_line_is_not_used_where_it_gives_a_teacher_below_the_student() -> None:
    assert PUBLISHED.teacher_m(7.7) > 7.7
    with pytest.raises(ValueError, match="no larger"):
        PUBLISHED.teacher_m(7.6)
    with pytest.raises(ValueError, match="not fitted there"):
        PUBLISHED.student_m(5.0)
    with pytest.raises(ValueError, match="not fitted there"):
        Law(2.0, 50.0, "").student_m(40.0)


def test_the_optimum_lies_between_grid_points() -> None:
    sizes, losses = [100, 200, 400, 800], [3.30, 3.20, 3.18, 3.25]
    assert optimum_teacher(sizes, losses, nearest=None) == (pytest.approx(324.90096, abs=5e-6), "interior")
    assert optimum_teacher(sizes, losses) == (pytest.approx(329.94424, abs=5e-6), "interior")


def test_a_parabola_in_the_logarithm_gives_its_vertex_back() -> None:
    sizes = [10.0, 30.0, 90.0, 270.0, 810.0]
    losses = [(math.log(size) - math.log(123.0)) ** 2 + 2 for size in sizes]
    for nearest in (3, 4, None):
        assert optimum_teacher(sizes, losses, nearest) == (pytest.approx(123.0), "interior")
    # Neither the order, nor the unit of size, nor that of loss matters.
    size, where = optimum_teacher([1e3 * s for s in reversed(sizes)], [7 * loss for loss in reversed(losses)])
    assert (size, where) == (pytest.approx(123e3), "interior")


@pytest.mark.parametrize(
    ("losses", "size"), [([4, 3, 2, 1], 800), ([1, 2, 3, 4], 100), ([1, 2, 2.5, 2.6], 100), ([2, 1, 1.5, 1.55], 200)]
)
def test_curves_without_a_bottom_are_boundaries(losses: list[float], size: float) -> None:
    # The last has its least loss inside the grid, but the three best points bend downwards there.
    assert optimum_teacher([100, 200, 400, 800], losses) == (size, "boundary")


@pytest.mark.parametrize(
    ("sizes", "losses"),
    [
        ([1, 2], [1, 2]),
        ([1, 2, 2], [1, 2, 3]),
        ([0, 1, 2], [1, 2, 3]),
        ([1, 2, 3], [1, math.nan, 3]),
        ([1, 2, 3], [1, 2]),
    ],
)
def test_what_is_no_curve_is_refused(sizes: list[float], losses: list[float]) -> None:
    with pytest.raises(ValueError, match="sizes"):
        optimum_teacher(sizes, losses)


TEACHERS = [10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0]


def pilots(slope: float, students: list[float], noise: float = 0.0, seeds: int = 3) -> list[Pilot]:
    """Losses that are parabolas in ln T with their bottom at slope x S; `noise` moves the bottom between seeds."""
    return [
        Pilot(s, t, (math.log(t) - math.log(slope * s) - noise * (seed - 1)) ** 2, seed)
        for s in students
        for t in TEACHERS
        for seed in range(seeds)
    ]


def test_a_grid_gives_its_law_with_an_interval() -> None:
    exact = fit_pilots(pilots(3.0, [10, 20, 40, 80]), resamples=50)
    assert exact is not None
    assert exact.ci is not None
    assert (exact.slope, exact.r2) == pytest.approx((3.0, 1.0))
    assert exact.ci.slope == pytest.approx((3.0, 3.0))
    assert (exact.ci.undefined, exact.boundary_hits) == (0.0, 0)

    noisy = fit_pilots(pilots(3.0, [10, 20, 40, 80], noise=0.2), resamples=300, seed=1)
    assert noisy is not None
    assert noisy.ci is not None
    low, high = noisy.ci.slope
    # Drawing three seeds of three moves ln of the bottom by -0.2 to 0.2 at most, the seeds' own offsets.
    assert 3 * math.exp(-0.2) - 1e-6 <= low < 2.8 < 3.0 < 3.2 < high <= 3 * math.exp(0.2) + 1e-6
    assert noisy == fit_pilots(pilots(3.0, [10, 20, 40, 80], noise=0.2), resamples=300, seed=1)


def test_boundary_optima_are_reported_and_not_fitted() -> None:
    fit = fit_pilots(pilots(3.0, [1, 20, 40, 80, 900]), resamples=20)
    assert fit is not None
    assert [optimum.where for optimum in fit.per_student_optimum] == ["boundary", *["interior"] * 3, "boundary"]
    assert fit.boundary_hits == 2
    assert fit.slope == pytest.approx(3.0)
    assert fit_pilots(pilots(3.0, [1, 20, 900]), resamples=20) is None


def test_families_do_not_mix() -> None:
    other = [Pilot(p.student_m, p.teacher_m, p.loss + 9, p.seed, family="b") for p in pilots(3.0, [10, 20])]
    found = optima([*pilots(3.0, [10, 20]), *other])
    assert [(o.family, o.student_m) for o in found] == [("", 10), ("", 20), ("b", 10), ("b", 20)]
    assert [o.teacher_m for o in found] == pytest.approx([30, 60, 30, 60])


def test_too_few_teachers_are_refused() -> None:
    with pytest.raises(ValueError, match="takes 5"):
        optima([pilot for pilot in pilots(3.0, [10]) if pilot.teacher_m < 100])


def test_a_fit_is_trusted_only_above_equal_size() -> None:
    good = fit_pilots(pilots(3.0, [10, 20, 40]), resamples=20)
    assert doubt(good) is None
    assert "fewer than two" in (doubt(None) or "")
    assert "equal size" in (doubt(fit_pilots(pilots(0.9, [30, 60, 120]), resamples=20)) or "")
    assert "no resample" in (doubt(fit_law([1, 2], [3, 6])) or "")


def test_the_teacher_among_several() -> None:
    catalogue = {"small": 60.0, "middle": 240.0, "large": 900.0}
    choice = choose_teacher(catalogue, 100.0)
    assert (choice.name, choice.target_m, choice.ratio, choice.assistant_m) == ("middle", 250.0, 2.4, None)
    # 316 lies between by ratio: 2.5 x 100 = 250 is nearer to the smaller, 2.5 x 250 = 625 to the larger.
    assert choose_teacher({"a": 100.0 * 10**0.5, "b": 1000.0}, 250.0).name == "b"
    # Nothing smaller than the student teaches it while there is a larger one.
    assert choose_teacher({"small": 90.0, "large": 90_000.0}, 100.0).name == "large"
    assert choose_teacher({"small": 90.0}, 100.0).name == "small"


def test_an_assistant_stands_between_a_student_and_a_teacher_that_is_much_larger() -> None:
    assert choose_teacher({"huge": 625.0}, 100.0).assistant_m == 250.0  # the law fits in exactly twice
    assert choose_teacher({"large": 624.0}, 100.0).assistant_m is None


@pytest.mark.parametrize(("catalogue", "student"), [({}, 1.0), ({"a": 0.0}, 1.0), ({"a": 1.0}, 0.0)])
def test_a_choice_of_nothing_is_refused(catalogue: dict[str, float], student: float) -> None:
    with pytest.raises(ValueError, match="sizes above 0"):
        choose_teacher(catalogue, student)
