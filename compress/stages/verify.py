"""Stage 6: run every artifact on the whole test split, compare it with the stage before, hold cost to budget."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import profiles
from compress import catalog
from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.job import Job
from compress.stages.build import Built
from compress.stages.distill import Distilled
from compress.stages.export import Exported
from compress.stages.learned import Choice, Learned, learned_from
from compress.stages.quantize import Quantized
from compress.stages.select import budget_of, teacher_cost
from compress.store import Record, digest
from compress.training.evaluate import outputs_of
from exporters import parity
from exporters.artifact import Artifact
from exporters.estimate import estimate
from profiles import runners
from profiles.atomic import write_text
from profiles.cost import Cost
from profiles.runners import on_onnxruntime

CHECKS = "checks.json"
REWRITTEN = "ONNX, rewritten by onnxruntime"
BATCH = 256


@dataclass(frozen=True)
class Gate:
    """One bound that an artifact must keep.

    Attributes:
        stage: the one to blame where it fails.
        origin: how `value` was obtained: measured, emulated or predicted.
    """

    name: str
    stage: str
    artifact: str
    value: float
    bound: float
    unit: str
    at_most: bool
    origin: str

    @property
    def passed(self) -> bool:
        """NaN never passes."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def sentence(self) -> str:
        """What a person reads where it fails."""
        relation = "above" if self.at_most else "below"
        return (
            f"{self.stage}: {self.name} of {self.artifact} is {_short(self.value)} {self.unit} ({self.origin}), "
            f"{relation} the bound of {_short(self.bound)} {self.unit}"
        )


@dataclass(frozen=True)
class Checks:
    """What was found.

    Attributes:
        accuracy: artifact -> test metric, as a fraction. Only of artifacts that were run.
        cost_missed: what the search must learn if a measured or emulated cost breaks the budget; else None.
        failed: sentences of the other gates that failed.
    """

    accuracy: Mapping[str, float]
    failed: tuple[str, ...]
    cost_missed: Learned | None
    record: Record


