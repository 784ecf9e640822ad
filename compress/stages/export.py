"""Stage 4: one ONNX file that carries everything a device needs to know."""

import dataclasses
import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import nn

import compress
from compress.errors import RunError
from compress.job import Job
from compress.network import Model, Postprocessed, with_postprocess
from compress.qat import prepare as qat
from compress.qat.prepared import Prepared
from compress.qat.quantizer import rules
from compress.records import Record, digest
from compress.stages.build import GOLDEN, MODEL
from compress.stages.distill import Distilled
from compress.stages.learned import Choice
from compress.stages.quantize import Quantized
from exporters import large, rewrite, torch_to_onnx
from exporters.half.formats import FORMATS, HalfFormat
from exporters.half.in_float import in_float32
from exporters.half.observe import observe
from exporters.half.plan import HALF_SCALES, Kept, decide
from exporters.lint import gate
from exporters.passes import cast_to_half
from exporters.rewrite import Pass
from profiles.atomic import writing
from profiles.runners import on_onnxruntime

FLOAT = "float.onnx"
SAMPLES = 16
# Of the outputs' size. One bf16 rounding costs 2^-9, and a network adds up dozens; what moves more has overflowed.
LARGEST_HALF_CHANGE = 2.0**-3


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
        "opset": str(_opset(job)),
        "half": half.name if (half := _half(job, quantized)) is not None else "",
        "metadata": digest(_metadata(job, choice)),
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        metadata = _metadata(job, choice)
        steps, kept = _last(job, quantized)
        model = torch_to_onnx.convert(
            _quantised(job, quantized.model),
            job.example,
            folder / MODEL,
            opset=_opset(job),
            metadata=metadata | {"precision": quantized.precision},
            input_names=job.task.input_names,
            output_names=(*job.task.output_names, *job.task.postprocessed_names),
            last=(*rules(job.target.quantizer).passes, *steps),
        )
        torch_to_onnx.convert(
            _float(job, student.model),
            job.example,
            folder / FLOAT,
            opset=job.target.opset,
            metadata=metadata | {"precision": "fp32"},
            input_names=job.task.input_names,
            output_names=(*job.task.output_names, *job.task.postprocessed_names),
        )
        found = gate.accepted(folder / MODEL, job.target)
        if found.findings:
            job.progress.say(
                f"export: lint has {found.in_words()}; see: compress lint {job.store.path('export') / MODEL}"
            )
        _write_golden(job, folder)
        size = int(str(model.facts["bytes"]))
        job.progress.say(f"export: {MODEL}, {size / 1000:.1f} kB, opset {_opset(job)}, {quantized.precision}")
        files = {
            "quantised ONNX": folder / MODEL,
            "float ONNX": folder / FLOAT,
            "golden inputs and outputs": folder / GOLDEN,
        }
        for name, path in (("quantised ONNX", folder / MODEL), ("float ONNX", folder / FLOAT)):
            if large.data_path(path).exists():
                files[f"{name}: its weights"] = large.data_path(path)
        if kept:
            job.progress.say(f"export: {len(kept)} nodes stay in float32: {_in_words(kept)}")
        return files, {
            "facts": dict(model.facts),
            "bytes": size,
            "in_float32": [dataclasses.asdict(one) for one in kept],
            "lint": gate.summary(found),
            # The recipe may ask for another format than the target's own; building needs no torch to know which.
            "quantizer": job.target.quantizer,
            "precision": job.target.precision,
        }

    record = job.store.once("export", inputs, work)
    folder = job.store.path("export")
    return Exported(folder / MODEL, folder / FLOAT, record)


def _opset(job: Job) -> int:
    """The target's opset, or a later one that the format is written in."""
    return max(job.target.opset, rules(job.target.quantizer).least_opset)


def _half(job: Job, quantized: Quantized) -> HalfFormat | None:
    """What everything that is not quantised is written in; None for float32.

    A network without quantised layers is written in what ships. One with them needs half-precision scales, which came
    with opset 19; before that TensorRT chooses fp16 for the rest by itself (its weakly typed mode).
    """
    if quantized.precision in FORMATS or quantized.precision == "fp32":
        return FORMATS.get(quantized.precision)
    wanted = rules(job.target.quantizer).half or FORMATS.get(job.target.leftovers)
    return wanted if _opset(job) >= HALF_SCALES else None


def _last(job: Job, quantized: Quantized) -> tuple[list[Pass], list[Kept]]:
    """The rewrite that writes the rest in half precision, and a list that it fills with what stays float32."""
    half = _half(job, quantized)
    kept: list[Kept] = []
    if half is None:
        return [], kept
    part, size = job.recipe.quantize, job.recipe.distill.batch_size
    rows = torch.randperm(len(job.splits.train), generator=torch.Generator().manual_seed(job.recipe.seed))
    samples = [
        {name: tensor.numpy() for name, tensor in zip(job.task.input_names, batch.inputs, strict=True)}
        for batch in (
            job.splits.train.batch(index) for index in torch.split(rows[: part.calibration_batches * size], size)
        )
    ]

    def cast(model: ModelProto) -> ModelProto:
        plan = decide(model, half, observe(model, samples, half), keep=part.float_modules)
        kept.extend(plan.kept)
        made = cast_to_half.apply(model, plan)
        before, after = (rewrite.outputs(one, samples[0]) for one in (model, in_float32(made, half)))
        change = max(rewrite.relative_change(before[name], after[name]) for name in before)
        job.progress.say(f"export: {half.name} moves the outputs by {100 * change:.2g} % of their size")
        if change > LARGEST_HALF_CHANGE:
            raise RunError(
                f"written in {half.name}, the outputs move by {100 * change:.2g} % of their size",
                fix="keep the layers that it hurts in float32 (quantize.float_modules), or ship fp32",
            )
        return made

    return [Pass("cast_to_half", cast, cast_to_half.LARGEST_CHANGE)], kept


def _in_words(kept: list[Kept]) -> str:
    """Operators and how many of each."""
    counts = Counter(one.operator for one in kept)
    return ", ".join(f"{count} {operator}" for operator, count in counts.most_common())


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
