"""The best figure that this machine has for an ONNX file on a target: measured or emulated, else predicted.

What a target runs is rarely the ONNX file itself: the chain is ONNX file -> the target's own artifact (an engine, C,
the file with the fastest runtime) -> the runner that runs it here. Where a link is missing the cost is predicted, and
its notes say which one and why.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import profiles
from exporters import builder
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles.abilities import ability
from profiles.cost import Cost
from profiles.errors import ProfileError
from profiles.graph import Graph
from profiles.target import Target

Array = NDArray[np.generic]


def cost_here(
    model: Path, target: Target, batch: int = 1, shapes: Mapping[str, tuple[int, ...]] | None = None, seed: int = 0
) -> Cost:
    """Build, run and cost one ONNX file as far as this machine can.

    Args:
        model: an ONNX file.
        batch: >= 1.
        shapes: input name -> whole shape, for inputs with dynamic dimensions beside the batch.
        seed: of the random input data.

    Returns:
        origin "measured" or "emulated" where the target's artifact was built and run here; else "predicted", with a
        first note that says why.

    Raises:
        ProfileError: the model cannot be read.
    """
    example = {name: np.broadcast_to(np.float32(0), shape) for name, shape in (shapes or {}).items()}
    graph = profiles.read(model, batch, example or None)
    found = ability(target)
    if found.level == "predict":
        missing = "; ".join(f"{name}: {why}" for name, why in found.missing.items())
        return _predicted(graph, target, missing or f"{target.name} has no runner")
    reasons = []
    for name in target.builders:
        module = builder.load(name)
        reason = module.can_run(target)
        if reason is not None:
            reasons.append(f"{name}: {reason}")
            continue
        options = BuildOptions(
            golden_inputs=random_inputs(graph, seed),
            batches=(batch, batch, batch),
            shapes={name: tuple(shape[1:]) for name, shape in (shapes or {}).items()},
        )
        with tempfile.TemporaryDirectory(prefix="compress-cost-") as scratch:
            try:
                artifact = module.convert(model, target, Path(scratch), options=options)
                if artifact.kind == "bundle":  # made to be run elsewhere
                    reasons.append(f"{name}: {artifact.note}")
                    continue
                chosen = artifact.facts.get("runner")
                device = replace(target, runners=(chosen,)) if isinstance(chosen, str) else target
                return profiles.measure_cost(artifact.path, device, model=graph, inputs=options.golden_inputs)
            except (ExportError, ProfileError) as error:
                reasons.append(f"{name}: {error.what}")
    return _predicted(graph, target, "; ".join(reasons) or f"{target.name} has no builder")


def _predicted(graph: Graph, target: Target, why: str) -> Cost:
    cost = profiles.profile(graph, target)
    return replace(cost, notes=(f"predicted, because it was not run here: {why}", *cost.notes))


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Input data for timing: normal numbers for floats, small indices for integers. Not zeros: kernels skip those."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    for name in graph.inputs:
        edge = graph.edges[name]
        if edge.dtype == "bool":
            made[name] = rng.integers(0, 2, edge.shape).astype(np.bool_)
        elif "int" in edge.dtype:
            made[name] = rng.integers(0, 100, edge.shape).astype(edge.dtype)
        else:
            known = edge.dtype if edge.dtype in ("float16", "float32", "float64") else "float32"
            made[name] = rng.standard_normal(edge.shape).astype(known)
    return made
