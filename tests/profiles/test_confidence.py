import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.confidence import long_run_variance, median_interval


def test_ranks_by_hand() -> None:
    # 100 times, the second half of them shuffled among the first: half of the width in ranks is t * 0.5 / sqrt(100).
    times = np.random.default_rng(0).permutation(np.arange(1.0, 101.0))
    assert long_run_variance(times <= 50.5) == pytest.approx(0.25, rel=0.5)
    low, high = median_interval(np.arange(1.0, 12.0))  # 11 times, taken as independent
    # t for 10 degrees of freedom is 1.8125: 11 * (0.5 -+ 1.8125 * 0.5 / sqrt(11)) = 2.49 and 8.51: ranks 2 and 9 (from
    # 1), and one more above, for the upper end is the first time that is certainly not below.
    assert (low, high) == (2.0, 10.0)


def test_a_constant_time_has_no_width() -> None:
    assert median_interval(np.full(50, 3.0)) == (3.0, 3.0)


def test_one_run_is_its_own_interval() -> None:
    assert median_interval(np.array([2.0])) == (2.0, 2.0)


def test_slow_waves_count_as_few_runs() -> None:
    """A sine over the whole measurement: neighbours say the same, so the median is hardly known."""
    wave = 10 + np.sin(np.linspace(0, 6 * math.pi, 600))
    shuffled = np.random.default_rng(0).permutation(wave)
    widths = [high - low for low, high in (median_interval(wave), median_interval(shuffled))]
    assert widths[0] > 3 * widths[1]


@pytest.mark.parametrize(("memory", "count", "least"), [(0.0, 100, 0.88), (0.5, 300, 0.84), (0.9, 1000, 0.84)])
def test_nine_of_ten_intervals_contain_the_true_median(memory: float, count: int, least: float) -> None:
    """First-order autoregressive log times around a median of 1; 84 % is 90 % minus five standard errors of 300."""
    rng = np.random.default_rng(7)
    inside = 0
    for _ in range(300):
        noise = rng.standard_normal(count + 100)
        level = np.empty_like(noise)
        level[0] = noise[0]
        for index in range(1, len(noise)):
            level[index] = memory * level[index - 1] + noise[index]
        low, high = median_interval(np.exp(0.1 * level[100:]))
        inside += low <= 1.0 <= high
    assert least <= inside / 300 <= 0.98


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=200), st.floats(0.01, 100))
def test_it_contains_the_median_and_scales_with_the_unit(values: list[float], unit: float) -> None:
    times = np.array(values)
    low, high = median_interval(times)
    assert low <= np.median(times) <= high
    scaled = median_interval(times * unit)
    assert scaled == pytest.approx((low * unit, high * unit))
