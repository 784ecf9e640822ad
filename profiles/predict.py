"""What a network costs on a target, from its graph alone."""

import gc
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, cast, get_args

from profiles import costing, energy
from profiles.cost import Cost, LayerCost, Precision
from profiles.costing import Kept, Key, Recent, Skeleton, Work, skeleton, stored_idle, timer
from profiles.errors import ProfileError
from profiles.fuse import fuse
from profiles.graph import Graph
from profiles.latency.models import Model, latency_model
from profiles.liveness import Schedule, best_order
from profiles.target import Target

_Bound = Literal["compute", "memory", "launch"]
COSTS = 256  # results that are kept
PRECISIONS = get_args(Precision)

GRAPHS = 64  # graphs that are known again without a look into them, as long as they live
AGAIN = 32  # results of one such graph

_costs: Kept[Key, Cost] = Kept(COSTS)
_seen: Recent[dict[tuple[str, Precision | None, bool], Cost]] = Recent(GRAPHS)


def predict(graph: Graph, target: Target, precision: Precision | None = None, layers: bool = True) -> Cost:
    """Cost of one forward pass of the graph's batch.

    The last results are kept: an equal graph on an equal target costs only the comparison.

    Args:
        precision: what the network will run in; None takes what the graph says (Q/DQ pairs are int8).
        layers: whether to list the kernels; without them it is faster.

    Raises:
        ProfileError: there is no such precision.
    """
    if precision is not None and precision not in PRECISIONS:
        raise ProfileError(f"precision is {precision!r}", fix=f"pass one of {', '.join(PRECISIONS)}, or None")
    device = costing.device(target)
    tables = (tuple(graph.edges), tuple(graph.edges.values()), tuple(graph.uncounted.items()))
    asked = (device, precision, layers)
    there = _seen.get(graph, tables)
    if there is not None and (same := there.get(asked)) is not None:
        return _given(same)
    # Thousands of small objects are made and all of them are kept: looking for garbage among them finds none.
    collecting = gc.isenabled()
    gc.disable()
    try:
        known = _priced(graph, target, precision, device, layers)
    finally:
        if collecting:
            gc.enable()
    if there is None or len(there) >= AGAIN:
        there = _seen.put(graph, tables, {})
    there[asked] = known
    return _given(known)


def _given(known: Cost) -> Cost:
    """A kept cost; the caller may write into its tables, not into those that are kept."""
    return replace(known, uncounted=dict(known.uncounted), weight_bytes_by_dtype=dict(known.weight_bytes_by_dtype))


def _priced(graph: Graph, target: Target, precision: Precision | None, device: str, layers: bool) -> Cost:
    """The cost of an equal graph, or a new one."""
    seen, structure, sizes = skeleton(graph, target.family, precision)
    names = tuple([op.name for op in seen.ops]) if layers else None
    rest = (graph.batch, graph.notes, graph.idle, tuple(graph.uncounted.items()))
    key = Key((device, structure.serial, names, rest, sizes.key(seen)))
    known = _costs.get(key)
    if known is None:
        work = structure.work(seen, sizes)
        known = _costs.put(key, _cost(seen, target, precision, device, structure, work, layers))
    return known


def statistics() -> dict[str, int]:
    """How many results are kept, and how often one was of use."""
    return {"results": len(_costs), "hits": _costs.hits, "misses": _costs.misses, **costing.kept()}


def memory(graph: Graph, target: Target, precision: Precision | None = None) -> tuple[Schedule, Mapping[str, int]]:
    """The order of kernels that needs the least memory, which tensors make its peak, and the bytes of all tensors."""
    plan = fuse(graph, target.family, precision)
    return best_order(plan.kernels, plan.sizes, plan.inputs, plan.outputs, held=plan.inputs), plan.sizes


