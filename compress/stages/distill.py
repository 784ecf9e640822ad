"""Stage 2: train the chosen student with the teacher."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from compress.contracts.task import TrainingNumbers
from compress.job import Job
from compress.lesson import LEARNED, lesson, trained_objectives
from compress.network import Model
from compress.records import Record, digest
from compress.stages.few_stages import few_stages
from compress.stages.learned import Choice
from compress.stages.students import build_student
from compress.tally import shown
from compress.training.curve import plain
from compress.training.evaluate import evaluate
from profiles.atomic import write_text, writing

STUDENT = "student.safetensors"
CURVE = "curve.json"


@dataclass(frozen=True)
class Distilled:
    """The trained float student.

    Attributes:
        model: raw inputs -> outputs, in eval mode.
        validation: its score on validation data.
    """

    model: Model
    validation: float
    record: Record


def distill(job: Job, choice: Choice) -> Distilled:
    """Train the student; an interrupted training goes on from its last checkpoint with the same random streams.

    Raises:
        TrainingError: the loss is not finite; says where.
    """
    part = job.recipe.distill
    inputs = {
        **job.identities,
        "choice": choice.identity,
        "trained": str(choice.trained),
        "distill": digest(part),
        "lesson": digest(_numbers(job)),
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        model = build_student(job, choice)
        notes = few_stages(job, model, trained_objectives(job, folder / LEARNED))
        for note in notes:
            job.progress.say(f"distill: {note}")
        if choice.trained is not None:
            files, found = _taken_over(job, choice.trained, model, folder)
            return files, {**found, "notes": notes}
        outcome = lesson(
            job,
            model,
            _numbers(job),
            title=f"distill: {part.method}",
            checkpoint=folder / "checkpoint.pt",
            precision=part.precision,
            spare=lambda number: build_student(job, choice, number),
            keep=folder / LEARNED,
        )
        write_text(folder / CURVE, json.dumps(plain(outcome.curve)))
        with writing(folder / STUDENT) as temporary:
            save_file({k: v.detach().contiguous().clone() for k, v in model.state_dict().items()}, temporary)
        (folder / "checkpoint.pt").unlink(missing_ok=True)
        validation = evaluate(model, job.splits.val, job.task).score
        job.progress.say(f"distill: {job.task.metric} {shown(job.task, validation)} on validation data")
        files = {"float student": folder / STUDENT, "learning curve": folder / CURVE}
        return files, {"validation": validation, "notes": notes}

    record = job.store.once("distill", inputs, work)
    model = build_student(job, choice)
    model.load_state_dict(load_file(job.store.path("distill") / STUDENT))
    return Distilled(model.eval(), record.values["validation"], record)


def _taken_over(job: Job, trained: str, model: Model, folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
    """The search has distilled the finalists fully already: the best one's weights go on."""
    model.load_state_dict(load_file(job.store.folder / trained))
    model.eval()
    with writing(folder / STUDENT) as temporary:
        save_file({k: v.detach().contiguous().clone() for k, v in model.state_dict().items()}, temporary)
    learned = (job.store.folder / trained).with_suffix(f".{LEARNED}")
    (folder / LEARNED).unlink(missing_ok=True)
    if learned.is_file():
        with writing(folder / LEARNED) as temporary:
            shutil.copyfile(learned, temporary)
    curve = (job.store.folder / trained).with_suffix(".json")
    write_text(folder / CURVE, curve.read_text(encoding="utf-8"))
    validation = evaluate(model, job.splits.val, job.task).score
    job.progress.say(
        f"distill: the search's finalist, {job.task.metric} {shown(job.task, validation)} on validation data"
    )
    return {"float student": folder / STUDENT, "learning curve": folder / CURVE}, {"validation": validation}


def _numbers(job: Job) -> TrainingNumbers:
    part = job.recipe.distill
    return TrainingNumbers(
        part.epochs, part.batch_size, part.learning_rate, part.weight_decay, keep_best=part.keep == "best"
    )
