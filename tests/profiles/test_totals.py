import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import profiles
from profiles import totals
from profiles.errors import ProfileError
from profiles.totals import Anchor, Spread

JETSON = profiles.target("jetson")


def test_the_parts_are_those_worked_by_hand() -> None:
    table = totals._table("nvidia-gpu")
    hardware = JETSON.hardware
    body, fixed = totals.parts_ms(JETSON, 4e9, 11e6, 25e6, 8, "fp16")
    compute = table["compute"] * 2 * 4e9 * 8 / (hardware.tops["fp16"] * 1e12) * 1e3
    traffic = (table["activations"] * 11e6 * 8 + table["weights"] * 25e6) * 2 / (hardware.bandwidth_gbs * 1e9) * 1e3
    assert body == pytest.approx(compute + traffic)
    assert fixed == pytest.approx(table["fixed_us"] / hardware.clock_mhz)


def test_without_anchors_the_prior_is_the_posterior() -> None:
    prior = Spread(0.3, 0.5, 0.2)
    line = totals.fit_line([], prior)
    assert (line.log_scale, line.log_fixed) == (0.0, 0.0)
    ms, deviation = line.predict(3.0, 1.0)
    assert ms == 4.0
    assert deviation == pytest.approx(math.sqrt((0.75 * 0.3) ** 2 + (0.25 * 0.5) ** 2 + 0.2**2))


def test_one_anchor_without_a_fixed_time_is_a_weighted_mean() -> None:
    # Effect of variance 0.09, residual 0.04: the logarithm moves by 0.09 / 0.13 of what the anchor is off.
    line = totals.fit_line([(2.0, 0.0, 4.0)], Spread(0.3, 0.5, 0.2))
    assert line.log_scale == pytest.approx(0.09 / 0.13 * math.log(2.0))
    assert line.covariance[0, 0] == pytest.approx(1 / (1 / 0.09 + 1 / 0.04))


@given(st.floats(0.3, 3.0), st.floats(0.3, 3.0))
def test_many_exact_anchors_find_their_line(scale: float, fixed: float) -> None:
    anchors = [(body, 1.0, scale * body + fixed) for body in np.geomspace(0.02, 50.0, 40)]
    line = totals.fit_line(anchors, Spread(0.5, 0.5, 0.05))
    assert math.exp(line.log_scale) == pytest.approx(scale, rel=0.02)
    assert math.exp(line.log_fixed) == pytest.approx(fixed, rel=0.02)


@given(st.lists(st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 10.0), st.floats(1e-3, 1e3)), max_size=6))
def test_anchors_never_widen_the_prior(anchors: list[tuple[float, float, float]]) -> None:
    prior = Spread(0.3, 0.5, 0.2)
    line = totals.fit_line(anchors, prior)
    assert line.covariance[0, 0] <= prior.scale**2 * (1 + 1e-9)
    assert line.covariance[1, 1] <= prior.fixed**2 * (1 + 1e-9)
    assert np.isfinite(line.log_scale)
    assert totals.fit_line(anchors[::-1], prior).log_scale == pytest.approx(line.log_scale, abs=1e-6)


def test_intervals_hold_nine_in_ten_of_networks_drawn_from_the_model() -> None:
    rng = np.random.default_rng(0)
    prior, inside = Spread(0.4, 0.5, 0.2), []
    for _ in range(600):
        scale, fixed = np.exp(rng.normal(0, [prior.scale, prior.fixed]))
        body = np.exp(rng.normal(0, 1.5, 3))
        ms = (scale * body + fixed) * np.exp(rng.normal(0, prior.residual, 3))
        line = totals.fit_line([(b, 1.0, m) for b, m in zip(body[:2], ms[:2], strict=True)], prior)
        predicted, deviation = line.predict(body[2], 1.0)
        inside.append(abs(math.log(ms[2] / predicted)) <= 1.645 * deviation)
    assert 0.86 <= np.mean(inside) <= 0.94


def test_more_work_never_takes_less_time() -> None:
    for name in ("a100", "jetson", "hearing-aid", "x86"):
        times = [totals.predict_totals(name, macs, macs / 400, macs / 200).latency_ms for macs in (1e6, 1e7, 1e8, 1e9)]
        assert times == sorted(times)
        batches = [totals.predict_totals(name, 1e9, 1e7, 1e6, batch).latency_ms for batch in (1, 2, 8)]
        assert batches == sorted(batches)


def test_two_anchors_move_and_narrow_a_prediction() -> None:
    alone = totals.predict_totals(JETSON, 4e9, 11e6, 25e6)
    anchors = [
        Anchor(2.5 * totals.predict_totals(JETSON, macs, 8e6, 1e7).latency_ms, macs, 8e6, 1e7) for macs in (2e9, 8e9)
    ]
    near = totals.predict_totals(JETSON, 4e9, 11e6, 25e6, anchors=anchors)
    assert 1.4 * alone.latency_ms < near.latency_ms < 2.6 * alone.latency_ms
    assert near.interval_ms[1] / near.interval_ms[0] < alone.interval_ms[1] / alone.interval_ms[0]
    assert near.origin == "predicted"
    assert any("calibrated by 2" in note for note in near.notes)
    assert any("any source" in note for note in alone.notes)


def test_the_latency_table_of_a_target_reproduces_the_anchors(nets: object) -> None:
    from dataclasses import replace

    import torch

    from profiles.predict import predict

    small = profiles.read(torch.nn.Conv2d(3, 8, 3), example=torch.zeros(1, 3, 32, 32))
    large = profiles.read(torch.nn.Conv2d(64, 256, 3), example=torch.zeros(1, 64, 256, 256))
    times = [2 * predict(graph, JETSON, layers=False).latency_ms for graph in (small, large)]
    anchors = [Anchor(ms, graph=graph) for ms, graph in zip(times, (small, large), strict=True)]
    own = replace(JETSON, latency=totals.latency_table(JETSON, anchors))
    for graph, ms in zip((small, large), times, strict=True):
        cost = predict(graph, own, layers=False)
        assert abs(cost.latency_ms - ms) < 0.5 * ms / 2  # more than half of the way from the family's own figure
        assert cost.interval_ms[0] < ms < cost.interval_ms[1]


@pytest.mark.parametrize(
    ("macs", "batch", "anchors", "what"),
    [
        (0.0, 1, (), "macs is 0"),
        (float("inf"), 1, (), "macs is inf"),
        (1e9, 0, (), "batch is 0"),
        (1e9, 1, (Anchor(1.0),), "both or neither"),
        (1e9, 1, (Anchor(-1.0, 1e9),), "took -1"),
    ],
)
def test_wrong_figures_are_refused(macs: float, batch: int, anchors: tuple[Anchor, ...], what: str) -> None:
    with pytest.raises(ProfileError, match=what):
        totals.predict_totals(JETSON, macs, batch=batch, anchors=anchors)


def test_a_target_needs_two_graphs_for_its_table() -> None:
    with pytest.raises(ProfileError, match="two constants need at least two"):
        totals.latency_table(JETSON, [Anchor(1.0, 1e9)])
    with pytest.raises(ProfileError, match="no graph"):
        totals.latency_table(JETSON, [Anchor(1.0, 1e9), Anchor(2.0, 2e9)])