def _cost(
    graph: Graph,
    target: Target,
    precision: Precision | None,
    device: str,
    structure: Skeleton,
    work: Work,
    layers: bool,
) -> Cost:
    asked = timer(device, lambda: (latency_model(target), target.hardware))
    model = asked.model
    times = asked.times(graph, structure, work)
    total = model.fixed_ms + sum([time for time, _ in times])
    by_precision: dict[Precision, int] = {}
    for name, count in zip(structure.precisions, work.macs, strict=True):
        by_precision[name] = by_precision.get(name, 0) + count
    prevailing = precision or _prevailing(by_precision)
    stored = dict(work.stored)
    idle_params = stored_idle(graph, prevailing if precision else None, stored)
    waiting = model.fixed_ms + sum([time for time, bound in times if bound == "launch"])
    low, high = model.factors(waiting / total if total else 0.0, prevailing)
    cost = Cost(
        target=target.name,
        runtime=f"{target.runtime} {target.runtime_version}".strip(),
        batch=graph.batch,
        precision=prevailing,
        macs=sum(work.macs),
        params=work.params + idle_params,
        weight_bytes=sum(stored.values()),
        peak_activation_bytes=work.peak_bytes,
        latency_ms=total,
        interval_ms=(total * low, total * high),
        origin="predicted",
        layers=_layers(graph, structure, work, times) if layers else (),
        weight_bytes_by_dtype={kind: size for kind, size in sorted(stored.items()) if size},
        uncounted=dict(graph.uncounted),
        notes=_notes(graph, target, model, prevailing),
    )
    return energy.added(replace(cost, notes=(*cost.notes, *_too_large(cost, target))), target)


def _too_large(cost: Cost, target: Target) -> tuple[str, ...]:
    """What does not fit into the target, code and the runtime's own memory not counted."""
    hardware, found = target.hardware, []
    for name, needed, there in (
        ("flash for weights", cost.weight_bytes, hardware.flash_kib * 1024),
        ("RAM for activations", cost.peak_activation_bytes, hardware.ram_kib * 1024),
        ("memory", cost.weight_bytes + cost.peak_activation_bytes, hardware.memory_gb * 1e9),
    ):
        if there and needed > there:
            found.append(f"does not fit {target.name}: {needed} bytes of {name}, and it has {there:.0f}")
    return tuple(found)


def _prevailing(macs: Mapping[Precision, int]) -> Precision:
    """The precision that most multiply-accumulates run in."""
    best: Precision = "fp32"
    for name, count in macs.items():
        if count > macs.get(best, 0):
            best = name
    return best


def _layers(graph: Graph, structure: Skeleton, work: Work, times: list[tuple[float, str]]) -> tuple[LayerCost, ...]:
    cores = [graph.ops[index] for index in structure.cores]
    moved = [
        (read + written) * core.repeats
        for read, written, core in zip(work.read_bytes, work.written_bytes, cores, strict=True)
    ]
    return tuple(
        [
            LayerCost(core.name, operators, macs, stored, size, time[0], cast(_Bound, time[1]), precision)
            for core, operators, macs, stored, size, time, precision in zip(
                cores,
                structure.operators,
                work.macs,
                work.weight_bytes,
                moved,
                times,
                structure.precisions,
                strict=True,
            )
        ]
    )


def _notes(graph: Graph, target: Target, model: Model, precision: Precision) -> tuple[str, ...]:
    notes = [*graph.notes, f"latency model: {model.origin}"]
    if graph.uncounted:
        listed = ", ".join(f"{name} x{times}" for name, times in sorted(graph.uncounted.items()))
        notes.append(f"operators without a counter, whose work is in no figure and no interval: {listed}")
    if model.stretched:
        notes.append(f"no latency of {target.device} or its generation was there to fit on; the interval is wider")
    if precision == "int8" and target.family == "nvidia-gpu" and "int8" not in target.hardware.tops:
        notes.append(
            f"{target.device} has no int8 arithmetic: its layers are costed at the rate of the next wider type"
        )
    return tuple(notes)
