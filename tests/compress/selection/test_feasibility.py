"""Sentences about budgets: worked by hand, and the rule for straddling intervals."""

from dataclasses import replace

import pytest

from compress.contracts.selector import Candidate
from compress.selection.feasibility import binding, judged_latency_ms, reject, straddles
from profiles.cost import Cost
from profiles.target import Budget

COST = Cost(
    target="jetson",
    runtime="tensorrt",
    batch=1,
    precision="int8",
    macs=2_000_000,
    params=40_000,
    weight_bytes=40_960,
    peak_activation_bytes=10_240,
    latency_ms=7.1,
    interval_ms=(5.2, 9.8),
    origin="predicted",
)


def candidate(cost: Cost, rejected: str | None = "over") -> Candidate:
    return Candidate("a", f"{cost.macs} {cost.weight_bytes} {cost.latency_ms}", cost, rejected)


def test_says_which_constraint_and_by_how_much() -> None:
    said = reject(COST, Budget(), 5.0)
    assert said == "latency 7.1 ms (predicted, 5.2 to 9.8) is over the budget of 5 ms by 2.1 ms"


def test_names_every_broken_constraint() -> None:
    budget = Budget(peak_activation_bytes=9 * 1024, weight_bytes=30 * 1024, macs=500_000)
    said = reject(COST, budget, None)
    assert said == (
        "peak activation memory 10.0 KiB is over the budget of 9.0 KiB by 1.0 KiB; "
        "weight memory 40.0 KiB is over the budget of 30.0 KiB by 10.0 KiB; "
        "multiply-accumulates 2 M is over the budget of 500 k by 1.5 M"
    )


def test_a_figure_equal_to_its_limit_stays() -> None:
    budget = Budget(peak_activation_bytes=10_240, weight_bytes=40_960, macs=2_000_000)
    assert reject(COST, budget, 7.1) is None


def test_no_limit_admits_everything() -> None:
    assert reject(COST, Budget(), None) is None


@pytest.mark.parametrize(
    ("limit_ms", "caution", "stays"),
    [(8.0, 0.0, True), (8.0, 1.0, False), (6.0, 0.0, False), (9.8, 1.0, True), (8.45, 0.5, True), (8.4, 0.5, False)],
)
def test_straddling_intervals_are_judged_by_the_median_moved_by_caution(
    limit_ms: float, caution: float, stays: bool
) -> None:
    said = reject(COST, Budget(), limit_ms, caution)
    assert (said is None) is stays
    if caution and said:
        assert "only a measurement would tell" in said  # its median is within


def test_what_is_over_at_its_median_says_where_it_was_judged() -> None:
    said = reject(COST, Budget(), 6.0, 0.5)
    assert said is not None
    assert f"judged as {judged_latency_ms(COST, 0.5):.3g} ms" in said


@pytest.mark.parametrize(
    ("limit_ms", "weights", "could"),
    [(8.0, 40_960, True), (9.8, 40_960, False), (5.2, 40_960, True), (5.1, 40_960, False), (8.0, 1_024, False)],
)
def test_a_measurement_helps_only_between_the_ends_of_the_interval(limit_ms: float, weights: int, could: bool) -> None:
    # From 9.8 on it is within for sure, below 5.2 it is over for sure; bytes are counted and no measurement helps.
    assert straddles(COST, Budget(weight_bytes=weights), limit_ms) is could


def test_energy_is_judged_like_latency_and_refused_where_it_is_unknown() -> None:
    known = replace(COST, energy_mj=2.0, energy_interval_mj=(1.5, 3.0))
    assert reject(known, Budget(energy_mj=2.5), None) is None
    assert "only a measurement would tell" in str(reject(known, Budget(energy_mj=2.5), None, 1.0))
    assert "by 0.5 mJ" in str(reject(known, Budget(energy_mj=1.5), None))
    assert "energy unknown" in str(reject(COST, Budget(energy_mj=2.5), None))
    assert straddles(known, Budget(energy_mj=2.5), None)


def test_caution_does_not_touch_what_was_measured() -> None:
    assert reject(replace(COST, origin="measured"), Budget(), 8.0, caution=1.0) is None


def test_binding_names_the_constraint_that_is_cheapest_to_loosen() -> None:
    slow = replace(COST, latency_ms=6.0, weight_bytes=20_480)  # latency 1.2 of 5 ms
    heavy = replace(COST, latency_ms=4.0, weight_bytes=61_440)  # weights 2.0 of 30 KiB
    both = replace(COST, latency_ms=5.1, weight_bytes=31_000)  # nearly fits, but breaks two
    budget = Budget(weight_bytes=30 * 1024)
    found = binding([candidate(heavy), candidate(both), candidate(slow)], budget, 5.0)
    assert found is not None
    assert found.constraints == ("latency",)
    assert found.needed == {"latency": 6.0}
    assert found.nearest.cost is slow
    assert found.met == {"latency": 1, "weight memory": 1}
    assert str(found) == (
        "latency binds: the nearest has latency 6 ms (predicted, 5.2 to 9.8), which needs a budget of 6 ms instead of "
        "5 ms (met: latency by 1 of 3, weight memory by 1 of 3)"
    )


def test_binding_names_all_where_none_alone_would_do() -> None:
    found = binding([candidate(COST)], Budget(weight_bytes=1024), 5.0)
    assert found is not None
    assert found.constraints == ("weight memory", "latency")  # 40 times over, 1.42 times over
    assert "weight memory and latency bind" in str(found)


def test_what_binding_says_is_needed_lets_the_nearest_in() -> None:
    found = binding([candidate(COST), candidate(replace(COST, latency_ms=9.0))], Budget(), 5.0)
    assert found is not None
    assert reject(found.nearest.cost, Budget(), found.needed["latency"]) is None


def test_nothing_binds_where_something_fits_or_there_is_nothing() -> None:
    assert binding([candidate(COST), candidate(COST, rejected=None)], Budget(), 5.0) is None
    assert binding([], Budget(), 5.0) is None


def test_another_reason_is_quoted() -> None:
    found = binding([candidate(COST, "was built and missed: 3 points lost")], Budget(), 50.0)
    assert found is not None
    assert found.constraints == ()
    assert "1 of 1" in str(found)
    assert "3 points lost" in str(found)
