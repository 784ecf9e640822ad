"""Stage 3: fine-tune with simulated 8-bit arithmetic, the teacher still in the loop."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from compress.contracts.clock import Clock
from compress.contracts.task import TrainingNumbers
from compress.job import Job
from compress.lesson import lesson
from compress.qat import prepare as qat
from compress.qat.prepared import Prepared
from compress.stages.distill import CURVE, STUDENT, Distilled
from compress.stages.learned import Choice
from compress.store import Record, digest
from compress.training.curve import plain
from compress.training.evaluate import evaluate
from profiles.atomic import write_text, writing


@dataclass(frozen=True)
class Quantized:
    """The student with fake quantisation: it computes in float what the integer kernels will.

    Attributes:
        model: raw inputs -> outputs, in eval mode, ranges frozen.
        before: validation score after calibration alone, before any fine-tuning.
        validation: after it.
    """

    model: Prepared
    before: float
    validation: float
    record: Record


def quantize(job: Job, choice: Choice, student: Distilled) -> Quantized:
    """Insert the target family's quantiser, calibrate, fine-tune, and freeze ranges on time."""
    part = job.recipe.quantize
    inputs = {
        **job.identities,
        "student": student.record.identity,
        "quantize": digest(part),
        "distill": digest(job.recipe.distill),
        "quantizer": job.target.quantizer,
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        model = _prepared(job, student)
        qat.calibrate(model, _calibration(job))
        before = evaluate(model, job.splits.val, job.task).score
        job.progress.say(f"quantize: {100 * before:.2f} % after calibration with {job.target.quantizer} rules")

        now: qat.Phase | None = None

        def follow(clock: Clock) -> None:
            nonlocal now
            if now is not qat.phase(clock.progress):
                now = qat.phase(clock.progress)
                qat.enter(model, now)

        outcome = lesson(
            job,
            model,
            TrainingNumbers(part.epochs, job.recipe.distill.batch_size, part.learning_rate, 0.0),
            title="quantize: fine-tuning",
            checkpoint=folder / "checkpoint.pt",
            precision=part.precision,
            before_step=follow,
        )
        qat.enter(model, qat.phase(1.0))
        write_text(folder / CURVE, json.dumps(plain(outcome.curve)))
        with writing(folder / STUDENT) as temporary:
            save_file({k: v.detach().contiguous().clone() for k, v in model.state_dict().items()}, temporary)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        validation = evaluate(model, job.splits.val, job.task).score
        job.progress.say(f"quantize: {job.task.metric} {100 * validation:.2f} % on validation data")
        return {"fake-quantised student": folder / STUDENT, "learning curve": folder / CURVE}, {
            "before": before,
            "validation": validation,
        }

    record = job.store.once("quantize", inputs, work)
    model = _prepared(job, student)
    model.load_state_dict(load_file(job.store.path("quantize") / STUDENT))
    qat.enter(model, qat.phase(1.0))
    model.eval()
    return Quantized(model, record.values["before"], record.values["validation"], record)


def _prepared(job: Job, student: Distilled) -> Prepared:
    torch.manual_seed(job.recipe.seed)
    return qat.prepare(student.model, (job.example,), job.target.quantizer)


def _calibration(job: Job) -> list[tuple[torch.Tensor, ...]]:
    """The first batches of the training data in a seeded order."""
    part, size = job.recipe.quantize, job.recipe.distill.batch_size
    generator = torch.Generator().manual_seed(job.recipe.seed)
    order = torch.randperm(len(job.splits.train), generator=generator)[: part.calibration_batches * size]
    return [job.splits.train.batch(index).inputs for index in torch.split(order, size)]
