"""Stage 3: fine-tune with simulated 8-bit arithmetic, the teacher in the loop; choose the precision that ships."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from compress.contracts.clock import Clock
from compress.contracts.task import TrainingNumbers
from compress.job import Job
from compress.lesson import lesson
from compress.precision import choose
from compress.precision.choose import Assignment, Candidate, Decision
from compress.precision.layers import modules_of
from compress.precision.sensitivity import Estimate, Study
from compress.qat import prepare as qat
from compress.qat.equalize import equalized
from compress.qat.prepared import Prepared
from compress.qat.rounding import rounding
from compress.stages import precision
from compress.stages.distill import CURVE, STUDENT, Distilled
from compress.stages.learned import Choice
from compress.stages.select import budget_of
from compress.store import Record, digest
from compress.training.curve import plain
from compress.training.evaluate import evaluate
from profiles.atomic import write_text, writing

ROUNDS = 2  # assignments of layers that are fine-tuned before another precision ships


@dataclass(frozen=True)
class Quantized:
    """The student with fake quantisation: it computes in float what the integer kernels will.

    Attributes:
        model: raw inputs -> outputs, in eval mode, ranges frozen. Without any rounding where a float precision ships.
        before: validation score after calibration alone, before any fine-tuning.
        validation: after it.
        precision: what ships: int8, mixed, fp16 or fp32.
    """

    model: Prepared
    before: float
    validation: float
    precision: str
    record: Record


@dataclass(frozen=True)
class _Outcome:
    """What was tried, and what came of it."""

    model: Prepared
    decision: Decision
    options: list[Candidate]
    loss: Estimate
    modules: tuple[str, ...] = ()  # in float, beside those that always are
    layers: tuple[str, ...] = ()
    assignment: Assignment | None = None


def quantize(job: Job, choice: Choice, student: Distilled) -> Quantized:
    """Insert the target family's quantiser, calibrate, fine-tune, and freeze ranges on time.

    What ships is the fastest precision that keeps the accuracy budget: int8 unless float is faster on the target; some
    layers in float where int8 alone loses too much. `precision.json` says what was chosen and why, `sensitivity.json`
    how each layer takes its rounding.
    """
    part = job.recipe.quantize
    inputs = {
        **job.identities,
        "student": student.record.identity,
        "quantize": digest(part),
        "distill": digest(job.recipe.distill),
        "quantizer": job.target.quantizer,
        "target": digest([job.target.name, budget_of(job), job.target.hardware]),
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        desk = precision.desk(job, student)
        model = _prepared(job, student)
        qat.calibrate(model, _calibration(job))
        before = evaluate(model, job.splits.val, job.task).score
        job.progress.say(f"quantize: {100 * before:.2f} % after calibration with {job.target.quantizer} rules")
        study = precision.study(desk, model)
        options, notes = precision.candidates(desk, model)
        found = _settled(desk, model, options, study, folder)
        costs = desk.pricer.by_layer() if study is not None else ()
        content = precision.content(
            desk,
            found.decision,
            found.options,
            study=study,
            costs=costs,
            assignment=found.assignment,
            float_layers=found.layers,
            loss=found.loss,
            notes=notes,
        )
        write_text(folder / precision.PRECISION, json.dumps(content, indent=1))
        files = {"fake-quantised student": folder / STUDENT, "learning curve": folder / CURVE}
        files["precision and why"] = folder / precision.PRECISION
        if study is not None:
            write_text(folder / precision.SENSITIVITY, json.dumps(study.to_json(), indent=1))
            files["sensitivity of each layer"] = folder / precision.SENSITIVITY
        with writing(folder / STUDENT) as temporary:
            save_file({k: v.detach().contiguous().clone() for k, v in found.model.state_dict().items()}, temporary)
        for checkpoint in folder.glob("checkpoint*.pt"):
            checkpoint.unlink()
        validation = evaluate(found.model, job.splits.val, job.task).score
        job.progress.say(f"quantize: {job.task.metric} {100 * validation:.2f} % on validation data")
        for reason in found.decision.reasons:
            job.progress.say(f"quantize: {reason}")
        return files, {
            "before": before,
            "validation": validation,
            "float_modules": list(found.modules),
            "precision": content,
        }

    record = job.store.once("quantize", inputs, work)
    model = _prepared(job, student, tuple(record.values["float_modules"]))
    model.load_state_dict(load_file(job.store.path("quantize") / STUDENT))
    qat.enter(model, qat.phase(1.0))
    model.eval()
    shipped = record.values["precision"]["shipped"]
    return Quantized(model, record.values["before"], record.values["validation"], shipped, record)


def _settled(
    desk: precision.Desk, model: Prepared, options: list[Candidate], study: Study | None, folder: Path
) -> _Outcome:
    """Fine-tune what may ship, until one precision is chosen."""
    speed = choose.decide(options, desk.budget)  # of accuracy nothing is known yet, so int8 gives way to speed alone
    if speed.precision != "int8":
        return _in_float(desk, model, options, speed, folder)
    _tune(desk.job, model, folder, "")
    loss = precision.drop(desk, model)
    options = [_with_drop(item, loss) if item.precision == "int8" else item for item in options]
    if loss.mean <= desk.budget or len(options) == 1:
        return _Outcome(model, choose.decide(options, desk.budget), options, loss)
    if study is None or not desk.job.recipe.quantize.mixed:
        decision = choose.decide(options, desk.budget)
        if decision.precision != "int8":
            return _in_float(desk, model, options, decision, folder)
        return _Outcome(model, decision, options, loss)
    return _with_float_layers(desk, model, options, loss, folder)


def _with_float_layers(
    desk: precision.Desk, model: Prepared, options: list[Candidate], loss: Estimate, folder: Path
) -> _Outcome:
    """Keep the layers in float that int8 loses its accuracy by, and fine-tune again."""
    job, budget = desk.job, desk.budget
    study = precision.study(desk, model)
    assert study is not None
    assignment: Assignment | None = None
    best: tuple[Prepared, Estimate, tuple[str, ...], Candidate] | None = None
    for number in range(1, ROUNDS + 1):
        assignment, _ = precision.mixed(desk, model, study, budget)
        modules = modules_of([row.layer for row in study.rows], assignment.floats)
        job.progress.say(
            f"quantize: int8 loses {100 * loss.mean:.2f} points, more than {100 * desk.budget:.2f}; in float: "
            f"{', '.join(assignment.floats) or 'nothing'}"
        )
        if not assignment.floats or len(assignment.floats) == len(study.rows):
            break
        twin = _continued(job, desk, model, modules)
        _tune(job, twin, folder, f"-{number}")
        found = precision.drop(desk, twin)
        best = twin, found, modules, precision.mixed_candidate(desk, modules, found)
        if found.mean <= desk.budget:
            break
        budget *= min(choose.TIGHTEN, desk.budget / found.mean)
    if best is not None:
        options = [*options, best[3]]
    decision = choose.decide(options, desk.budget)
    if decision.precision == "mixed" and best is not None and assignment is not None:
        twin, found, modules, _ = best
        return _Outcome(twin, decision, options, found, modules, assignment.floats, assignment)
    if decision.precision == "int8":
        return _Outcome(model, decision, options, loss, assignment=assignment)
    return _in_float(desk, model, options, decision, folder, assignment)


def _in_float(
    desk: precision.Desk,
    model: Prepared,
    options: list[Candidate],
    decision: Decision,
    folder: Path,
    assignment: Assignment | None = None,
) -> _Outcome:
    """The float student, with nothing to fine-tune."""
    modules = precision.all_modules(desk, model)
    if not (folder / CURVE).exists():
        write_text(folder / CURVE, json.dumps([]))
    plain_student = _prepared(desk.job, desk.student, modules)
    return _Outcome(plain_student, decision, options, Estimate(0.0, 0.0), modules, assignment=assignment)


def _with_drop(item: Candidate, loss: Estimate) -> Candidate:
    return replace(item, drop=loss.mean)


def _tune(job: Job, model: Prepared, folder: Path, name: str) -> None:
    """Fine-tune in place, and write the learning curve."""
    part = job.recipe.quantize
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
        checkpoint=folder / f"checkpoint{name}.pt",
        precision=part.precision,
        before_step=follow,
    )
    qat.enter(model, qat.phase(1.0))
    model.eval()
    write_text(folder / CURVE, json.dumps(plain(outcome.curve)))


def _continued(job: Job, desk: precision.Desk, model: Prepared, modules: tuple[str, ...]) -> Prepared:
    """The fine-tuned weights with more modules in float, ranges found anew."""
    twin = _prepared(job, desk.student, modules)
    own = {name for name, _ in twin.graph.named_modules() if name}
    rounding = tuple(f"graph.{name}." for name in own if _is_rounding(twin, name))
    trained = model.state_dict()
    kept = {
        name: trained[name]
        for name, value in twin.state_dict().items()
        if not name.startswith(rounding) and name in trained and trained[name].shape == value.shape
    }
    twin.load_state_dict(kept, strict=False)
    qat.calibrate(twin, _calibration(job))
    return twin


def _is_rounding(prepared: Prepared, name: str) -> bool:
    module = prepared.graph.get_submodule(name)
    return any(module is found for found in (*prepared.activations(), *prepared.weights()))


def _prepared(job: Job, student: Distilled, modules: tuple[str, ...] = ()) -> Prepared:
    torch.manual_seed(job.recipe.seed)
    floats = tuple(dict.fromkeys(("frontend", *job.recipe.quantize.float_modules, *modules)))
    part = job.recipe.quantize
    network = equalized(student.model, part.equalize, _calibration(job) if part.equalize != "none" else ())
    how = rounding(part.ranges, percentile=part.percentile, weight_ranges=part.weight_ranges, steps=part.steps)
    return qat.prepare(network, (job.example,), job.target.quantizer, float_modules=floats, rounding=how)


def _calibration(job: Job) -> list[tuple[torch.Tensor, ...]]:
    """The first batches of the training data in a seeded order."""
    part, size = job.recipe.quantize, job.recipe.distill.batch_size
    generator = torch.Generator().manual_seed(job.recipe.seed)
    order = torch.randperm(len(job.splits.train), generator=generator)[: part.calibration_batches * size]
    return [job.splits.train.batch(index).inputs for index in torch.split(order, size)]
