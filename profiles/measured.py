"""The cost of an artifact as far as this machine can find it out: measured, emulated, or predicted with the reason."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from profiles.cost import Cost
from profiles.errors import ProfileError
from profiles.measure import Measurement, UnsteadyError
from profiles.runners import WrongDeviceError, runner
from profiles.target import Target

if TYPE_CHECKING:
    import onnx
    import torch

    from profiles.graph import Graph

    Model = str | Path | onnx.ModelProto | torch.nn.Module | Graph


def measure_cost(
    path: Path,
    target: Target,
    model: "Model | None" = None,
    inputs: Mapping[str, NDArray[np.generic]] | None = None,
) -> Cost:
    """See `profiles.measure_cost`."""
    reasons = []
    for name in target.runners:
        module = runner(name)
        reason = module.available()
        if reason is not None:
            reasons.append(f"{name}: {reason}")
            continue
        try:
            found = module.measure(path, target, inputs)
        except (UnsteadyError, WrongDeviceError) as error:
            reasons.append(f"{name}: {error.what}")
            continue
        if isinstance(found, Cost):
            return found
        return with_measurement(_predicted(path, target, model, inputs), found)
    why = "; ".join(reasons) or f"{target.name} names no runner"
    predicted = _predicted(path, target, model, inputs)
    return replace(predicted, notes=(f"predicted, because nothing here could be measured: {why}", *predicted.notes))


def with_measurement(cost: Cost, found: Measurement) -> Cost:
    """The counts of `cost` with measured time. Times of single layers stay out: nobody measured them."""
    notes = (
        f"median of {found.runs} runs after {found.warmup_runs} to warm up; p90 {found.p90_ms:.4g} ms, p99 "
        f"{found.p99_ms:.4g} ms, interquartile range {found.iqr_ms:.2g} ms; {found.threads} threads; {found.clock}",
        f"on {found.device}",
        *found.notes,
    )
    return replace(
        cost,
        runtime=found.runtime,
        batch=found.batch,
        latency_ms=found.median_ms,
        interval_ms=(found.p5_ms, found.p95_ms),
        origin="measured",
        layers=(),
        notes=notes,
    )


def _predicted(
    path: Path, target: Target, model: "Model | None", inputs: Mapping[str, NDArray[np.generic]] | None
) -> Cost:
    from profiles import read
    from profiles.predict import predict

    if model is None and path.suffix != ".onnx":
        raise ProfileError(
            f"{path.name} is not an ONNX file, so its operators cannot be counted",
            fix="pass model=, the ONNX file that it was built from",
        )
    batch = next((int(value.shape[0]) for value in (inputs or {}).values() if value.ndim), 1)
    return predict(read(path if model is None else model, batch, inputs), target)
