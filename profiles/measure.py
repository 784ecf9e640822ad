"""Time a model so that the number can be believed.

Warm-up until the time no longer falls, then single runs; median and percentiles rather than a mean, because a machine
that does other things only ever adds time. The median comes with the interval that it may be off by, and with what the
machine did meanwhile: heat, clocks, other work. Where the middle half of the runs spreads too wide, or the median is
too unsure, the measurement is repeated and then refused: a wrong number is worse than none.
"""

import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from profiles import machine
from profiles.confidence import median_interval
from profiles.cores import usable
from profiles.errors import ProfileError

if sys.platform != "win32":
    import resource

Array = NDArray[np.generic]
Sample = Callable[[], float]
"""Runs the model once and returns the milliseconds it took."""

MAX_SPREAD = 0.35  # interquartile range over median above which a measurement is refused
ROUNDS = 3  # tries before it is
BLOCK = 10  # runs of one warm-up block
SETTLE_S = 0.1  # shortest warm-up: a processor's clock needs some ten milliseconds of work to rise
FEW = 3  # runs of a block where a model is so slow that ten would take half of the warm-up
SLOW = 10  # times the seconds of a round after which a slow model has been run often enough
SLOW_RUNS = 10  # if it was run this often
# What half of an interval's width gains, as a share of the median: for another start of the same program, and for the
# share of the cores' time that other processes took, which leave cold caches behind even where they interrupt no run.
# tools/repeat_measurement.py, onnxruntime on a shared virtual machine: medians of 20 to 25 starts of four networks had
# standard deviations of 0.3, 0.7, 0.9 and 0.9 % while nothing else ran. Two starts differ by sqrt(2) of that, and nine
# in ten by 1.645 times as much: 2.1 % for the largest. Where others took 80 % of the time, by up to 4.5 %.
BETWEEN_STARTS = 0.021
BESIDE_OTHERS = 0.03
SETTLED = 0.05  # two blocks whose medians differ by less are steady


class UnsteadyError(ProfileError):
    """The runs spread too wide for their median to mean something."""


class Meter(Protocol):
    """Counts the energy of something while models run."""

    name: str  # what is counted, and by what

    def start(self) -> None:
        """Begin."""
        ...

    def stop(self) -> float | None:
        """Joules since `start`; None where the counter did not move or could not be read."""
        ...


@dataclass(frozen=True)
class Measurement:
    """Times of single runs of one batch, in milliseconds."""

    median_ms: float
    p5_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    iqr_ms: float  # 75th minus 25th percentile
    runs: int
    warmup_runs: int
    steady: bool  # the warm-up ended because the time had settled, not because its time was up
    batch: int
    threads: int  # of the runtime; 0 where it has none of its own choosing
    device: str  # as the machine calls it
    runtime: str  # with its version
    clock: str  # how a run was timed
    notes: tuple[str, ...] = ()
    interval_ms: tuple[float, float] | None = None  # 90 % confidence interval of the median; see `measure`
    rounds: int = 1  # made before this one was taken
    cores: tuple[int, ...] = ()  # logical cores that it was pinned to; () where it was not
    peak_memory_bytes: int | None = None  # of loading and running, above what the process held before
    with_transfer_ms: float | None = None  # median with inputs and outputs copied to and from the device
    back_to_back_ms: float | None = None  # of one batch where the next is started before it ends
    energy_mj: float | None = None  # of one run of the batch
    energy_of: str = ""  # what `energy_mj` counts, and by what counter

    @property
    def throughput(self) -> float:
        """Samples per second: of batches started back to back where that was measured, else of one after the other."""
        return self.batch / (self.back_to_back_ms or self.median_ms) * 1e3

    @property
    def spread(self) -> float:
        """Interquartile range over median."""
        return self.iqr_ms / self.median_ms if self.median_ms else 0.0


@dataclass(frozen=True)
class Ratio:
    """How much longer one runner takes than another, from runs that alternated."""

    median: float
    low: float  # 5th percentile of bootstrapped medians
    high: float  # 95th


@dataclass(frozen=True)
class Setup:
    """What a measurement says about where it was taken."""

    batch: int
    threads: int
    device: str
    runtime: str
    clock: str
    cores: tuple[int, ...] = ()  # pinned to


def wall_clock(run: Callable[[], object]) -> Sample:
    """Time a call that returns when its work is done."""

    def sample() -> float:
        start = perf_counter_ns()
        run()
        return (perf_counter_ns() - start) / 1e6

    return sample


