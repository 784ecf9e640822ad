import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from profiles import machine, measure
from profiles.errors import ProfileError
from profiles.measure import Setup, TensorSpec, UnsteadyError, compare, example_inputs

SETUP = Setup(batch=1, threads=1, device="a clockwork", runtime="test", clock="made up")


def playing(times: list[float]) -> measure.Sample:
    """A sample that takes these milliseconds in turn, for ever."""
    position = iter(range(1 << 30))
    return lambda: times[next(position) % len(times)]


@pytest.fixture(autouse=True)
def undisturbed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "_interruptions", lambda: 0)


def test_statistics_by_hand() -> None:
    times = [float(value) for value in range(95, 106)]  # 95 to 105: the median is 100, quartiles 97.5 and 102.5
    found = measure.measure(playing(times), SETUP, seconds=0.1, min_runs=11, max_runs=11)
    assert found.median_ms == 100.0
    assert found.iqr_ms == 5.0
    assert (found.p5_ms, found.p95_ms) == (95.5, 104.5)
    assert found.spread == 0.05
    assert found.runs == 11
    assert found.steady


def test_warm_up_runs_until_the_time_settles() -> None:
    cold = [10.0] * 10 + [5.0] * 10 + [2.0] * 10
    position = iter(range(1 << 30))

    def sample() -> float:
        index = next(position)
        return cold[index] if index < len(cold) else 1.0

    found = measure.measure(sample, SETUP, seconds=1e-6, settle_seconds=0)
    assert found.warmup_runs == 50  # three cold blocks, then two that agree
    assert found.median_ms == 1.0


def test_a_wide_spread_is_refused() -> None:
    with pytest.raises(UnsteadyError, match="spread over") as caught:
        measure.measure(playing([1.0, 3.0]), SETUP, seconds=1e-6, warmup_seconds=1e-6)
    assert "stop other work" in caught.value.fix


def test_interrupted_runs_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    switches = iter(range(1 << 30))
    disturbed = {"now": False}

    def sample() -> float:
        disturbed["now"] = next(switches) % 4 == 3
        return 50.0 if disturbed["now"] else 1.0

    total = {"count": 0}

    def interruptions() -> int:
        total["count"] += disturbed["now"]
        disturbed["now"] = False
        return total["count"]

    monkeypatch.setattr(measure, "_interruptions", interruptions)
    found = measure.measure(sample, SETUP, seconds=0.05, warmup_seconds=1e-6)
    assert (found.median_ms, found.p99_ms) == (1.0, 1.0)
    assert any("another process took the core" in note for note in found.notes)


def test_a_drift_is_said() -> None:
    position = iter(range(1 << 30))

    def sample() -> float:
        index = next(position)
        return 1.0 if index < 70 else 1.15

    found = measure.measure(sample, SETUP, seconds=0.1, min_runs=100, max_runs=100, settle_seconds=0)
    assert any("15% slower" in note for note in found.notes)


def test_runners_are_compared_in_alternating_runs() -> None:
    measured, ratios = compare({"one": (playing([1.0]), SETUP), "two": (playing([2.0]), SETUP)}, rounds=20)
    assert (measured["one"].median_ms, measured["two"].median_ms) == (1.0, 2.0)
    assert ratios["one"].median == 1.0
    assert (ratios["two"].low, ratios["two"].median, ratios["two"].high) == (2.0, 2.0, 2.0)


def test_a_disturbance_of_whole_rounds_leaves_the_ratio() -> None:
    noise = iter(np.repeat(np.random.default_rng(0).uniform(1, 10, 4000), 2))

    def twice() -> tuple[measure.Sample, measure.Sample]:
        return (lambda: float(next(noise))), (lambda: 2.0 * float(next(noise)))

    first, second = twice()
    _, ratios = compare({"one": (first, SETUP), "two": (second, SETUP)}, rounds=200, warmup_seconds=1e-6)
    assert ratios["two"].low <= 2.0 <= ratios["two"].high


