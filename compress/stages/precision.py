"""Part of stage 3: which precision the student ships in, and which of its layers stay in float."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

import compress.cache
from compress.contracts.batch import Batch
from compress.contracts.metric import Metric
from compress.job import Job
from compress.precision import choose, sensitivity
from compress.precision.choose import Assignment, Candidate, Decision
from compress.precision.cost import FLOATS, LayerCosts, Pricer
from compress.precision.layers import every_module, modules_of
from compress.precision.measured import measure, why_not
from compress.precision.sensitivity import Effect, Estimate, Measurer, Study
from compress.qat.prepared import Prepared
from compress.stages.budget import budget_of
from compress.stages.distill import Distilled
from compress.tally import difference, linearised, metric_of

SENSITIVITY = "sensitivity.json"
PRECISION = "precision.json"
SHARE_OF_RUN = 0.1  # of the training that the analysis may take
FEWEST = 32  # samples below which it is not worth having
BACKWARD = 2.0  # work of a backward pass, in forward passes
SHARED = 0.55  # of a forward pass that a variant recomputes on average
QUANTISING_SHARE = 0.5  # of what the whole run may lose of the metric
WITHOUT_BUDGET = 0.01  # where the run has no such limit


@dataclass(frozen=True)
class Desk:
    """What the questions about precision share.

    Attributes:
        float_modules: modules that are never quantised.
        budget: largest drop of the task's metric by quantising.
        budget_from: where that number comes from.
    """

    job: Job
    student: Distilled
    pricer: Pricer
    float_modules: tuple[str, ...]
    budget: float
    budget_from: str

    def reference(self, *inputs: Tensor) -> Tensor:
        """The float student's first output."""
        return _first(self.student.model(*inputs))

    def batch_of(self, index: Tensor) -> Batch:
        """Validation examples."""
        return self.job.splits.val.batch(index)

    @property
    def metric(self) -> Metric:
        """How the task's metric is written."""
        return metric_of(self.job.task)

    @property
    def distance(self) -> sensitivity.Distance:
        """How far two outputs are from each other, by the kind of task."""
        if self.job.task.kind == "classification":
            return sensitivity.divergence
        return sensitivity.relative_error

    @property
    def float_precision(self) -> Literal["fp16", "fp32"]:
        """What float layers run in on the target."""
        return "fp16" if self.job.target.leftovers == "fp16" else "fp32"


def desk(job: Job, student: Distilled) -> Desk:
    """Open one for a trained student."""
    part = job.recipe.quantize
    floats = ("frontend", *part.float_modules)
    budget, source = accuracy_budget(part.accuracy_budget, budget_of(job).accuracy_drop, metric_of(job.task))
    pricer = Pricer(student.model, job.example, job.target, job.target.quantizer, floats)
    return Desk(job, student, pricer, floats, budget, source)


def accuracy_budget(given: float | None, whole: float | None, metric: Metric) -> tuple[float, str]:
    """What quantising may cost of the metric, and where the number comes from."""
    if given is not None:
        return given, "quantize.accuracy_budget"
    if whole is not None:
        share = max(0.0, whole) * QUANTISING_SHARE
        return share, f"{100 * QUANTISING_SHARE:.0f} % of the run's accuracy_drop of {metric.gap(whole)}"
    return WITHOUT_BUDGET, "the default where a run has no accuracy_drop"


def samples(job: Job, layers: int) -> int:
    """How many validation examples the analysis may use, 0 for none: a tenth of what training costs, at most as many as
    the recipe says. Decided by counts alone, so that a run repeats."""
    part = job.recipe.quantize
    passes = (1 + BACKWARD) * len(job.splits.train) * (job.recipe.distill.epochs + part.epochs)
    affordable = math.floor(SHARE_OF_RUN * passes / (2 * SHARED * max(1, layers)))
    found = min(part.sensitivity_samples, affordable, len(job.splits.val))
    return found if found >= min(FEWEST, len(job.splits.val), part.sensitivity_samples) else 0