def measure(
    sample: Sample,
    setup: Setup,
    seconds: float = 1.0,
    min_runs: int = 30,
    max_runs: int = 5_000,
    warmup_seconds: float = 1.0,
    max_spread: float = MAX_SPREAD,
    *,
    settle_seconds: float = SETTLE_S,
    state: Callable[[], machine.State] | None = None,
    meter: Meter | None = None,
) -> Measurement:
    """Measure one model.

    The interval of the result is where the median of these runs may lie by chance, at 90 %, given how much neighbouring
    runs resemble each other (`profiles.confidence`), widened to the medians of all rounds that were made, and by what
    another start of the same program, and other work on its cores, add to that (`BETWEEN_STARTS`, `BESIDE_OTHERS`).

    Args:
        seconds: > 0, of measuring in one round; at least `min_runs` and at most `max_runs` are made whatever it says,
            but no more than 10 of a model that takes longer than ten times this.
        warmup_seconds: the longest warm-up.
        max_spread: interquartile range over median above which the result is refused; so is an interval of the median
            that is wider than this share of it.
        settle_seconds: the shortest warm-up.
        state: what the machine says of itself; None asks the system.
        meter: what counts the energy, if anything does.

    Raises:
        UnsteadyError: every round spread wider than `max_spread`.
    """
    look = state or (lambda: machine.read(setup.cores))
    warmed, steady = _warm_up(sample, warmup_seconds, settle_seconds)
    best: Measurement | None = None
    medians: list[float] = []
    busy = 0.0
    for _ in range(ROUNDS):
        before = look()
        times, left_out, energy = _metered(sample, seconds, min_runs, max_runs, meter)
        after = look()
        found = _measurement(times, setup, warmed, steady, left_out)
        medians.append(found.median_ms)
        busy = max(busy, machine.other_work(before, after))
        found = replace(
            found, notes=(*found.notes, *machine.disturbances(before, after)), energy_mj=energy, cores=setup.cores
        )
        if best is None or found.spread < best.spread:
            best = found
        if best.spread <= max_spread / 2:
            break
    assert best is not None
    if best.spread > max_spread:
        raise UnsteadyError(
            f"half of {best.runs} runs spread over {best.spread:.0%} of their median {best.median_ms:.3g} ms, "
            f"{ROUNDS} times over; at most {max_spread:.0%} is accepted{_told(best)}",
            fix="stop other work on this machine, fix the clocks or the power mode, and measure again",
        )
    assert best.interval_ms is not None
    low, high = min(best.interval_ms[0], *medians), max(best.interval_ms[1], *medians)
    if high - low > max_spread * best.median_ms:
        raise UnsteadyError(
            f"the median of {best.runs} runs may lie anywhere from {low:.3g} to {high:.3g} ms, for the time wanders"
            f"{_told(best)}",
            fix="measure for longer, stop other work on this machine, or fix the clocks or the power mode",
        )
    rounds = len(medians)
    if rounds > 1:
        best = with_note(best, f"the steadiest of {rounds} rounds, whose medians were {_listed(medians)} ms")
    energy_of = meter.name if meter is not None and best.energy_mj is not None else ""
    more = BETWEEN_STARTS + BESIDE_OTHERS * busy
    interval = (low * (1 - more), high * (1 + more))
    return replace(best, interval_ms=interval, rounds=rounds, energy_of=energy_of)


def _metered(
    sample: Sample, seconds: float, min_runs: int, max_runs: int, meter: Meter | None
) -> tuple[NDArray[np.float64], int, float | None]:
    """As `_times`, with the millijoules of one run."""
    if meter is None:
        return (*_times(sample, seconds, min_runs, max_runs), None)
    meter.start()
    joules: float | None = None
    try:
        times, left_out = _times(sample, seconds, min_runs, max_runs)
    finally:
        joules = meter.stop()
    return times, left_out, None if joules is None else joules * 1e3 / (len(times) + left_out)


def _told(measurement: Measurement) -> str:
    return f" ({'; '.join(measurement.notes)})" if measurement.notes else ""


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def compare(
    samples: Mapping[str, tuple[Sample, Setup]], rounds: int = 100, warmup_seconds: float = 1.0, seed: int = 0
) -> tuple[dict[str, Measurement], dict[str, Ratio]]:
    """Measure several runners in one interleaved run, so that a disturbance falls on all of them.

    Args:
        samples: at least one; the first is what the ratios are relative to.
        rounds: >= 10; each runs every sample once, in an order that changes.

    Returns:
        A measurement per name, and per name the ratio of its time to the first one's in the same round.
    """
    if not samples or rounds < 10:
        raise ValueError(f"{len(samples)} samples, {rounds} rounds")
    rng = np.random.default_rng(seed)
    warm = {name: _warm_up(sample, warmup_seconds) for name, (sample, _) in samples.items()}
    names = list(samples)
    times = np.empty((rounds, len(names)))
    for row in times:
        for index in rng.permutation(len(names)):
            row[index] = samples[names[index]][0]()
    measured = {name: _measurement(times[:, index], samples[name][1], *warm[name]) for index, name in enumerate(names)}
    ratios = {}
    for index, name in enumerate(names):
        quotient = times[:, index] / times[:, 0]
        resampled = np.median(quotient[rng.integers(0, rounds, (500, rounds))], axis=1)
        low, high = np.percentile(resampled, [5, 95])
        ratios[name] = Ratio(float(np.median(quotient)), float(low), float(high))
    return measured, ratios


