"""What a network costs on a target, from its graph alone."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, cast

if sys.version_info >= (3, 11):
    import tomllib
else:  # JetPack 6 has Python 3.10
    import tomli as tomllib

from profiles.cost import Cost, LayerCost, Precision
from profiles.errors import ProfileError
from profiles.fuse import Kernel, Plan, fuse
from profiles.graph import Graph
from profiles.latency import cortex_m, nvidia_gpu, x86_cpu
from profiles.liveness import peak_bytes
from profiles.target import Hardware, Target

CONSTANTS = Path(__file__).parent / "latency"  # one TOML per family, beside its formula
JETSONS = frozenset({"8.7", "11.0", "10.1"})  # compute capabilities of integrated GPUs, for devices without a row
_Bound = Literal["compute", "memory", "launch"]


@dataclass(frozen=True)
class Model:
    """The latency model of one device family with its constants and how far it is off."""

    constants: Any  # of the family's own file
    kernel_ms: Callable[[Kernel, Hardware, Any], tuple[float, str]]
    fixed_ms: float
    interval: tuple[float, float]  # factors on the predicted median
    origin: str
    stretched: bool  # no row of this device's generation was there to fit on


_FILES: Mapping[str, Any] = {"nvidia-gpu": nvidia_gpu, "cortex-m": cortex_m, "x86-cpu": x86_cpu}


def predict(graph: Graph, target: Target, precision: Precision | None = None, layers: bool = True) -> Cost:
    """Cost of one forward pass of the graph's batch.

    Args:
        precision: what the network will run in; None takes what the graph says (Q/DQ pairs are int8).
        layers: whether to list the kernels; without them it is faster.
    """
    model = latency_model(target)
    plan = fuse(graph, target.family, precision)
    total = model.fixed_ms
    macs = params = weight_bytes = 0
    by_precision: dict[Precision, int] = {}
    stored: dict[str, int] = {}
    listed: list[LayerCost] = []
    for kernel in plan.kernels:
        latency, bound = model.kernel_ms(kernel, target.hardware, model.constants)
        total += latency
        macs += kernel.macs
        by_precision[kernel.precision] = by_precision.get(kernel.precision, 0) + kernel.macs
        fresh = [item for item in kernel.weights if item.name not in stored]
        stored.update((item.name, item.elements) for item in fresh)
        # A tensor that several kernels read is stored once.
        share = 1.0 if len(fresh) == len(kernel.weights) else _share(fresh, kernel)
        params += sum(item.elements for item in fresh)
        weight_bytes += round(kernel.weight_bytes * share)
        if layers:
            listed.append(_layer(kernel, latency, bound))
    low, high = model.interval
    return Cost(
        target=target.name,
        runtime=f"{target.runtime} {target.runtime_version}".strip(),
        batch=graph.batch,
        precision=precision or _prevailing(by_precision),
        macs=macs,
        params=params,
        weight_bytes=weight_bytes,
        peak_activation_bytes=_peak(plan),
        latency_ms=total,
        interval_ms=(total * low, total * high),
        origin="predicted",
        layers=tuple(listed),
        uncounted=dict(graph.uncounted),
        notes=_notes(graph, target, model),
    )


def _prevailing(macs: Mapping[Precision, int]) -> Precision:
    """The precision that most multiply-accumulates run in."""
    best: Precision = "fp32"
    for name, count in macs.items():
        if count > macs.get(best, 0):
            best = name
    return best


def _share(fresh: list[Any], kernel: Kernel) -> float:
    whole = sum(item.elements for item in kernel.weights)
    return sum(item.elements for item in fresh) / whole if whole else 0.0


def _peak(plan: Plan) -> int:
    return peak_bytes(plan.kernels, plan.sizes, plan.inputs, plan.outputs)


def _layer(kernel: Kernel, latency_ms: float, bound: str) -> LayerCost:
    return LayerCost(
        kernel.name,
        kernel.operators,
        kernel.macs,
        kernel.weight_bytes,
        kernel.activation_bytes,
        latency_ms,
        cast(_Bound, bound),
        kernel.precision,
    )


def _notes(graph: Graph, target: Target, model: Model) -> tuple[str, ...]:
    notes = [*graph.notes, f"latency model: {model.origin}"]
    if graph.uncounted:
        listed = ", ".join(f"{name} x{times}" for name, times in sorted(graph.uncounted.items()))
        notes.append(f"operators without a counter of multiply-accumulates: {listed}")
    if model.stretched:
        notes.append(
            f"no published latency of {target.device} or its generation was there to fit on; the interval is wider"
        )
    return tuple(notes)


def latency_model(target: Target) -> Model:
    """The constants for a target.

    Raises:
        ProfileError: its family has none.
    """
    return _latency_model(target.family, target.compute_capability, target.hardware.core)


@lru_cache(maxsize=64)
def _latency_model(family: str, compute_capability: str, core: str) -> Model:
    if family not in _FILES:
        raise ProfileError(f"there is no latency model for {family!r}", fix=f"use one of {', '.join(_FILES)}")
    tables = _fitted(family)
    stretched = False
    if family == "nvidia-gpu":
        fitted = (key for key, table in tables.items() if compute_capability in table["compute_capabilities"])
        near = "jetson" if compute_capability in JETSONS else "a100"
        name = next(fitted, near)
        stretched = compute_capability not in tables[name]["compute_capabilities"]
    else:
        name = core if core in tables else next(iter(tables))
        stretched = family == "cortex-m" and name != core
    table = tables[name]
    file = _FILES[family]
    wanted = {f.name for f in fields(file.Constants)}
    constants = file.Constants(**{key: _frozen(value) for key, value in table.items() if key in wanted})
    low, high = table["interval"]
    if stretched:
        low, high = low / 1.5, high * 1.5
    return Model(constants, file.kernel_ms, table.get("fixed_us", 0.0) / 1e3, (low, high), table["origin"], stretched)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=8)
def _fitted(family: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((CONSTANTS / f"{family.replace('-', '_')}.toml").read_text(encoding="utf-8"))