def test_example_inputs_are_not_zeros_and_repeat() -> None:
    specs = [
        TensorSpec("x", (None, 3), np.dtype(np.float32)),
        TensorSpec("ids", (None, 7), np.dtype(np.int64)),
        TensorSpec("mask", (1, 7), np.dtype(np.bool_)),
    ]
    one, two = example_inputs(specs, 4), example_inputs(specs, 4)
    assert one["x"].shape == (4, 3)
    assert one["x"].dtype == np.float32
    assert one["ids"].shape == (4, 7)
    assert one["ids"].min() >= 0
    assert np.count_nonzero(one["x"]) == 12
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_an_open_dimension_beside_the_batch_is_refused() -> None:
    with pytest.raises(ProfileError, match="dynamic dimensions beside the batch"):
        example_inputs([TensorSpec("x", (None, None), np.dtype(np.float32))])


def test_a_median_that_wanders_is_refused() -> None:
    """Every round drifts from 1 to 1.4 ms: its middle half spreads by a fifth only, but the median means nothing."""
    position = iter(range(1 << 30))

    def sample() -> float:
        return 1.0 + 0.4 * (next(position) % 400) / 400

    with pytest.raises(UnsteadyError, match="may lie anywhere"):
        measure.measure(sample, SETUP, seconds=1.0, min_runs=400, max_runs=400, settle_seconds=0, max_spread=0.25)


def test_rounds_that_disagree_widen_the_interval() -> None:
    """The first round is noisy around 1.0, the second quiet at 1.1: the first's median stays in the interval."""
    position = iter(range(1 << 30))

    def sample() -> float:
        index = next(position)
        return 0.9 + 0.2 * (index % 2) if index < 120 else 1.1

    quiet = machine.State(0.0, 0.0, ())
    found = measure.measure(
        sample, SETUP, seconds=1.0, min_runs=100, max_runs=100, settle_seconds=0, state=lambda: quiet
    )
    assert found.rounds == 2
    assert found.median_ms == 1.1
    assert found.interval_ms is not None
    assert found.interval_ms == pytest.approx((1.0 * 0.979, 1.1 * 1.021))  # and 2.1 % for another start
    assert any("the steadiest of 2 rounds" in note for note in found.notes)


def test_what_the_machine_did_is_noted_and_quoted_in_a_refusal() -> None:
    def watching() -> Callable[[], machine.State]:
        states = (machine.State(float(n), float(n), (0,), overheated=n) for n in range(1 << 20))
        return lambda: next(states)

    found = measure.measure(playing([1.0]), SETUP, seconds=1e-6, settle_seconds=0, state=watching())
    assert "cores were slowed down 1 times because of heat" in found.notes
    with pytest.raises(UnsteadyError, match="because of heat"):
        measure.measure(playing([1.0, 3.0]), SETUP, seconds=1e-6, warmup_seconds=1e-6, state=watching())


def test_other_work_widens_the_interval() -> None:
    """Half of the core's time went to others: 2.1 % for another start, and half of 3 %."""
    states = (machine.State(float(n), n / 2, (0,), busy_s=float(n)) for n in range(1 << 20))
    found = measure.measure(playing([1.0]), SETUP, seconds=1e-6, settle_seconds=0, state=lambda: next(states))
    assert found.interval_ms == pytest.approx((1 - 0.036, 1 + 0.036))
    assert "other processes took 50% of the time of the cores it ran on" in found.notes


def test_energy_is_that_of_one_run() -> None:
    class Meter:
        name = "a clockwork"

        def start(self) -> None: ...

        def stop(self) -> float | None:
            return 0.5

    found = measure.measure(
        playing([1.0]), SETUP, seconds=0.1, min_runs=100, max_runs=100, settle_seconds=0, meter=Meter()
    )
    assert found.energy_mj == pytest.approx(5.0)  # half a joule over 100 runs
    assert found.energy_of == "a clockwork"


def test_slow_models_are_run_less_often() -> None:
    taken: list[int] = []

    def sample() -> float:
        taken.append(1)
        time.sleep(0.02)
        return 20.0

    found = measure.measure(sample, SETUP, seconds=0.02, warmup_seconds=0.1)
    assert found.runs < 30
    assert found.median_ms == 20.0
    assert len(taken) < 60


def test_throughput_counts_samples() -> None:
    found = measure.measure(playing([4.0]), replace(SETUP, batch=8), seconds=1e-6, settle_seconds=0)
    assert found.throughput == 2000.0
    assert replace(found, back_to_back_ms=2.0).throughput == 4000.0
