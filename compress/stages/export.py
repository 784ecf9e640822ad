"""Stage 4: one ONNX file that carries everything a device needs to know."""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import compress
from compress.job import Job
from compress.network import Model, Postprocessed, with_postprocess
from compress.qat import prepare as qat
from compress.qat.prepared import Prepared
from compress.stages.build import GOLDEN, MODEL
from compress.stages.distill import Distilled
from compress.stages.learned import Choice
from compress.stages.quantize import Quantized
from compress.store import Record, digest
from exporters import torch_to_onnx
from profiles.atomic import writing
from profiles.runners import on_onnxruntime

FLOAT = "float.onnx"
SAMPLES = 16


@dataclass(frozen=True)
class Exported:
    """The quantised ONNX, and the float student's beside it for comparison."""

    model: Path
    float_model: Path
    record: Record


def export(job: Job, choice: Choice, student: Distilled, quantized: Quantized) -> Exported:
    """Write `model.onnx`, `float.onnx`, and golden inputs and outputs for whoever checks the model elsewhere."""
    inputs = {
        "quantized": quantized.record.identity,
        "student": student.record.identity,
        "opset": str(job.target.opset),
        "metadata": digest(_metadata(job, choice)),
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        metadata = _metadata(job, choice)
        model = torch_to_onnx.convert(
            _quantised(job, quantized.model),
            (job.example,),
            folder / MODEL,
            opset=job.target.opset,
            metadata=metadata | {"precision": job.target.precision},
            input_names=job.task.input_names,
            output_names=(*job.task.output_names, *job.task.postprocessed_names),
        )
        torch_to_onnx.convert(
            _float(job, student.model),
            (job.example,),
            folder / FLOAT,
            opset=job.target.opset,
            metadata=metadata | {"precision": "fp32"},
            input_names=job.task.input_names,
            output_names=(*job.task.output_names, *job.task.postprocessed_names),
        )
        _write_golden(job, folder)
        job.progress.say(f"export: {MODEL}, {(folder / MODEL).stat().st_size / 1000:.1f} kB, opset {job.target.opset}")
        return {
            "quantised ONNX": folder / MODEL,
            "float ONNX": folder / FLOAT,
            "golden inputs and outputs": folder / GOLDEN,
        }, {"facts": dict(model.facts), "bytes": (folder / MODEL).stat().st_size}

    record = job.store.once("export", inputs, work)
    folder = job.store.path("export")
    return Exported(folder / MODEL, folder / FLOAT, record)


def _quantised(job: Job, model: Prepared) -> nn.Module:
    graph = qat.convert(model)
    count = len(job.task.postprocessed_names)
    return with_postprocess(graph, job.task.postprocess().eval(), count) if count else graph


def _float(job: Job, model: Model) -> nn.Module:
    return Postprocessed(model, job.task.postprocess().eval()) if job.task.postprocessed_names else model


def _metadata(job: Job, choice: Choice) -> dict[str, str]:
    """What the file says of itself; every value a text. Nothing that differs between two equal runs."""
    return {
        "task": job.task.name,
        "labels": json.dumps(list(job.task.labels)),
        "preprocessing": job.task.preprocessing,
        "metric": job.task.metric,
        "target": job.target.name,
        "quantizer": job.target.quantizer,
        "method": job.recipe.distill.method,
        "student": json.dumps({"space": choice.space, "plan": choice.plan}, sort_keys=True),
        "recipe": digest(_without_paths(job)),
        "data": job.identities["data"],
        "teacher": job.identities["teacher"],
        "seed": str(job.recipe.seed),
        "producer": f"compress {compress.__version__}, torch {torch.__version__}, python {platform.python_version()}",
    }


def _without_paths(job: Job) -> dict[str, Any]:
    """The recipe's numbers; where its files lie says nothing, and what is in them is in the other entries."""
    plain = job.recipe.to_json()
    return {name: part for name, part in plain.items() if name not in ("task", "teacher")}


def _write_golden(job: Job, folder: Path) -> None:
    """Real validation inputs and what onnxruntime makes of them; names are input:NAME and output:NAME."""
    batch = job.splits.val.batch(torch.arange(min(SAMPLES, len(job.splits.val))))
    arrays = {name: tensor.numpy() for name, tensor in zip(job.task.input_names, batch.inputs, strict=True)}
    outputs = on_onnxruntime.load(folder / MODEL).run(arrays)
    stored = {f"input:{name}": value for name, value in arrays.items()}
    stored |= {f"output:{name}": value for name, value in outputs.items()}
    with writing(folder / GOLDEN) as temporary, temporary.open("wb") as handle:
        np.savez(handle, allow_pickle=False, **stored)