def study(desk: Desk, model: Prepared) -> Study | None:
    """Measure every layer, or None where the recipe or the cost forbids it."""
    job = desk.job
    count = samples(job, sum(site.quantized for site in model.sites))
    if count == 0:
        return None
    found = sensitivity.study(
        model,
        desk.batch_of,
        positions(job, count),
        desk.reference,
        score=_score(desk, positions(job, count)),
        distance=desk.distance,
        float_modules=desk.float_modules,
        cache=compress.cache.folder() / "sensitivity",
    )
    if found.rows:
        worst = max(found.rows, key=lambda row: row.alone.distance.mean)
        job.progress.say(
            f"quantize: sensitivity of {len(found.rows)} layers on {found.samples} examples; most sensitive: "
            f"{worst.layer.name}"
        )
    return found


def _score(desk: Desk, chosen: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """The metric by examples, around what the float student says to these validation examples."""
    sums: list[Tensor] = []
    with torch.no_grad():
        for index in torch.split(chosen, 256):
            batch = desk.batch_of(index)
            assert batch.labels is not None
            scores = desk.job.task.score(desk.reference(*batch.inputs), batch.labels)
            sums.append(scores.double().reshape(len(index), -1).sum(dim=0))
    return linearised(desk.job.task, torch.stack(sums).sum(dim=0), len(chosen))


def positions(job: Job, count: int) -> Tensor:
    """Validation examples in a seeded order: splits may be sorted by class."""
    return torch.randperm(len(job.splits.val), generator=torch.Generator().manual_seed(job.recipe.seed))[:count]


def drop(desk: Desk, model: nn.Module) -> Estimate:
    """Score that the float student has above this one, on all validation examples, with its standard error."""
    exact, rounded = [], []
    with torch.no_grad():
        for index in torch.split(torch.arange(len(desk.job.splits.val)), 256):
            batch = desk.batch_of(index)
            assert batch.labels is not None
            exact.append(desk.job.task.score(desk.reference(*batch.inputs), batch.labels))
            rounded.append(desk.job.task.score(_first(model(*batch.inputs)), batch.labels))
    return Estimate(*difference(desk.job.task, torch.cat(exact), torch.cat(rounded)))


def candidates(desk: Desk, model: Prepared) -> tuple[list[Candidate], list[str]]:
    """int8 and the float precisions that compete with it on the target, and notes on how their times were obtained.

    On a processor whose runtime is here they are measured, else predicted. Nothing competes with an int8 asked for.
    """
    job = desk.job
    asked = job.recipe.quantize.format == "int8"
    rivals = () if asked else FLOATS.get(job.target.family, ())
    found = [choose.predicted("int8", desk.pricer.assignment((), desk.float_precision), None)]
    for precision in rivals:
        found.append(choose.predicted(precision, desk.pricer.floating(precision), 0.0))
    notes: list[str] = []
    if rivals:
        reason = why_not(job.target, job.remote)
        if reason:
            notes.append(reason)
        else:
            times, note = measure(
                {"int8": model, "fp32": desk.student.model},
                job.example,
                job.target,
                job.task.input_names,
                job.task.output_names,
            )
            notes.append(note)
            found = [replace(item, **times[item.precision]) if item.precision in times else item for item in found]
    if not rivals:
        why = "int8 is what the recipe asks for" if asked else f"{job.target.name} computes in integers"
        notes.append(f"{why}: no float precision competes")
    return [replace(item, broken=_broken(desk, item)) for item in found], notes


def mixed(desk: Desk, model: Prepared, found: Study, budget: float) -> Assignment:
    """The layers to keep in float so that the score's drop keeps `budget`."""
    job = desk.job
    layers = [row.layer for row in found.rows]
    measurer = Measurer(
        model,
        desk.batch_of,
        positions(job, found.samples),
        desk.reference,
        score=_score(desk, positions(job, found.samples)),
        distance=desk.distance,
        float_modules=desk.float_modules,
    )
    return choose.assign(
        found,
        desk.pricer.by_layer(),
        desk.float_precision,
        budget,
        measurer,
        lambda floats: desk.pricer.assignment(modules_of(layers, floats), desk.float_precision),
    )


def mixed_candidate(desk: Desk, modules: tuple[str, ...], loss: Estimate) -> Candidate:
    """The student with some layers in float, as it would ship."""
    cost = desk.pricer.assignment(modules, desk.float_precision)
    found = choose.predicted("mixed", cost, loss.mean)
    return replace(found, broken=_broken(desk, found))


def all_modules(desk: Desk, model: Prepared) -> tuple[str, ...]:
    """What keeps the whole student in float."""
    return tuple(dict.fromkeys((*desk.float_modules, *every_module(model))))


def content(
    desk: Desk,
    decision: Decision,
    options: list[Candidate],
    *,
    study: Study | None,
    costs: tuple[LayerCosts, ...],
    assignment: Assignment | None,
    float_layers: tuple[str, ...],
    loss: Estimate,
    notes: list[str],
) -> dict[str, Any]:
    """What `precision.json` and the report show."""
    by_layer = {item.layer.name: item for item in costs}
    rows = [] if study is None else study.rows
    whole = decision.precision in ("fp16", "bf16", "fp32")
    return {
        "format": 1,
        "target": desk.job.target.name,
        "quantizer": desk.job.target.quantizer,
        "metric": desk.job.task.metric,
        "metric_unit": desk.job.task.metric_unit,
        "shipped": decision.precision,
        "float_layers": [row.layer.name for row in rows] if whole else list(float_layers),
        "why": list(decision.reasons),
        "accuracy_budget": desk.budget,
        "accuracy_budget_from": desk.budget_from,
        "drop": {"mean": loss.mean, "standard_error": loss.standard_error, "origin": "measured on validation data"},
        "candidates": choose.candidates_json(options),
        "assignment": None if assignment is None else assignment.to_json(),
        "samples": None if study is None else study.samples,
        "float_score": None if study is None else study.score,
        "quantized": None if study is None else _effect(study.quantized),
        "between_layers": None if study is None else _effect(study.others),
        "layers": [
            {
                "layer": row.layer.name,
                "modules": list(row.layer.modules),
                "operators": list(row.layer.operators),
                "precision": decision.precision
                if whole
                else (desk.float_precision if row.layer.name in float_layers else "int8"),
                "without": _effect(row.without),
                "alone": _effect(row.alone),
                "latency_ms": dict(by_layer[row.layer.name].latency_ms) if row.layer.name in by_layer else {},
                "weight_bytes": dict(by_layer[row.layer.name].weight_bytes) if row.layer.name in by_layer else {},
            }
            for row in rows
        ],
        "layers_origin": {"sensitivity": "measured after calibration", "latency_ms": "predicted"},
        "notes": notes,
    }


def _effect(found: Effect) -> dict[str, Any]:
    return {
        name: {"mean": value.mean, "standard_error": value.standard_error}
        for name, value in (
            ("score", found.score),
            ("drop", found.drop),
            ("distance", found.distance),
            ("gain", found.gain),
            ("nearer", found.nearer),
        )
    }


def _first(output: object) -> Tensor:
    while isinstance(output, list | tuple):
        output = output[0]
    assert isinstance(output, Tensor)
    return output


def _broken(desk: Desk, item: Candidate) -> tuple[str, ...]:
    budget = budget_of(desk.job)
    limits: tuple[tuple[str, float, float | None, Callable[[float], str]], ...] = (
        ("latency", item.latency_ms, budget.latency_limit_ms(desk.job.task.decision_period_ms), _ms),
        ("weights", item.weight_bytes, budget.weight_bytes, _bytes),
        ("peak activation memory", item.peak_activation_bytes, budget.peak_activation_bytes, _bytes),
    )
    return tuple(
        f"its {name} of {shown(value)} {'are' if name == 'weights' else 'is'} above the budget of {shown(most)}"
        for name, value, most, shown in limits
        if most is not None and value > most
    )


def _ms(value: float) -> str:
    return f"{value:.3g} ms"


def _bytes(value: float) -> str:
    return f"{value:.0f} bytes"
