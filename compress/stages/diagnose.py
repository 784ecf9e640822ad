"""Which layer is at fault where an artifact does not agree with its predecessor, and the least that shows it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto
from torch import nn

from compress.diagnosis.torch_tensors import TorchTensors
from compress.job import Job
from compress.stages.ledger import named_inputs
from exporters import bisect, builder, check_onnx, parity, reproducer
from exporters.artifact import Artifact
from exporters.bisect_sides import AS_WRITTEN, REWRITTEN, OnnxTensors, Runtime, Tensors, built_engine, generated_c
from exporters.builder import BuildOptions
from profiles import runners
from profiles.errors import UserError

Arrays = Mapping[str, NDArray[np.generic]]
REPRODUCER = "reproducer"
SAMPLES = 8
LIMIT_S = 60.0
SHOWN = 10  # layers in the report
CONVERSION = 1e-3  # of the output's spread: single codes on rare values, which float rounding may change


@dataclass(frozen=True)
class Suspect:
    """Two artifacts that should agree.

    Attributes:
        name: of the artifact that fails its gate.
        reference: what it is compared with.
        candidate: its graph.
        runtime: what runs it.
        otherwise: says of the inputs what else may be at fault, where no layer is; "" where nothing is.
    """

    name: str
    reference: Tensors
    candidate: ModelProto
    runtime: Runtime
    otherwise: Callable[[Arrays], str] = lambda inputs: ""


def exported(job: Job, name: str, prepared: nn.Module, converted: nn.Module, model: Path) -> Suspect:
    """The exported file against the converted student in torch, which the prepared one was made into."""
    loaded = check_onnx.load(model)
    reference = TorchTensors(converted, job.example, loaded)

    def conversion(inputs: Arrays) -> str:
        given = [torch.from_numpy(np.array(inputs[key])) for key in job.task.input_names]
        with torch.no_grad():
            found = parity.compare(_first(prepared(*given)), _first(converted(*given)), None)
        if found.mean_abs <= CONVERSION * found.spread and not found.not_a_number:
            return ""
        return (
            f"the file computes what the converted student does; the conversion itself moves the output by "
            f"{found.mean_abs:.3g} on average, {found.max_abs:.3g} at most"
        )

    return Suspect(name, reference, loaded, AS_WRITTEN, conversion)


def rewritten(name: str, model: Path, changed: ModelProto) -> Suspect:
    """A rewritten graph against the one that it was made of."""
    return Suspect(name, OnnxTensors(check_onnx.load(model)), changed, AS_WRITTEN)


def shipped(job: Job, artifact: Artifact, model: Path, runner: str) -> Suspect:
    """What was built, run as it is shipped, against the exported file."""
    loaded = check_onnx.load(model)
    reference = OnnxTensors(loaded)
    name = artifact.path.name
    if artifact.kind == "onnx" and runner == "on_onnxruntime":
        return Suspect(name, reference, check_onnx.load(artifact.path), REWRITTEN)
    if artifact.kind == "onnx":
        opened = built_engine(runner.removeprefix("on_"), lambda path, _: path, runners.runner(runner).load)
        return Suspect(name, reference, check_onnx.load(artifact.path), opened)
    if artifact.kind == "c-library":
        return Suspect(name, reference, loaded, generated_c(job.target))
    makers = [name for name in job.target.builders if builder.load(name).can_run(job.target) is None]

    def build(path: Path, folder: Path) -> Path:
        return builder.load(makers[0]).convert(path, job.target, folder, options=BuildOptions()).path

    return Suspect(name, reference, loaded, built_engine(runner, build, runners.runner(runner).load))


def samples(job: Job, worst: Sequence[parity.Worst]) -> dict[str, NDArray[np.generic]]:
    """Inputs of the test samples that differ most, filled up with the first ones."""
    count = len(job.splits.test)
    wanted = [found.sample for found in worst] + list(range(min(SAMPLES, count)))
    chosen = list(dict.fromkeys(wanted))[:SAMPLES]
    return named_inputs(job, job.splits.test.batch(torch.tensor(sorted(chosen))))


def diagnose(suspect: Suspect, inputs: Arrays, folder: Path) -> dict[str, Any]:
    """Bisect, and leave a reproducer of the first layer that rounding does not explain.

    Args:
        inputs: of a few samples.
        folder: the stage's; the reproducer gets a folder below it.

    Returns:
        Plain data: the artifact, the sentence for people, the faulty layers with their histogram and worst samples, and
        where the reproducer is. A bisect that cannot run says so in the sentence: the gate has failed either way.
    """
    try:
        found = bisect.bisect(suspect.reference, suspect.candidate, inputs, runtime=suspect.runtime, limit_s=LIMIT_S)
    except UserError as error:
        return {"artifact": suspect.name, "sentence": f"the layers could not be compared: {error.what}", "layers": []}
    other = suspect.otherwise(inputs) if found.first is None else ""
    told: dict[str, Any] = {
        "artifact": suspect.name,
        "runtime": found.runtime,
        "sentence": "; ".join(filter(None, (found.sentence(), other))),
        "compared": len(found.layers),
        "samples": len(next(iter(inputs.values()))),
        "seconds": found.seconds,
        "notes": list(found.notes),
        "first": None if found.first is None else layer_row(found.first),
        "layers": [layer_row(one) for one in found.ranked[:SHOWN]],
    }
    if found.first is not None:
        place = folder / REPRODUCER / re.sub(r"[^A-Za-z0-9._-]+", "_", suspect.name)
        reproducer.write(place, suspect.reference, suspect.candidate, found.first, inputs, suspect.runtime)
        told["reproducer"] = place.relative_to(folder).as_posix()
    return told


def _first(outputs: Any) -> NDArray[np.generic]:
    """The first output as an array."""
    first = outputs if isinstance(outputs, torch.Tensor) else next(iter(outputs))
    value: NDArray[np.generic] = first.detach().cpu().numpy()
    return value


def layer_row(one: bisect.Checked) -> dict[str, Any]:
    """One layer as plain data for strict JSON."""
    return {
        "module": one.layer.module,
        "node": one.layer.node,
        "operators": list(one.layer.operators),
        "tensor": one.layer.output,
        "score": one.verdict.score if np.isfinite(one.verdict.score) else None,
        "rule": one.verdict.reason,
        "constants": list(one.constants),
        "parity": None if one.parity is None else parity.plain(one.parity),
    }
