"""What a network costs on a target, from its graph alone."""

from collections.abc import Mapping
from typing import Any, Literal, cast

from profiles import energy
from profiles.cost import Cost, LayerCost, Precision
from profiles.fuse import Kernel, Plan, fuse
from profiles.graph import Graph
from profiles.latency.models import Model, latency_model
from profiles.liveness import best_order
from profiles.target import Target

_Bound = Literal["compute", "memory", "launch"]


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
    taken = energy.estimate(target, total, (total * low, total * high))
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
        energy_mj=None if taken is None else taken.mj,
        energy_interval_mj=None if taken is None else taken.interval_mj,
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
    return best_order(plan.kernels, plan.sizes, plan.inputs, plan.outputs, held=plan.inputs).peak_bytes


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
    drawn = energy.power(target)
    notes.append(f"energy: {energy.unknown(target) if drawn is None else drawn.origin}")
    return tuple(notes)
