"""What an ONNX file costs on another machine, by ssh: its artifact is built where it runs, then measured there.

Engines are built by TensorRT on the device, so the chain is ONNX file -> engine there -> engine here -> runner there.
A processor's runtimes take the ONNX file itself. C for a microcontroller is made here.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import profiles
from exporters import builder
from exporters.builder import BuildOptions
from exporters.cost_here import RUNS_ONNX, Array, random_inputs
from exporters.errors import ExportError
from profiles import remote
from profiles.cost import Cost
from profiles.remote import Remote
from profiles.target import Target


def cost_there(
    model: Path,
    target: Target,
    machine: Remote,
    batch: int = 1,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seed: int = 0,
    inputs: Mapping[str, Array] | None = None,
) -> Cost:
    """Build, run and cost one ONNX file on another machine.

    Args:
        model: an ONNX file.
        machine: where; engines are built by its `python3` and measured with `machine.python`.
        batch: >= 1.
        shapes: input name -> whole shape, for inputs with dynamic dimensions beside the batch.
        seed: of the random input data.
        inputs: name -> array of `batch` examples, to run the model on instead: token ids must lie in its tables.

    Returns:
        A cost whose origin is "measured" (or "emulated"). Never a prediction.

    Raises:
        ExportError: no builder of the target can run there.
        ProfileError: the model cannot be read, the machine cannot be reached, or nothing could be measured there.
    """
    example = {name: np.broadcast_to(np.float32(0), shape) for name, shape in (shapes or {}).items()}
    graph = profiles.read(model, batch, example or None)
    inputs = random_inputs(graph, seed) if inputs is None else inputs
    if target.runtime in RUNS_ONNX:
        [cost] = remote.measure_many([(model, inputs)], target, machine, models=[graph])
        return cost
    reasons = []
    for name in target.builders:
        module = builder.load(name)
        there = None if target.family == "cortex-m" else machine.host
        reason = module.can_run(target, remote=there)
        if reason is not None:
            reasons.append(f"{name}: {reason}")
            continue
        options = BuildOptions(
            golden_inputs={} if there else inputs,  # an engine is checked against golden outputs too, or not at all
            batches=(batch, batch, batch),
            shapes={name: tuple(shape[1:]) for name, shape in (shapes or {}).items()},
            remote=there,
        )
        with tempfile.TemporaryDirectory(prefix="compress-cost-") as scratch:
            artifact = module.convert(model, target, Path(scratch), options=options)
            [cost] = remote.measure_many([(artifact.path, inputs)], target, machine, models=[graph])
            return cost
    raise ExportError(
        f"nothing can build for {target.name} on {machine.host}: {'; '.join(reasons) or 'the target names no builder'}",
        fix="install there what is missing",
    )
