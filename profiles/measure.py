"""Time a model so that the number can be believed.

Warm-up until the time no longer falls, then single runs; median and percentiles rather than a mean, because a machine
that does other things only ever adds time. Where the middle half of the runs spreads too wide, the measurement is
repeated and then refused: a wrong number is worse than none.
"""

import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter_ns

import numpy as np
from numpy.typing import NDArray

from profiles.errors import ProfileError

if sys.platform != "win32":
    import resource

Array = NDArray[np.generic]
Sample = Callable[[], float]
"""Runs the model once and returns the milliseconds it took."""

MAX_SPREAD = 0.35  # interquartile range over median above which a measurement is refused
ROUNDS = 3  # tries before it is
BLOCK = 10  # runs of one warm-up block
SETTLED = 0.05  # two blocks whose medians differ by less are steady


class UnsteadyError(ProfileError):
    """The runs spread too wide for their median to mean something."""


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
) -> Measurement:
    """Measure one model.

    Args:
        seconds: > 0, of measuring in one round; at least `min_runs` and at most `max_runs` are made whatever it says.
        warmup_seconds: the longest warm-up.
        max_spread: interquartile range over median above which the result is refused.

    Raises:
        UnsteadyError: every round spread wider than `max_spread`.
    """
    warmed, steady = _warm_up(sample, warmup_seconds)
    best: Measurement | None = None
    for _ in range(ROUNDS):
        times, left_out = _times(sample, seconds, min_runs, max_runs)
        found = _measurement(times, setup, warmed, steady, left_out)
        if best is None or found.spread < best.spread:
            best = found
        if best.spread <= max_spread / 2:
            break
    assert best is not None
    if best.spread > max_spread:
        raise UnsteadyError(
            f"half of {best.runs} runs spread over {best.spread:.0%} of their median {best.median_ms:.3g} ms, "
            f"{ROUNDS} times over; at most {max_spread:.0%} is accepted",
            fix="stop other work on this machine, fix the clocks or the power mode, and measure again",
        )
    return best


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


def _warm_up(sample: Sample, seconds: float) -> tuple[int, bool]:
    """Run until two blocks agree; returns the number of runs and whether they did."""
    start = perf_counter_ns()
    runs, before = 0, float("inf")
    while True:
        block = [sample() for _ in range(BLOCK)]
        runs += BLOCK
        median = float(np.median(block))
        if abs(before - median) <= SETTLED * median:
            return runs, True
        if perf_counter_ns() - start > seconds * 1e9:
            return runs, False
        before = median


def _times(sample: Sample, seconds: float, min_runs: int, max_runs: int) -> tuple[NDArray[np.float64], int]:
    """Times of single runs, and how many more were left out because another process took the core meanwhile."""
    end = perf_counter_ns() + int(seconds * 1e9)
    hard_end = end + int(2 * seconds * 1e9)
    whole: list[float] = []
    broken: list[float] = []
    while len(whole) < max_runs:
        before = _interruptions()
        time = sample()
        (whole if _interruptions() == before else broken).append(time)
        now = perf_counter_ns()
        if now > end and (len(whole) >= min_runs or (now > hard_end and len(whole) + len(broken) >= min_runs)):
            break
    if len(whole) < min_runs:  # the model takes longer than the machine leaves it alone
        return np.array(whole + broken), 0
    return np.array(whole), len(broken)


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
        notes.append(f"{left_out} runs were left out: another process took the core meanwhile")
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
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return f"{name}, {usable} cores"
