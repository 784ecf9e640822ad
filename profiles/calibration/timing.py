"""Time many models so that a machine which does other things meanwhile disturbs none of them much.

Every model is timed in several short visits that are spread over the whole measuring, so that a bad second hits one
visit of a few models. A run counts the time that the thread had the core, not what passed on the wall: on one thread
both agree on a quiet machine, and on a busy one only the first is the model's. What other work does to caches and
clocks remains; it only ever adds, so a low quantile of a visit's runs is taken, and the median of the visits.
"""

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from profiles import cores
from profiles.calibration.suite import Sample
from profiles.measure import cpu, example_inputs
from profiles.runners import on_onnxruntime

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOW = 0.25  # quantile of a visit's runs
VISITS = 4
LEAST_RUNS = 4  # in one visit
MOST_RUNS = 200
WARM_UP = 3  # runs before a visit's first that counts: weights and code are no longer in the cache
SHORTEST_VISIT_S = 0.002
COARSE_S = 1e-4  # a clock of the thread's time whose steps are wider is of no use


@dataclass(frozen=True)
class Timed:
    """One model's time for one inference of its own batch."""

    ms: float
    visits: tuple[float, ...]  # ms, in the order in which they were made

    @property
    def spread(self) -> float:
        """How far the visits are apart: their interquartile range over their median."""
        low, high = np.percentile(self.visits, [25, 75])
        return float((high - low) / self.ms) if self.ms else 0.0


@dataclass(frozen=True)
class Session:
    """What was measured, and how long that took."""

    timed: tuple[Timed, ...]  # one per model
    seconds: float  # of measuring, with loading
    waited: float  # share of the wall time of the runs in which the core did other work
    device: str  # as the machine calls it
    runtime: str  # with its version
    lanes: int | None = None  # float32 in a vector register that the runtime uses; None is not known


def time_models(
    samples: Iterable[Sample],
    seconds: float,
    visits: int = VISITS,
    clock: "Callable[[], int] | None" = None,
    say: Callable[[str], object] = lambda text: None,
) -> Session:
    """Time every model with onnxruntime on one pinned core, one thread.

    Args:
        seconds: > 0; of measuring in all, on the wall. Loading is part of it.
        visits: >= 2.
        clock: nanoseconds of this thread's time; None takes the system's, or the wall's where that is coarse.

    Raises:
        ProfileError: onnxruntime is missing or refuses a model.
    """
    tick = clock or _thread_clock()
    start = time.perf_counter()
    with cores.pinned(cores.choose(1)), tempfile.TemporaryDirectory(prefix="calibration-") as folder:
        runs = [_loaded(sample, Path(folder)) for sample in samples]
        found: list[list[float]] = [[] for _ in runs]
        order = np.random.default_rng(0)
        wall = own = 0.0
        loaded = time.perf_counter()
        left = seconds - (loaded - start)
        for visit in range(visits):
            deadline = loaded + left * (visit + 1) / visits
            places: NDArray[np.int64] = order.permutation(len(runs))
            for done, place in enumerate(places):
                share = max(SHORTEST_VISIT_S, (deadline - time.perf_counter()) / (len(runs) - done))
                times, passed = _visit(runs[place], share, tick)
                found[place].append(float(np.quantile(times, LOW)) / 1e6)
                wall, own = wall + passed, own + sum(times)
            say(f"visit {visit + 1} of {visits}: {len(runs)} models, {time.perf_counter() - start:.0f} s")
    timed = tuple(Timed(float(np.median(item)), tuple(item)) for item in found)
    waited = max(0.0, 1 - own / wall) if wall else 0.0
    runtime = on_onnxruntime.setup({}, 1).runtime
    return Session(timed, time.perf_counter() - start, waited, cpu(), runtime, _lanes())


def _lanes() -> int | None:
    """What onnxruntime finds on this processor: 16 with AVX-512, else 8; None where the system does not say."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    if "flags" not in flags:
        return None
    return 16 if " avx512f" in flags else 8


def _thread_clock() -> Callable[[], int]:
    if time.get_clock_info("thread_time").resolution > COARSE_S:
        return time.perf_counter_ns
    return time.thread_time_ns


def _loaded(sample: Sample, folder: Path) -> Callable[[], object]:
    path = folder / "model.onnx"
    path.write_bytes(sample.model.SerializeToString())
    loaded = on_onnxruntime.load(path)
    run: Callable[[], object] = on_onnxruntime.timed(loaded, example_inputs(loaded.inputs))
    return run


def _visit(run: Callable[[], object], seconds: float, tick: Callable[[], int]) -> tuple[Sequence[int], float]:
    """Nanoseconds of single runs, and nanoseconds on the wall of all of them."""
    end = time.perf_counter() + seconds
    for _ in range(WARM_UP):
        run()
    times: list[int] = []
    start = time.perf_counter_ns()
    while len(times) < LEAST_RUNS or (len(times) < MOST_RUNS and time.perf_counter() < end):
        before = tick()
        run()
        times.append(tick() - before)
    return times, float(time.perf_counter_ns() - start)
