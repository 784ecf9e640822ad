"""What a network costs on a target, from its graph alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast

from profiles import energy
from profiles.cost import Cost, LayerCost, Precision
from profiles.costing import Kept, Skeleton, Work, skeleton, timer
from profiles.fuse import Fused, weight_bytes
from profiles.graph import Graph
from profiles.grouping import group, prepared
from profiles.latency.models import Model, latency_model
from profiles.liveness import Schedule, best_order
from profiles.target import Target

_Bound = Literal["compute", "memory", "launch"]
COSTS = 512  # results that are kept

_costs: Kept[tuple[Any, ...], Cost] = Kept(COSTS)


def predict(graph: Graph, target: Target, precision: Precision | None = None, layers: bool = True) -> Cost:
    """Cost of one forward pass of the graph's batch.

    The last results are kept: an equal graph on an equal target costs only the comparison.

    Args:
        precision: what the network will run in; None takes what the graph says (Q/DQ pairs are int8).
        layers: whether to list the kernels; without them it is faster.
    """
    device = repr(target)  # everything that a target says; its tables make it unhashable
    seen, structure, sizes = skeleton(graph, target.family, precision)
    names = tuple([op.name for op in graph.ops]) if layers else None
    rest = (graph.batch, graph.notes, graph.idle, tuple(graph.uncounted.items()))
    key = (device, id(structure), names, rest, sizes.key(seen))
    known = _costs.get(key)
    if known is not None:
        return replace(known, uncounted=dict(known.uncounted), weight_bytes_by_dtype=dict(known.weight_bytes_by_dtype))
    cost = _cost(seen, target, precision, layers, device, structure, structure.work(seen, sizes))
    # The structure is held with the result, so that its id cannot become another's.
    _costs.put(key, cost)
    return cost
