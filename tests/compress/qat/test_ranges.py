"""Ranges of a distribution, and grids over ranges."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from compress.errors import RecipeError
from compress.qat.histogram import Histogram, counted, histogram
from compress.qat.ranges import (
    FLOOR,
    METHODS,
    Codes,
    LeastSquares,
    MeanMagnitude,
    Percentile,
    RangeRule,
    least_squares_shrink,
)
from compress.qat.rounding import rounding

INT8 = Codes(-128, 127, symmetric=True)
UINT8 = Codes(0, 255, symmetric=False)
INT4 = Codes(-8, 7, symmetric=True)
RULES: list[RangeRule] = [Percentile(), Percentile(90.0), LeastSquares(), MeanMagnitude()]
BIN = 2.0**-9  # relative width


def of(x: Tensor) -> Histogram:
    return histogram(counted(x))


def normal(count: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(0))


def test_the_grid_by_hand() -> None:
    assert UINT8.place(-1.0, 4.1) == (pytest.approx(0.02), 50)
    assert INT8.place(-1.27, 0.5) == (pytest.approx(0.01), 0)
    assert Codes(-128, 127, symmetric=False).place(0.0, 2.55) == (pytest.approx(0.01), -128)
    assert UINT8.place(2.0, 5.1) == (pytest.approx(0.02), 0)  # stretched to zero
    assert UINT8.place(-5.1, -2.0) == (pytest.approx(0.02), 255)
    assert UINT8.place(0.0, 0.0) == (FLOOR, 0)


def test_the_error_by_hand() -> None:
    # Codes -8..7 of step 1: 0.25 loses 0.25, 9.0 clips to 7, -8.4 to -8, twice.
    found = Histogram(torch.tensor([-8.4, 0.25, 9.0]).double(), torch.tensor([2.0, 1.0, 1.0]).double())
    error = INT4.error(found, torch.tensor([-7.0]).double(), torch.tensor([7.0]).double())
    assert float(error) == pytest.approx(2 * 0.16 + 0.0625 + 4.0)
    # Codes 0..3 of step 1 and zero point 1, so -1..2: -3 clips to -1, 1.4 loses 0.4.
    found = Histogram(torch.tensor([-3.0, 1.4]).double(), torch.tensor([1.0, 3.0]).double())
    error = Codes(0, 3, symmetric=False).error(found, torch.tensor([-1.0]).double(), torch.tensor([2.0]).double())
    assert float(error) == pytest.approx(4.0 + 3 * 0.16)


def test_percentile_by_hand() -> None:
    x = torch.arange(1, 101).float()  # 1 to 100; 98 percent inside cuts 1 value at the upper end, zero is the lower one
    assert Percentile(98.0).fit(of(x), INT8) == (0.0, pytest.approx(99.0, rel=BIN))
    assert Percentile(100.0).fit(of(x), INT8) == (0.0, pytest.approx(100.0, rel=BIN))
    both = torch.cat([-x, x])  # 200 values: 2 at each end
    assert Percentile(98.0).fit(of(both), INT8) == (pytest.approx(-98, rel=BIN), pytest.approx(98, rel=BIN))


def test_percentile_drops_an_outlier_and_keeps_the_exact_zero_of_a_relu() -> None:
    x = torch.linspace(0, 1, 30_001)
    x[-1] = 100.0
    low, high = Percentile(99.99).fit(of(x), UINT8)
    assert low == 0.0
    assert 0.99 < high < 1.01


@pytest.mark.parametrize(("low_code", "step"), [(-7, 0.3535), (-8, 0.3385)])
def test_least_squares_of_a_normal_distribution_with_four_bits(low_code: int, step: float) -> None:
    """The best steps of both grids by numerical integration over the density; the error is flat around them."""
    _, high = LeastSquares().fit(of(normal(200_000)), Codes(low_code, 7, symmetric=True))
    assert high / 7 == pytest.approx(step, rel=0.02)


def test_least_squares_is_the_best_of_a_fine_search() -> None:
    x = torch.cat([normal(20_000).abs(), 8 * torch.rand(30, generator=torch.Generator().manual_seed(1)), -x_tail()])
    found = of(x)
    for codes in (INT8, UINT8, Codes(0, 15, symmetric=False)):
        low, high = LeastSquares().fit(found, codes)

        def error(low: float, high: float, codes: Codes = codes) -> float:
            return float(codes.error(found, torch.tensor([low]).double(), torch.tensor([high]).double()))

        lows, highs = torch.linspace(0.02, 1, 40) * float(x.min()), torch.linspace(0.02, 1, 60) * float(x.max())
        searched = min(error(float(a), float(b)) for a in lows for b in highs)
        assert error(low, high) <= 1.02 * searched


def x_tail() -> Tensor:
    return torch.linspace(0, 0.6, 500)


def test_least_squares_hardly_clips_a_uniform_tensor() -> None:
    uniform = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert LeastSquares().fit(of(uniform), INT8)[1] > 0.97


def test_batches_together_differ_from_batches_alone() -> None:
    """One outlier batch of ten: the histogram weighs its values, not its extremes."""
    batches = [normal(1000), *[0.1 * normal(1000)] * 9]
    together = sum((counted(batch) for batch in batches[1:]), counted(batches[0]))
    _, high = Percentile(99.0).fit(histogram(together), INT8)
    assert 0.5 < high < 2.5  # 50 of 10 000 values lie above it, all of the first batch


def test_mean_magnitude_by_hand() -> None:
    # <|x|> = 2 (to the width of a bin): step 2 * 2 / sqrt(127), range step * 127.
    low, high = MeanMagnitude().fit(of(torch.tensor([-1.0, 3.0])), INT8)
    assert high == pytest.approx(4.0 * math.sqrt(127), rel=BIN)
    assert low == -high


@pytest.mark.parametrize("found", RULES, ids=lambda rule: type(rule).__name__)
@given(
    st.lists(st.floats(width=32), max_size=20),
    st.sampled_from([INT8, UINT8, INT4, Codes(-128, 127, symmetric=False)]),
)
def test_ranges_are_finite_hold_zero_and_make_a_valid_grid(found: RangeRule, values: list[float], codes: Codes) -> None:
    low, high = found.fit(of(torch.tensor(values)), codes)
    assert math.isfinite(low)
    assert math.isfinite(high)
    assert low <= 0.0 <= high
    scale, zero_point = codes.place(low, high)
    assert scale >= FLOOR
    assert math.isfinite(scale)
    assert codes.low <= zero_point <= codes.high
    assert not codes.symmetric or zero_point == 0


@pytest.mark.parametrize("found", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("codes", [INT8, UINT8])
def test_ranges_scale_with_the_tensor(found: RangeRule, codes: Codes) -> None:
    x = normal(5000) + 0.3
    low, high = found.fit(of(x), codes)
    assert found.fit(of(x * 64), codes) == (pytest.approx(low * 64), pytest.approx(high * 64))


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.sampled_from([INT8, UINT8, INT4]))
def test_a_grid_covers_its_range_to_half_a_step(low: float, width: float, codes: Codes) -> None:
    scale, zero_point = codes.place(low, low + width)
    assert (codes.high - zero_point) * scale >= (low + width) - scale * 0.501
    assert (codes.low - zero_point) * scale <= low + scale * 0.501


@pytest.mark.parametrize("inside", [50.0, 100.1, float("nan")])
def test_refuses_a_percentile_out_of_range(inside: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        Percentile(inside)
    with pytest.raises(RecipeError, match="percentile"):
        rounding("percentile", percentile=inside)


def test_refuses_unknown_names() -> None:
    with pytest.raises(RecipeError, match=f"'entropy'; there are {', '.join(METHODS)}"):
        rounding("entropy")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="weight range method is called 'mean'; there are max, mse"):
        rounding(weight_ranges="mean")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="kind of steps is called 'fixed'; there are observed, learned"):
        rounding(steps="fixed")  # type: ignore[arg-type]


def test_weight_shrink_is_the_best_of_its_candidates_and_follows_no_factor() -> None:
    weight = normal(8 * 200).reshape(8, 200)
    weight[3] = 0.0
    weight[5] = torch.tensor([-1.0, 0.0, 1.0, 1.0]).repeat(50)  # exactly on the grid as it is
    shrink = least_squares_shrink(weight, 0, 7)
    assert shrink[3] == 1
    assert shrink[5] == 1
    assert 0.5 <= float(shrink[0]) < 0.95
    assert torch.equal(least_squares_shrink(weight * 17.0, 0, 7), shrink)
    assert torch.equal(least_squares_shrink(weight.T, 1, 7), shrink)
    for row, factor in zip(weight, shrink.tolist(), strict=True):
        errors = {}
        for candidate in {1.0, 0.9, 0.8, 0.7, 0.6, factor}:
            step = candidate * float(row.abs().max()) / 7 or 1.0
            errors[candidate] = float(((row / step).round().clamp(-7, 7) * step - row).square().sum())
        assert errors[factor] <= min(errors.values()) * 1.0001
