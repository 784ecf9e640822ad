"""ONNX to what it costs on an NPU that nothing here emulates: its vendor's estimate, and the core beside it."""

import tempfile
from dataclasses import replace
from pathlib import Path

import profiles
from exporters import onnx_to_tflite
from exporters.errors import ExportError
from profiles.cost import Cost
from profiles.errors import ProfileError
from profiles.fuse import fuse
from profiles.latency import cortex_m, ethos_u
from profiles.runners import on_vela
from profiles.target import Target


def estimate(model: Path, target: Target) -> Cost:
    """Cost of one inference of an ONNX model on a target of the family ethos-u.

    Args:
        model: ONNX of batch 1; what stands between its Q/DQ pairs goes to the NPU.

    Returns:
        origin "predicted": Vela's estimate of what the NPU runs, with the core's share from the latency model of
        `profiles.latency.cortex_m` (Vela leaves it out). Where Vela is missing, or it or the file format refuses the
        graph: this package's own prediction. The first note says which.

    Raises:
        ProfileError: the target is of another family, or the model cannot be read.
    """
    if target.family != "ethos-u":
        raise ProfileError(
            f"{target.name} is {target.family}; Vela estimates Ethos-U NPUs", fix="predict it: profiles.profile"
        )
    own = profiles.profile(model, target)
    missing = on_vela.available()
    if missing is not None:
        return _own(own, missing)
    with tempfile.TemporaryDirectory(prefix="estimate-") as scratch:
        try:
            artifact = onnx_to_tflite.convert(model, target, Path(scratch))
            found = on_vela.measure(artifact.path, target)
        except (ExportError, ProfileError) as refused:
            return _own(own, refused.what)
    return _with_core(found, own, model, target)


def _own(cost: Cost, reason: str) -> Cost:
    return replace(cost, notes=(f"predicted from the graph, not by vela: {reason}", *cost.notes))


def _with_core(found: Cost, own: Cost, model: Path, target: Target) -> Cost:
    """Vela's estimate and the kernels that the core runs, one after the other; counts are those of the graph."""
    kernels = fuse(profiles.read(model), target.family).kernels
    layers = tuple(layer for kernel, layer in zip(kernels, own.layers, strict=True) if ethos_u.on_core(kernel))
    time = sum(layer.latency_ms for layer in layers)
    low, high = cortex_m.interval(ethos_u.HOST)
    notes = found.notes
    if layers:
        names = ", ".join(layer.name for layer in layers[:4]) + (" and others" if len(layers) > 4 else "")
        notes = (
            notes[0],
            f"with {time:.3g} ms of the {ethos_u.HOST} beside it, at the same clock, predicted: {names}",
            *notes[1:],
        )
    return replace(
        found,
        macs=own.macs,
        params=own.params,
        latency_ms=found.latency_ms + time,
        interval_ms=(found.interval_ms[0] + low * time, found.interval_ms[1] + high * time),
        weight_bytes=found.weight_bytes + sum(layer.weight_bytes for layer in layers),
        peak_activation_bytes=max(found.peak_activation_bytes, *(layer.activation_bytes for layer in layers), 0),
        layers=(*layers, *found.layers),
        notes=(*notes, "how far vela is from silicon is not known here, and not in the interval"),
    )
