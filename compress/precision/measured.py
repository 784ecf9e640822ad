"""Times of one student's precisions on this processor, in one interleaved run."""

import importlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from compress.qat import prepare as qat
from compress.qat.prepared import Prepared
from exporters import torch_to_onnx
from profiles.errors import ProfileError
from profiles.measure import Measurement, Ratio, Sample, Setup, compare, wall_clock
from profiles.target import Target

RUNTIMES = ("on_onnxruntime", "on_openvino")
SECONDS = 4.0  # about as long as the rounds may take
ROUNDS = (20, 200)
WARM_UP_SECONDS = 0.3
RESTART = 0.021  # how far a median moves when the process starts again, beside what one run sees


def why_not(target: Target, remote: str | None) -> str:
    """Why times cannot be measured here; "" where they can."""
    if target.runtime not in ("onnxruntime", "openvino"):
        return f"predicted: {target.name} runs {target.runtime}, which is not on this machine"
    if remote is not None:
        return "predicted: the run measures on another machine"
    if dist.is_available() and dist.is_initialized():
        return "predicted: several processes train together, and their clocks would disagree"
    missing = [importlib.import_module(f"profiles.runners.{name}").available() for name in RUNTIMES[:1]]
    return "" if missing == [None] else f"predicted: {missing[0]}"


def measure(
    models: Mapping[str, nn.Module],
    example: tuple[Tensor, ...],
    target: Target,
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> tuple[dict[str, dict[str, Any]], str]:
    """Write the models as ONNX files, run all of them in turn at batch 1, and compare.

    Args:
        models: precision -> a prepared student (it is converted) or a float one; at least one.
        example: inputs, (B, ...) each; the first example is run.

    Returns:
        Precision -> latency_ms, between_ms, interval_ms and origin of the runtime that is fastest for it, as
        `choose.Candidate` has them; and a sentence on how.
    """
    with tempfile.TemporaryDirectory() as name:
        samples: dict[str, tuple[Sample, Setup]] = {}
        for precision, model in models.items():
            path = Path(name) / f"{precision}.onnx"
            torch_to_onnx.convert(
                qat.convert(model) if isinstance(model, Prepared) else model,
                example,
                path,
                opset=target.opset,
                input_names=input_names,
                output_names=output_names,
                metadata={},
            )
            for runtime in (runtime for runtime in RUNTIMES if runtime in target.runners):
                runner = importlib.import_module(f"profiles.runners.{runtime}")
                if runner.available() is None:
                    try:
                        loaded = runner.load(path, threads=1)
                    except ProfileError:
                        continue
                    one = {key: tensor[:1].numpy() for key, tensor in zip(input_names, example, strict=True)}
                    loaded.run(one)
                    samples[f"{precision} {runtime}"] = wall_clock(runner.timed(loaded, one)), runner.setup(one, 1)
        times, ratios = compare(samples, rounds=_rounds(samples), warmup_seconds=WARM_UP_SECONDS)
        return chosen(times, ratios)


def _rounds(samples: Mapping[str, tuple[Sample, Setup]]) -> int:
    once = sum(sample() for sample, _ in samples.values()) / 1e3
    return max(ROUNDS[0], min(ROUNDS[1], int(SECONDS / max(once, 1e-9))))


def chosen(times: Mapping[str, Measurement], ratios: Mapping[str, Ratio]) -> tuple[dict[str, dict[str, Any]], str]:
    """Each precision by its fastest runtime; names are "PRECISION RUNTIME"."""
    base = times[next(iter(times))].median_ms
    best: dict[str, str] = {}
    for name in times:
        precision = name.split()[0]
        if precision not in best or ratios[name].median < ratios[best[precision]].median:
            best[precision] = name
    found = {
        precision: {
            "latency_ms": times[name].median_ms,
            "between_ms": (base * ratios[name].low * (1 - RESTART), base * ratios[name].high * (1 + RESTART)),
            "interval_ms": times[name].interval_ms or (times[name].p5_ms, times[name].p95_ms),
            "origin": "measured",
        }
        for precision, name in best.items()
    }
    how = ", ".join(f"{precision} with {name.split()[1].removeprefix('on_')}" for precision, name in best.items())
    return found, f"measured on this processor, one thread, in one interleaved run: {how}"
