"""The cost of an artifact as far as this machine can find it out: measured, emulated, or predicted with the reason."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from profiles.cost import Cost
from profiles.errors import ProfileError
from profiles.measure import Measurement, UnsteadyError, with_note
from profiles.runners import ESTIMATORS, TimedRunner, WrongDeviceError, batch_of, runner
from profiles.target import Target

if TYPE_CHECKING:
    import onnx
    import torch

    from profiles.graph import Graph

    Model = str | Path | onnx.ModelProto | torch.nn.Module | Graph

Inputs = Mapping[str, NDArray[np.generic]]


class NothingMeasuredError(ProfileError):
    """No runner of the target could measure here; `what` says why, runner by runner."""


def measure_cost(
    path: Path,
    target: Target,
    model: "Model | None" = None,
    inputs: Inputs | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
) -> Cost:
    """See `profiles.measure_cost`.

    Args:
        batch: where `inputs` is None.
        threads: of the runtime, on processors.
        seconds: of one round of measuring.
    """
    try:
        found = run(path, target, inputs, batch=batch, threads=threads, seconds=seconds)
    except NothingMeasuredError as error:
        guess = predicted(path, target, model, inputs, batch)
        return replace(guess, notes=(f"predicted, because nothing here could be measured: {error.what}", *guess.notes))
    return found if isinstance(found, Cost) else with_measurement(predicted(path, target, model, inputs, batch), found)


def measure_batches(
    path: Path, target: Target, batches: Sequence[int], model: "Model | None" = None, *, seconds: float = 1.0
) -> list[Cost]:
    """One cost per batch size, in the order given; see `measure_cost`.

    Raises:
        ProfileError: the artifact's batch is fixed at another size.
    """
    return [measure_cost(path, target, model, batch=batch, seconds=seconds) for batch in batches]


def run(
    path: Path,
    target: Target,
    inputs: Inputs | None = None,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
) -> Measurement | Cost:
    """Run an artifact with every runner of the target that is available here; the fastest one's figures.

    Where the intervals of two runners overlap, the one that the target names first is taken.

    Returns:
        A measurement, with a note where other runners were slower or failed; the whole cost, where a runner emulates.

    Raises:
        NothingMeasuredError: no runner is available, fits the device, or ran steadily.
        ProfileError: no runner takes the artifact or the inputs.
    """
    found: dict[str, Measurement] = {}
    reasons = []
    refusal: ProfileError | None = None
    for name in target.runners:
        module = runner(name)
        reason = module.available()
        if reason is not None:
            reasons.append(f"{name}: {reason}")
            continue
        try:
            if target.family == "cortex-m" or name in ESTIMATORS:  # their time does not depend on this machine
                result = module.measure(path, target, inputs)
            else:
                timed = cast(TimedRunner, module)
                result = timed.measure(path, target, inputs, batch=batch, threads=threads, seconds=seconds)
        except ProfileError as error:
            if not isinstance(error, UnsteadyError | WrongDeviceError):
                refusal = refusal or error  # another runner may still take the artifact
            reasons.append(f"{name}: {error.what}")
            continue
        if isinstance(result, Cost):
            return result
        found[name] = result
    if not found and refusal is not None:
        raise refusal
    if not found:
        why = "; ".join(reasons) or f"{target.name} names no runner"
        raise NothingMeasuredError(why, fix=f"measure on the device itself: --remote user@host, for {target.name}")
    chosen = _fastest(found)
    others = [f"{name} took {other.median_ms:.4g} ms" for name, other in found.items() if name != chosen]
    note = "; ".join(
        [
            *([f"the fastest runner, {chosen}: {', '.join(others)}"] if others else []),
            *(f"not {why}" for why in reasons),
        ]
    )
    return with_note(found[chosen], note) if note else found[chosen]


def with_measurement(cost: Cost, found: Measurement) -> Cost:
    """The counts of `cost`, which was predicted, with measured time. Times of its layers stay what they are."""
    low, high = found.interval_ms or (found.p5_ms, found.p95_ms)
    before = f"{cost.latency_ms:.4g} ms ({cost.interval_ms[0]:.4g} to {cost.interval_ms[1]:.4g})"
    notes = [
        f"median of {found.runs} runs after {found.warmup_runs} to warm up, with its 90 % confidence interval",
        f"5 to 95 % of the runs took {found.p5_ms:.4g} to {found.p95_ms:.4g} ms; p90 {found.p90_ms:.4g} ms, "
        f"p99 {found.p99_ms:.4g} ms, interquartile range {found.iqr_ms:.2g} ms",
        f"{_threads(found)}{found.clock}",
        f"on {found.device}",
        f"throughput {found.throughput:.4g} samples a second, {_how(found)}",
    ]
    if found.with_transfer_ms is not None:
        notes.append(f"with copies from and to host memory {found.with_transfer_ms:.4g} ms")
    notes += found.notes
    energy, between = found.energy_mj, None
    if energy is not None:
        notes.append(f"energy is measured: {found.energy_of}")
    elif cost.energy_mj is not None:
        energy, between = cost.energy_mj, cost.energy_interval_mj
        notes.append("energy is predicted, not measured")
    notes.append(f"had it been predicted: {before}")
    return replace(
        cost,
        runtime=found.runtime,
        batch=found.batch,
        latency_ms=found.median_ms,
        interval_ms=(low, high),
        origin="measured",
        energy_mj=energy,
        energy_interval_mj=between,
        layers_origin="predicted" if cost.layers else None,
        notes=tuple(notes),
    )


def predicted(
    path: Path, target: Target, model: "Model | None" = None, inputs: Inputs | None = None, batch: int = 1
) -> Cost:
    """What the cost model says of the artifact; its counts go with a measurement.

    Raises:
        ProfileError: `path` is no ONNX file and `model` is not given.
    """
    from profiles import read
    from profiles.predict import predict

    if model is None and path.suffix != ".onnx":
        raise ProfileError(
            f"{path.name} is not an ONNX file, so its operators cannot be counted",
            fix="pass model=, the ONNX file that it was built from",
        )
    size = batch if inputs is None else batch_of(inputs)
    return predict(read(path if model is None else model, size, inputs), target)


def _fastest(found: Mapping[str, Measurement]) -> str:
    first, *others = found
    for name in others:
        here, best = found[name], found[first]
        if (here.interval_ms or (0, here.median_ms))[1] < (best.interval_ms or (best.median_ms, 0))[0]:
            first = name
    return first


def _threads(found: Measurement) -> str:
    if not found.threads:
        return ""
    return "one thread; " if found.threads == 1 else f"{found.threads} threads; "


def _how(found: Measurement) -> str:
    return "the next batch started before one ended" if found.back_to_back_ms else "one batch after the other"
