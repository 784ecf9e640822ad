"""Calibrate a processor core: time the suite with onnxruntime, fit the constants, say how far they are off."""

import datetime
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from profiles.calibration import elsewhere, fit
from profiles.calibration.suite import Sample, suite
from profiles.calibration.timing import Session, time_models
from profiles.calibration.write import Calibration
from profiles.errors import ProfileError
from profiles.fuse import Kernel, fuse
from profiles.latency.x86_calls import BLOCKED, Call, calls
from profiles.target import Hardware, Target

if TYPE_CHECKING:
    import onnx

NOISY = 0.1  # spread of the median model's visits above which a machine is refused
UNFIT = 0.35  # median error of unseen models above which the fit is refused
WHOLE = ("classifier", "listener", "encoder")  # generators of whole networks: what the interval is for
FULL_SUITE_S = 40.0  # of measuring that the whole suite needs; with less, fewer models are timed
LEAST_SHARE = 0.25  # of the suite
WIDEST = 0.02  # least distance of the interval's ends from 1
ENOUGH = 20  # whole networks that make an interval of their own; with fewer, all models do
LANES = (16, 8)  # AVX-512, AVX2: where the processor does not say, what explains the times better


def calibrated(
    target: Target, *, remote: str | None = None, seconds: float = 120.0, say: Callable[[str], object] = print
) -> Calibration:
    """Constants of `profiles.latency.x86_cpu` for the core that this runs on.

    Raises:
        ProfileError: the target is no processor, the machine is too busy, or the fit is unusable.
    """
    if target.family != "x86-cpu":
        raise ProfileError(
            f"{target.name} is of the family {target.family}; only processors are calibrated by measuring a suite",
            fix=f"measure two or more of your models there and pass them: "
            f"compress targets calibrate {target.name} --anchors FILE.csv",
        )
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ProfileError(f"{seconds} seconds of measuring", fix="pass a positive number, such as 120")
    samples = list(suite(share=min(1.0, max(LEAST_SHARE, seconds / FULL_SUITE_S))))
    if remote is not None:
        samples, session = elsewhere.time_models(target, samples, remote, seconds, say)
        return fitted(target.hardware, samples, session, say)
    say(f"timing {len(samples)} small models on one core for about {seconds:.0f} s")
    return fitted(target.hardware, samples, time_models(samples, seconds, say=say), say)


def ends_of(model: "onnx.ModelProto", kernels: Sequence[Kernel], lanes: int) -> list[Call]:
    """What onnxruntime does to a short chain's input and output because the kernels between want another layout.

    In whole networks this is part of what their first and last kernels cost; in a chain of two or three it would be
    taken for theirs.
    """
    made = [one for kernel in kernels if (one := calls(kernel, lanes))]
    if not made:
        return []
    first, last = made[0], made[-1]
    found: list[Call] = []
    images = [value.type.tensor_type.shape.dim for value in (model.graph.input[0], model.graph.output[0])]
    before, after = (float(math.prod(item.dim_value for item in dims)) for dims in images)
    if first[0][0] in BLOCKED - {"conv_first"}:
        found.append(("reorder", (1.0, before, 0.0)))
    if last[-1][0] in BLOCKED | {"skip"}:
        found.append(("reorder", (1.0, after, 0.0)))
    if first[0][0] == "quantize" and len(made) > 1 and made[1][0][0].startswith("qconv"):
        found.append(("qtranspose_inner", (1.0, before, 0.0)))
    if model.graph.node[-1].op_type == "DequantizeLinear":
        found.append(("quantize", (1.0, after, 0.0)))
        if any(call[0].startswith("qconv") for one in made for call in one) and len(images[1]) > 2:
            found.append(("qtranspose_inner", (1.0, after, 0.0)))
    return found


def kernels_of(model: "onnx.ModelProto") -> tuple[Kernel, ...]:
    """What onnxruntime runs for a model of the suite, at the batch size that it was made for."""
    from profiles import read

    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    return fuse(read(model, batch), "x86-cpu").kernels


def row_of(model: "onnx.ModelProto", lanes: int, cache_kib: float) -> fit.Array:
    """The counts of a model of the suite."""
    kernels = kernels_of(model)
    return fit.features(kernels, lanes, cache_kib, ends_of(model, kernels, lanes))


def fitted(
    hardware: Hardware, samples: Sequence[Sample], session: Session, say: Callable[[str], object] = print
) -> Calibration:
    """Constants from times that were taken on a core with these figures.

    Raises:
        ProfileError: the times are too noisy, or no constants explain them.
    """
    noise = float(np.median([timed.spread for timed in session.timed]))
    if noise > NOISY:
        raise ProfileError(
            f"repeated measurements of one model are {noise:.0%} apart in the median; at most {NOISY:.0%} is of use",
            fix="stop other work on this machine, fix its clocks or its power mode, and calibrate again",
        )
    nanoseconds = np.array([timed.ms * 1e6 for timed in session.timed])
    cache_kib = float(hardware.cache_kib or 1024)
    tries = []
    for lanes in (session.lanes,) if session.lanes else LANES:
        rows = np.array([row_of(sample.model, lanes, cache_kib) for sample in samples])
        ratios = fit.unseen(rows, nanoseconds)
        tries.append((float(np.median(np.abs(np.log(ratios)))), lanes, rows, ratios))
    _, lanes, rows, ratios = min(tries, key=lambda item: item[0])
    whole = np.array([sample.name.split()[0] in WHOLE for sample in samples])
    of_networks, kind = (ratios[whole], "whole networks") if whole.sum() >= ENOUGH else (ratios, "models")
    errors = np.abs(1 / of_networks - 1)
    median, far = float(np.median(errors)), float(np.percentile(errors, 90))
    say(f"{kind} that the fit did not see: median error {median:.0%}, 90th percentile {far:.0%}")
    if median > UNFIT:
        raise ProfileError(
            f"the fit misses half of the networks that it did not see by more than {median:.0%}",
            fix="calibrate again on a quiet machine with more --seconds; is onnxruntime built for this processor?",
        )
    peaks = (
        hardware.clock_mhz,
        hardware.tops["fp32"],
        hardware.tops.get("int8", hardware.tops["fp32"]),
        hardware.bandwidth_gbs,
    )
    constants = fit.constants_of(fit.solve(rows, nanoseconds), lanes, cache_kib, peaks)
    told = origin(session, median, far, f"{len(of_networks)} {kind}", noise)
    return Calibration(asdict(constants), interval(of_networks), told)


def interval(ratios: "fit.Array") -> tuple[float, float]:
    """Factors on the prediction that contain 90 % of cases like these: measured over predicted, (N,).

    The 5th and 95th percentile of the ratios, a little further apart because N cases show less than all: with N = 100
    by a fiftieth of the logarithms.
    """
    logs = np.log(ratios)
    low, high = np.percentile(logs, [5, 95])
    wider = 1 + 2 / len(logs)
    return float(np.exp(min(low * wider, -WIDEST))), float(np.exp(max(high * wider, WIDEST)))


def origin(session: Session, median: float, far: float, networks: str, noise: float) -> str:
    """One sentence that says where the constants are from."""
    today = datetime.date.today().isoformat()
    return (
        f"calibrated on {session.device} with {session.runtime}, one thread, on {today}: "
        f"{len(session.timed)} models in {session.seconds:.0f} s, repeated within {noise:.1%}; "
        f"median error {median:.0%}, 90th percentile {far:.0%} on {networks} left out of the fit"
    )
