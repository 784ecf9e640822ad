"""Stage 3: fine-tune with simulated 8-bit arithmetic, the teacher in the loop; choose the precision that ships."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from compress.contracts.clock import Clock
from compress.contracts.task import TrainingNumbers
from compress.errors import RunError
from compress.job import Job
from compress.lesson import LEARNED, lesson
from compress.precision import choose
from compress.precision.choose import Assignment, Candidate, Decision
from compress.precision.layers import modules_of
from compress.precision.sensitivity import Estimate, Study
from compress.qat import prepare as qat
from compress.qat.equalize import equalized
from compress.qat.prepared import Prepared
from compress.qat.quantizer import rules
from compress.qat.rounding import rounding
from compress.records import Record, digest
from compress.stages import precision
from compress.stages.budget import budget_of
from compress.stages.distill import CURVE, STUDENT, Distilled
from compress.stages.learned import Choice
from compress.tally import shown, shown_gap
from compress.training.curve import plain
from compress.training.evaluate import evaluate
from profiles.atomic import write_text, writing

ROUNDS = 2  # assignments of layers that are fine-tuned before another precision ships

FORMAT = "3"  # of the stored state: what a prepared student's tensors are called; older ones are made again


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
        "format": FORMAT,
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        desk = precision.desk(job, student)
        model = _prepared(job, student)
        qat.calibrate(model, _calibration(job))
        before = evaluate(model, job.splits.val, job.task).score
        job.progress.say(f"quantize: {shown(job.task, before)} after calibration with {job.target.quantizer} rules")
        study: Study | None = None
        options: list[Candidate] = []
        notes: list[str] = []
        if rules(job.target.quantizer).ships == "int8":
            study = precision.study(desk, model)
            options, notes = precision.candidates(desk, model)
            found = _settled(desk, model, options, study, folder)
        else:
            found = _as_asked(desk, model, folder)
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
            checkpoint.unlink(missing_ok=True)  # another process of the run may have been faster
        validation = evaluate(found.model, job.splits.val, job.task).score
        job.progress.say(f"quantize: {job.task.metric} {shown(job.task, validation)} on validation data")
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
    try:
        model.load_state_dict(load_file(job.store.path("quantize") / STUDENT))
    except RuntimeError as error:
        raise RunError(
            f"{job.store.path('quantize') / STUDENT} was written by another version of compress",
            fix=f"quantise again: compress quantize {job.store.folder}",
        ) from error
    qat.enter(model, qat.phase(1.0))
    model.eval()
    shipped = record.values["precision"]["shipped"]
    return Quantized(model, record.values["before"], record.values["validation"], shipped, record)


def _settled(
    desk: precision.Desk, model: Prepared, options: list[Candidate], study: Study | None, folder: Path
) -> _Outcome:
    """Fine-tune what may ship, until one precision is chosen."""
    # Nothing is known of the metric yet, so int8 gives way to speed alone.
    speed = choose.decide(options, desk.budget, desk.metric)
    if speed.precision != "int8":
        return _in_float(desk, model, options, speed, folder)
    calibrated = copy.deepcopy(model)
    model, loss = _tuned(desk, model, folder, "")
    options = [_with_drop(item, loss) if item.precision == "int8" else item for item in options]
    if loss.mean <= desk.budget or len(options) == 1:
        return _Outcome(model, choose.decide(options, desk.budget, desk.metric), options, loss)
    if study is None or not desk.job.recipe.quantize.mixed:
        decision = choose.decide(options, desk.budget, desk.metric)
        if decision.precision != "int8":
            return _in_float(desk, model, options, decision, folder)
        return _Outcome(model, decision, options, loss)
    return _with_float_layers(desk, calibrated, study, _Outcome(model, speed, options, loss), folder)


def _as_asked(desk: precision.Desk, model: Prepared, folder: Path) -> _Outcome:
    """The format that the target or the recipe names: nothing else was asked for, so nothing competes."""
    job, form = desk.job, rules(desk.job.target.quantizer)
    why = (
        f"{form.ships} is what {'the recipe' if job.recipe.quantize.format != 'target' else job.target.name} asks for."
    )
    decision = Decision(form.ships, (why,))  # type: ignore[arg-type]
    if not form.fine_tunes:
        write_text(folder / CURVE, json.dumps([]))
        return _Outcome(model, decision, [], Estimate(0.0, 0.0))
    _tune(job, model, folder, "")
    return _Outcome(model, decision, [], precision.drop(desk, model))


def _with_float_layers(
    desk: precision.Desk, calibrated: Prepared, study: Study, integers: _Outcome, folder: Path
) -> _Outcome:
    """Keep the layers in float that int8 loses its accuracy by, and fine-tune again, from the float student.

    Layers are judged before fine-tuning, where nothing but rounding sets them apart from the float student. As
    fine-tuning heals a share of the loss, the calibrated student may lose as much more.
    """
    job, options, layers = desk.job, integers.options, [row.layer for row in study.rows]
    healed = study.quantized.drop.mean / integers.loss.mean
    allowed = desk.budget * max(1.0, healed)
    assignment: Assignment | None = None
    best: _Outcome | None = None
    for number in range(1, ROUNDS + 1):
        assignment = precision.mixed(desk, calibrated, study, allowed)
        job.progress.say(
            f"quantize: int8 loses {shown_gap(job.task, integers.loss.mean)}, more than "
            f"{shown_gap(job.task, desk.budget)}; in float: "
            f"{', '.join(assignment.floats) or 'nothing'}"
        )
        if not assignment.floats or len(assignment.floats) == len(layers):
            break
        modules = modules_of(layers, assignment.floats)
        twin = _prepared(job, desk.student, modules)
        qat.calibrate(twin, _calibration(job))
        twin, loss = _tuned(desk, twin, folder, f"-{number}")
        mixed = [*options, precision.mixed_candidate(desk, modules, loss)]
        if best is None or loss.mean < best.loss.mean:
            decision = choose.decide(mixed, desk.budget, desk.metric)
            best = _Outcome(twin, decision, mixed, loss, modules, assignment.floats, assignment)
        if loss.mean <= desk.budget:
            break
        allowed *= min(choose.TIGHTEN, desk.budget / loss.mean)
    if best is not None and best.decision.precision == "mixed":
        return best
    options = options if best is None else best.options
    decision = choose.decide(options, desk.budget, desk.metric)
    if decision.precision == "int8":
        return replace(integers, decision=decision, options=options, assignment=assignment)
    return _in_float(desk, integers.model, options, decision, folder, assignment)


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


def _tuned(desk: precision.Desk, model: Prepared, folder: Path, name: str) -> tuple[Prepared, Estimate]:
    """The fine-tuned student and what it loses; the calibrated one where fine-tuning made it worse."""
    calibrated = copy.deepcopy(model)
    qat.enter(calibrated, qat.phase(1.0))
    calibrated.eval()
    before = precision.drop(desk, calibrated)
    _tune(desk.job, model, folder, name)
    after = precision.drop(desk, model)
    if after.mean <= before.mean:
        return model, after
    lost = shown_gap(desk.job.task, after.mean - before.mean)
    desk.job.progress.say(f"quantize: fine-tuning lost {lost}; the calibrated student is kept")
    return calibrated, before


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
        learned=job.store.path("distill") / LEARNED,
        quantized=True,
    )
    qat.enter(model, qat.phase(1.0))
    model.eval()
    write_text(folder / CURVE, json.dumps(plain(outcome.curve)))


def _prepared(job: Job, student: Distilled, modules: tuple[str, ...] = ()) -> Prepared:
    torch.manual_seed(job.recipe.seed)
    floats = tuple(dict.fromkeys(("frontend", *job.recipe.quantize.float_modules, *modules)))
    part = job.recipe.quantize
    network = equalized(student.model, part.equalize, _calibration(job) if part.equalize != "none" else ())
    how = rounding(part.ranges, percentile=part.percentile, weight_ranges=part.weight_ranges, steps=part.steps)
    return qat.prepare(network, job.example, job.target.quantizer, float_modules=floats, rounding=how)


def _calibration(job: Job) -> list[tuple[torch.Tensor, ...]]:
    """The first batches of the training data in a seeded order."""
    part, size = job.recipe.quantize, job.recipe.distill.batch_size
    generator = torch.Generator().manual_seed(job.recipe.seed)
    order = torch.randperm(len(job.splits.train), generator=generator)[: part.calibration_batches * size]
    return [job.splits.train.batch(index).inputs for index in torch.split(order, size)]