def _warm_up(sample: Sample, seconds: float, shortest: float = 0.0) -> tuple[int, bool]:
    """Run until two blocks agree, for at least `shortest` seconds; returns the number of runs and whether they did."""
    start = perf_counter_ns()
    runs, before = 0, float("inf")
    while True:
        block: list[float] = []
        began = perf_counter_ns()
        while len(block) < BLOCK and (len(block) < FEW or perf_counter_ns() - began < seconds * 1e9 / 2):
            block.append(sample())
        runs += len(block)
        median = float(np.median(block))
        taken = (perf_counter_ns() - start) / 1e9
        if abs(before - median) <= SETTLED * median and taken >= min(shortest, seconds):
            return runs, True
        if taken > seconds:
            return runs, False
        before = median


def _times(sample: Sample, seconds: float, min_runs: int, max_runs: int) -> tuple[NDArray[np.float64], int]:
    """Times of single runs, and how many more were left out because another process took the core meanwhile."""
    end = perf_counter_ns() + int(seconds * 1e9)
    hard_end = end + int(2 * seconds * 1e9)
    slow_end = end + int((SLOW - 1) * seconds * 1e9)
    times: list[float] = []
    whole: list[bool] = []
    count = 0
    while count < max_runs:
        before = _interruptions()
        times.append(sample())
        whole.append(_interruptions() == before)
        count += whole[-1]
        now = perf_counter_ns()
        if now > end and (count >= min_runs or (now > hard_end and len(times) >= min_runs)):
            break
        if now > slow_end and len(times) >= SLOW_RUNS:
            break
    taken = np.array(times)
    if count < min_runs:  # the model takes longer than the machine leaves it alone
        return taken, 0
    return taken[np.array(whole)], len(times) - count


def _interruptions() -> int:
    """How often the system has taken a core from this process while it had work."""
    return 0 if sys.platform == "win32" else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _measurement(times: NDArray[np.float64], setup: Setup, warmed: int, steady: bool, left_out: int = 0) -> Measurement:
    p5, p25, p50, p75, p90, p95, p99 = (float(value) for value in np.percentile(times, [5, 25, 50, 75, 90, 95, 99]))
    notes = []
    half = len(times) // 2
    if half >= BLOCK and (drift := float(np.median(times[half:]) / np.median(times[:half]))) > 1.1:
        notes.append(f"the second half of the runs was {drift - 1:.0%} slower than the first: throttling or other work")
    if left_out:
        notes.append(f"{left_out} runs were left out, of the percentiles too: another process took the core meanwhile")
    if not steady:
        notes.append("the time had not settled when the warm-up ended")
    return Measurement(
        median_ms=p50,
        p5_ms=p5,
        p90_ms=p90,
        p95_ms=p95,
        p99_ms=p99,
        iqr_ms=p75 - p25,
        runs=len(times),
        warmup_runs=warmed,
        steady=steady,
        batch=setup.batch,
        threads=setup.threads,
        device=setup.device,
        runtime=setup.runtime,
        clock=setup.clock,
        notes=tuple(notes),
        interval_ms=median_interval(times),
        cores=setup.cores,
    )


def with_note(measurement: Measurement, note: str) -> Measurement:
    """The same measurement with one more note."""
    return replace(measurement, notes=(*measurement.notes, note))


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model file; None is a dimension that the caller chooses."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[np.generic]


def example_inputs(specs: Sequence[TensorSpec], batch: int = 1, seed: int = 0) -> dict[str, Array]:
    """Input data for timing: normal numbers for floats, small indices for integers. Not zeros: kernels skip those.

    Raises:
        ProfileError: a dimension beside the batch is not fixed.
    """
    rng = np.random.default_rng(seed)
    inputs: dict[str, Array] = {}
    for spec in specs:
        shape = [batch if index == 0 and size is None else size for index, size in enumerate(spec.shape)]
        if any(size is None for size in shape):
            raise ProfileError(
                f"input {spec.name!r} has dynamic dimensions beside the batch: {spec.shape}",
                fix="pass inputs={name: array} of a typical shape",
            )
        dims = [int(size) for size in shape if size is not None]
        if np.issubdtype(spec.dtype, np.floating):
            inputs[spec.name] = rng.standard_normal(dims).astype(spec.dtype)
        elif spec.dtype == np.bool_:
            inputs[spec.name] = rng.integers(0, 2, dims).astype(np.bool_)
        else:
            inputs[spec.name] = rng.integers(0, 100, dims).astype(spec.dtype)
    return inputs


def cpu() -> str:
    """The processor's name and how many of its cores this process may use."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                name = line.split(":", 1)[1].strip()
                break
    return f"{name}, {len(usable()) or os.cpu_count() or 1} cores"
