"""Time the suite on another machine, by ssh: each model by its own runner there, all in one visit."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from profiles import remote
from profiles.calibration.suite import Sample
from profiles.calibration.timing import Session, Timed
from profiles.errors import ProfileError
from profiles.measure import Measurement
from profiles.target import Target

PER_MODEL_S = 0.3  # with loading, warm-up and the look at the machine
MEASURED_S = 0.05  # of it
LEAST = 60  # models that have to be measured for a fit


def time_models(
    target: Target, samples: Sequence[Sample], host: str, seconds: float, say: Callable[[str], object]
) -> tuple[list[Sample], Session]:
    """The models that could be measured there, and their times: medians of the wall clock on one thread.

    Raises:
        ProfileError: the machine cannot be reached, or too few models could be measured; the message has the reason.
    """
    fewer = list(samples[: max(LEAST, int(seconds / PER_MODEL_S))])
    plain = replace(target, runners=("on_onnxruntime",), latency={})
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
        paths = [Path(folder) / f"{index}.onnx" for index in range(len(fewer))]
        for path, sample in zip(paths, fewer, strict=True):
            path.write_bytes(sample.model.SerializeToString())
        say(f"timing {len(fewer)} small models on {host} for about {seconds:.0f} s")
        found = remote.run_each([(path, None) for path in paths], plain, remote.Remote(host), seconds=MEASURED_S)
    kept, times = [], []
    refusal: ProfileError | None = None
    runtime = device = ""
    for sample, one in zip(fewer, found, strict=True):
        if isinstance(one, Measurement):
            kept.append(sample)
            # The quartiles bound how far a second measurement would be off; visits are what spread is made from.
            half = one.iqr_ms / 2
            times.append(Timed(one.median_ms, (one.median_ms - half, one.median_ms, one.median_ms + half)))
            runtime, device = one.runtime, one.device
        elif isinstance(one, ProfileError):
            refusal = one
    if len(kept) < LEAST:
        why = refusal.what if refusal else "there was no measurement"
        fix = refusal.fix if refusal else "measure again"
        raise ProfileError(f"{len(kept)} of {len(fewer)} models could be measured on {host}: {why}", fix=fix)
    spent = time.perf_counter() - start
    return kept, Session(tuple(times), spent, 0.0, f"{device} ({host})", runtime, _lanes(target.hardware.core))


def _lanes(core: str) -> int | None:
    """Float32 in a vector register of a core by its description; None where that does not say."""
    if "AVX2" in core:
        return 8
    return 16 if "AVX-512" in core or "AMX" in core else None
