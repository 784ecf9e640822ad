"""The best figure that this machine has for an ONNX file on a target: measured, emulated, estimated by its vendor's
tool, else predicted.

What a target runs is rarely the ONNX file itself: an engine is built from it, or C. Where a link of that chain is
missing the cost is predicted, and its notes say which one and why.
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
from exporters.emulate import emulate
from exporters.errors import ExportError
from exporters.estimate import estimate
from profiles.abilities import ability
from profiles.cost import Cost
from profiles.errors import ProfileError
from profiles.graph import Graph
from profiles.target import Target

Array = NDArray[np.generic]
RUNS_ONNX = frozenset({"onnxruntime", "openvino"})  # runtimes that take the file as it is


def cost_here(
    model: Path,
    target: Target,
    batch: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = 0,
    inputs: Mapping[str, Array] | None = None,
) -> Cost:
    """Build, run and cost one ONNX file as far as this machine can.

    Args:
        model: an ONNX file.
        batch: >= 1. A microcontroller runs it as so many inferences, one after the other.
        shapes: input name -> whole shape, for inputs with dynamic dimensions beside the batch.
        seed: of the random input data.
        inputs: name -> array of `batch` examples, to run the model on instead: token ids must lie in its tables.

    Returns:
        origin "measured" or "emulated" where the target's artifact was built and run here; else "predicted", with a
        first note that says why.

    Raises:
        ProfileError: the model cannot be read.
    """
    example = {name: np.broadcast_to(np.float32(0), shape) for name, shape in (shapes or {}).items()} or None
    graph = profiles.read(model, batch, example)
    found = ability(target)
    if found.level == "predict":
        missing = "; ".join(f"{name}: {why}" for name, why in found.missing.items())
        return _predicted(graph, target, missing or f"{target.name} has no runner")
    if found.level == "estimate":
        return repeated(estimate(model, target), batch)
    if target.family == "cortex-m":
        try:
            return repeated(emulate(model, target), batch)
        except ProfileError as error:
            return _predicted(graph, target, error.what)
    inputs = random_inputs(graph, seed) if inputs is None else inputs
    if target.runtime in RUNS_ONNX:
        try:
            return profiles.measure_cost(model, target, model=graph, inputs=inputs)
        except ProfileError as error:  # such as a model that is made for another batch, or runs that spread too wide
            return _predicted(graph, target, error.what)
    return _built(model, graph, target, inputs, shapes or {})


def _built(
    model: Path,
    graph: Graph,
    target: Target,
    inputs: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
) -> Cost:
    """With the first builder whose artifact runs here."""
    reasons = []
    options = BuildOptions(
        batches=(graph.batch, graph.batch, graph.batch),
        shapes={name: tuple(shape[1:]) for name, shape in shapes.items()},
    )
    for name in target.builders:
        module = builder.load(name)
        reason = module.can_run(target)
        if reason is not None:
            reasons.append(f"{name}: {reason}")
            continue
        with tempfile.TemporaryDirectory(prefix="compress-cost-") as scratch:
            try:
                artifact = module.convert(model, target, Path(scratch), options=options)
                if artifact.kind == "bundle":  # made to be run elsewhere
                    reasons.append(f"{name}: {artifact.note}")
                    continue
                return profiles.measure_cost(artifact.path, target, model=graph, inputs=inputs)
            except (ExportError, ProfileError) as error:
                reasons.append(f"{name}: {error.what}")
    return _predicted(graph, target, "; ".join(reasons) or f"{target.name} has no builder")


def _predicted(graph: Graph, target: Target, why: str) -> Cost:
    cost = profiles.profile(graph, target)
    return replace(cost, notes=(f"predicted, because it was not run here: {why}", *cost.notes))


def repeated(cost: Cost, batch: int) -> Cost:
    """What `batch` inferences cost, one after the other, where `cost` is that of one; memory is used again."""
    if cost.batch == batch:
        return cost
    low, high = cost.interval_ms
    energy = cost.energy_interval_mj
    layers = tuple(
        replace(
            layer,
            macs=batch * layer.macs,
            activation_bytes=batch * layer.activation_bytes,
            latency_ms=batch * layer.latency_ms,
        )
        for layer in cost.layers
    )
    return replace(
        cost,
        batch=batch,
        macs=batch * cost.macs,
        latency_ms=batch * cost.latency_ms,
        interval_ms=(batch * low, batch * high),
        energy_mj=None if cost.energy_mj is None else batch * cost.energy_mj,
        energy_interval_mj=None if energy is None else (batch * energy[0], batch * energy[1]),
        layers=layers,
        notes=(f"{batch} inferences, one after the other", *cost.notes),
    )


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