def verify(
    job: Job, choice: Choice, student: Distilled, quantized: Quantized, exported: Exported, built: Built
) -> Checks:
    """Check everything that can be run here; what cannot says so and reports nothing else.

    A failed gate does not raise: the report is written first, then the pipeline ends with it.
    """
    inputs = {
        "export": exported.record.identity,
        "build": digest([[str(a.path.name), dict(a.facts)] for a in built.artifacts]),
        "budget": digest([budget_of(job), job.recipe.verify]),
        "teacher": job.teacher.record.identity,
        "runners": digest(_available(job)),
        "remote": str(job.remote),
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        checks = _check(job, choice, student, quantized, exported, built)
        write_text(folder / CHECKS, json.dumps(checks, indent=1, default=str))
        return {"checks": folder / CHECKS}, checks

    record = job.store.once("verify", inputs, work)
    gates = [Gate(**{k: v for k, v in row.items() if k != "passed"}) for row in record.values["gates"]]
    missed = [gate for gate in gates if gate.stage == "select" and not gate.passed]
    failed = tuple(gate.sentence() for gate in gates if gate.stage != "select" and not gate.passed)
    learned = learned_from(choice, record.values["costs"], missed[0].sentence()) if missed else None
    return Checks(record.values["accuracy"], failed, learned, record)


def _check(
    job: Job, choice: Choice, student: Distilled, quantized: Quantized, exported: Exported, built: Built
) -> dict[str, Any]:
    say = job.progress.say
    labels = _labels(job)
    accuracy: dict[str, float] = {"teacher": job.teacher.accuracy}
    parities: list[dict[str, Any]] = []
    gates: list[Gate] = []
    bounds = job.recipe.verify
    own_step = parity.output_step(exported.model)

    def enter(name: str, outputs: NDArray[np.generic]) -> None:
        accuracy[name] = _score(job, outputs, labels)
        say(f"verify: {name}: {job.task.metric} {100 * accuracy[name]:.2f} % on {len(labels)} test examples")

    def compare(
        reference: str, before: NDArray[np.generic], name: str, after: NDArray[np.generic], stage: str | None
    ) -> None:
        found = parity.compare(before, after, step)
        parities.append({"reference": reference, "artifact": name, "stage": stage, **asdict(found)})
        if stage is None:
            return
        change = abs(accuracy[reference] - accuracy[name])
        gates.append(
            Gate("change of " + job.task.metric, stage, name, change, bounds.accuracy_change, "", True, "measured")
        )
        if found.top1_agreement is not None:
            agreement = Gate(
                "top-1 agreement", stage, name, found.top1_agreement, bounds.top1_agreement, "", False, "measured"
            )
            gates.append(agreement)
        if found.within_one_step is not None:
            share = found.within_one_step
            gates.append(
                Gate("share within one step", stage, name, share, bounds.within_one_step, "", False, "measured")
            )
        if stage == "build" and found.mean_steps is not None:
            gates.append(
                Gate("mean change", stage, name, found.mean_steps, bounds.mean_steps, "steps", True, "measured")
            )

    floats = _torch_outputs(job, student.model)
    enter("float student", floats)
    fake = _torch_outputs(job, quantized.model)
    # A runtime that keeps the last layer's output in float gives it no step: the one that 8 bits would have stands in.
    step = own_step if own_step is not None else float(np.abs(fake).max()) / 127
    enter("fake-quantised student", fake)
    compare("float student", floats, "fake-quantised student", fake, None)
    onnx = _run(job, on_onnxruntime.load(exported.model, as_written=True))
    enter("ONNX", onnx)
    compare("fake-quantised student", fake, "ONNX", onnx, "export")
    rewritten = _run(job, on_onnxruntime.load(exported.model))
    enter(REWRITTEN, rewritten)
    compare("ONNX", onnx, REWRITTEN, rewritten, None)

    artifacts = []
    final = "ONNX"
    for artifact in built.artifacts:
        name = artifact.path.name
        row: dict[str, Any] = {
            "name": name,
            "kind": artifact.kind,
            "purpose": artifact.purpose,
            "note": artifact.note,
            "facts": dict(artifact.facts),
        }
        runner, why = _runner_for(job, artifact)
        if runner is None:
            row["run"] = f"built, not run here: {why}"
            say(f"verify: {name}: {row['run']}")
        else:
            outputs = _run(job, runners.runner(runner).load(artifact.path))
            enter(name, outputs)
            compare("ONNX", onnx, name, outputs, "build")
            row["run"] = f"run by {runner}"
            final = name if artifact.purpose == "artifact" else final
        artifacts.append(row)
    for name, why in built.skipped.items():
        artifacts.append(
            {"name": name, "kind": "", "purpose": "skipped", "note": "", "facts": {}, "run": f"not built: {why}"}
        )

    budget = budget_of(job)
    costs = _costs(job, student, exported, built)
    cost = costs["int8 student"]
    if budget.accuracy_drop is not None:
        drop = job.teacher.accuracy - accuracy[final]
        gates.append(
            Gate(f"drop of {job.task.metric}", "quantize", final, drop, budget.accuracy_drop, "", True, "measured")
        )
    gates.extend(_cost_gates(job, cost))
    return {
        "accuracy": accuracy,
        "final": final,
        "step": step,
        "step_from": "the output's own" if own_step is not None else "the output is float: its largest value / 127",
        "parity": parities,
        "gates": [asdict(gate) | {"passed": gate.passed} for gate in gates],
        "costs": {name: _cost_json(value) for name, value in costs.items()},
        "budget": {k: v for k, v in asdict(budget).items() if v is not None},
        "artifacts": artifacts,
        "examples": len(labels),
        "diagnostics": _diagnose(job, student),
    }


def _diagnose(job: Job, student: Distilled) -> dict[str, dict[str, float]]:
    """What the method's diagnostics say of the float student and its teacher, on test data."""
    method = catalog.load("compress.methods", job.recipe.distill.method).METHOD
    return {
        name: dict(catalog.load("compress.diagnostics", name).DIAGNOSTIC().measure(_answers(job, student.model)))
        for name in method.diagnostics
    }


def _answers(job: Job, student: nn.Module) -> Iterator[tuple[Batch, Signals, Signals]]:
    for index in torch.split(torch.arange(len(job.splits.test)), BATCH):
        batch = job.splits.test.batch(index)
        with torch.no_grad():
            output = student(*batch.inputs)
        yield batch, Signals(output), job.teacher.teacher.observe(batch)


def _cost_gates(job: Job, cost: Cost) -> list[Gate]:
    """Cost against budget. `select` is to blame: it chose the student."""
    budget = budget_of(job)
    limit = budget.latency_limit_ms(job.task.decision_period_ms)
    rows: list[tuple[str, float, float | None, str, str]] = [
        ("latency", cost.latency_ms, limit, "ms", cost.origin),
        ("peak activation memory", cost.peak_activation_bytes, budget.peak_activation_bytes, "bytes", "counted"),
        ("weights", cost.weight_bytes, budget.weight_bytes, "bytes", "counted"),
        ("multiply-accumulates", cost.macs, budget.macs, "", "counted"),
    ]
    return [
        Gate(name, "select", "int8 student", float(value), float(bound), unit, True, origin)
        for name, value, bound, unit, origin in rows
        if bound is not None
    ]


def _costs(job: Job, student: Distilled, exported: Exported, built: Built) -> dict[str, Cost]:
    """Teacher, float and int8 student on the target; the last one as well as that can be known."""
    costs = {"teacher": teacher_cost(job), "float student": profiles.profile(exported.float_model, target=job.target)}
    shipped = [artifact for artifact in built.artifacts if artifact.purpose == "artifact"]
    for artifact in shipped:
        runner, _ = _runner_for(job, artifact)
        if runner is not None:
            predicted = profiles.profile(exported.model, target=job.target)
            target = dataclasses.replace(job.target, runners=_runners_of(job, artifact))
            measured = profiles.measure_cost(artifact.path, target, model=exported.model, inputs=_one_example(job))
            costs["int8 student"] = dataclasses.replace(measured, layers=measured.layers or predicted.layers)
            costs["int8 student, predicted"] = predicted
            return costs
    if runners.ESTIMATORS.isdisjoint(job.target.runners):
        costs["int8 student"] = profiles.profile(exported.model, target=job.target)
    else:
        costs["int8 student"] = estimate(exported.model, job.target)
        costs["int8 student, predicted"] = profiles.profile(exported.model, target=job.target)
    return costs


def _available(job: Job) -> dict[str, str]:
    return {name: runners.runner(name).available() or "yes" for name in job.target.runners}


def _runner_for(job: Job, artifact: Artifact) -> tuple[str | None, str]:
    """The target's first runner that can run the artifact here, or why there is none."""
    if artifact.purpose != "artifact":
        return None, artifact.note or "it is a check"
    if artifact.kind == "bundle":
        return None, "it builds and checks itself on the device"
    reasons = []
    for name in _runners_of(job, artifact):
        if name in runners.ESTIMATORS:
            reasons.append(f"{name} says what it would cost and runs nothing")
            continue
        reason = runners.runner(name).available()
        if reason is None:
            return name, ""
        reasons.append(reason)
    return None, "; ".join(reasons) or f"no runner for {job.target.name}"


def _runners_of(job: Job, artifact: Artifact) -> tuple[str, ...]:
    """The target's runners, the one that the builder found fastest first."""
    chosen = artifact.facts.get("runner")
    return job.target.runners if chosen is None else (str(chosen), *(n for n in job.target.runners if n != chosen))


def _one_example(job: Job) -> dict[str, NDArray[np.generic]]:
    batch = job.splits.val.batch(torch.arange(1))
    return {name: tensor.numpy() for name, tensor in zip(job.task.input_names, batch.inputs, strict=True)}


def _labels(job: Job) -> torch.Tensor:
    parts = []
    for index in torch.split(torch.arange(len(job.splits.test)), BATCH):
        labels = job.splits.test.batch(index).labels
        if labels is not None:
            parts.append(labels)
    return torch.cat(parts)


def _score(job: Job, outputs: NDArray[np.generic], labels: torch.Tensor) -> float:
    return float(job.task.score(torch.from_numpy(np.ascontiguousarray(outputs)), labels).double().mean())


def _torch_outputs(job: Job, model: nn.Module) -> NDArray[np.generic]:
    outputs: NDArray[np.generic] = outputs_of(model, job.splits.test).numpy()
    return outputs


def _run(job: Job, loaded: runners.Loaded) -> NDArray[np.generic]:
    """The first output for the whole test split."""
    batches = torch.split(torch.arange(len(job.splits.test)), BATCH)
    outputs = []
    for index in batches:
        batch = job.splits.test.batch(index)
        inputs = {name: tensor.numpy() for name, tensor in zip(job.task.input_names, batch.inputs, strict=True)}
        outputs.append(loaded.run(inputs)[job.task.output_names[0]])
    return np.concatenate(outputs)


def _cost_json(cost: Cost) -> dict[str, Any]:
    return asdict(cost) | {"flops": cost.flops}


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
