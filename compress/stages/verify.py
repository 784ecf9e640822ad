"""Stage 6: run every artifact on the whole test split, compare it with the stage before, hold cost to budget.

Where a comparison fails its gate, the layers of the two are compared one by one, and the gate names the first that
rounding does not explain.
"""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

import profiles
from compress import catalog
from compress.contracts.batch import Batch
from compress.contracts.diagnostic import Diagnostic
from compress.contracts.signals import Signals
from compress.job import Job
from compress.lesson import LEARNED, trained_objectives
from compress.qat import prepare as qat
from compress.records import Record, digest
from compress.stages import diagnose, ledger
from compress.stages.artifact_cost import measured_there
from compress.stages.budget import budget_of, teacher_cost
from compress.stages.build import Built
from compress.stages.distill import Distilled
from compress.stages.export import Exported
from compress.stages.fidelity import Watch, control_file
from compress.stages.gates import Gate, cost_gates, of_metric, parity_gates, to_learn
from compress.stages.learned import PREDICTED, SHIPPED, Choice, Learned
from compress.stages.quantize import Quantized
from compress.tally import shown
from compress.taps import Taps, detached, observe
from exporters import check_onnx, for_tensorrt, parity
from exporters.artifact import Artifact
from exporters.errors import ExportError
from exporters.estimate import estimate
from profiles import remote, runners
from profiles.atomic import sha256, write_text
from profiles.cost import Cost
from profiles.errors import UserError
from profiles.runners import on_onnxruntime

CHECKS = "checks.json"
LEDGER = "parity.json"
FLOAT, FAKE, ONNX = "float student", "fake-quantised student", "ONNX"
REWRITTEN = "ONNX, rewritten by onnxruntime"
TENSORRT = "ONNX, rewritten for TensorRT"
FORMAT = "5"  # of checks.json: what an earlier form found is found again
BATCH = 256


@dataclass(frozen=True)
class Checks:
    """What was found.

    Attributes:
        accuracy: artifact -> the task's metric on test data. Only of artifacts that were run.
        missed: what the search must learn if the artifact's cost or its accuracy breaks the budget; else None. An
            accuracy that is lost where the artifact differs from the stage before it is no fault of the student.
        failed: sentences of the gates that failed, without those of costs.
    """

    accuracy: Mapping[str, float]
    failed: tuple[str, ...]
    missed: Learned | None
    record: Record


def verify(
    job: Job, choice: Choice, student: Distilled, quantized: Quantized, exported: Exported, built: Built
) -> Checks:
    """Check everything that can be run here; what cannot says so and reports nothing else.

    A failed gate does not raise: the report is written first, then the pipeline ends with it.
    """
    inputs = {
        "format": FORMAT,
        "export": exported.record.identity,
        "build": digest([[str(a.path.name), dict(a.facts)] for a in built.artifacts]),
        "budget": digest([budget_of(job), job.recipe.verify]),
        "teacher": job.teacher.record.identity,
        "runners": digest(_available(job)),
        "remote": str(job.remote),
        "control": "" if (control := control_file(job)) is None else sha256(control),
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        shutil.rmtree(folder / diagnose.REPRODUCER, ignore_errors=True)  # of an attempt that was interrupted
        checks = _check(job, choice, student, quantized, exported, built, folder)
        write_text(folder / CHECKS, json.dumps(checks, indent=1, default=str))
        kept = {name: checks[name] for name in ("examples", "step", "step_from", "accuracy", "bisect")}
        rows = [_strict(row) for row in checks["parity"]]
        write_text(folder / LEDGER, json.dumps({"format": 1, **kept, "parity": rows}, indent=1))
        files = {"checks": folder / CHECKS, "parity ledger": folder / LEDGER}
        if (folder / diagnose.REPRODUCER).is_dir():
            files["reproducer of a failed gate"] = folder / diagnose.REPRODUCER
        return files, checks

    record = job.store.once("verify", inputs, work)
    gates = [Gate(**{k: v for k, v in row.items() if k != "passed"}) for row in record.values["gates"]]
    broken = [gate for gate in gates if not gate.passed]
    failed = tuple(gate.sentence() for gate in broken if gate.stage != "select")
    missed = to_learn(choice, broken, record.values, student.validation, quantized.validation)
    return Checks(record.values["accuracy"], failed, missed, record)


def _check(
    job: Job,
    choice: Choice,
    student: Distilled,
    quantized: Quantized,
    exported: Exported,
    built: Built,
    folder: Path,
) -> dict[str, Any]:
    say = job.progress.say
    sides = [ledger.torch_side(job, FLOAT, student.model), ledger.torch_side(job, FAKE, quantized.model)]
    pairs = [ledger.Pair(FLOAT, FAKE, None)]
    suspects: dict[str, Callable[[], diagnose.Suspect]] = {}
    steps, own = _steps(job, exported, sides[1])

    def add(side: ledger.Side, reference: str, stage: str | None, suspect: Callable[[], diagnose.Suspect]) -> None:
        sides.append(side)
        pairs.append(ledger.Pair(reference, side.name, stage))
        suspects[side.name] = suspect

    add(
        ledger.file_side(job, ONNX, on_onnxruntime.load(exported.model, as_written=True)),
        FAKE,
        "export",
        lambda: diagnose.exported(job, ONNX, quantized.model, qat.convert(quantized.model), exported.model),
    )
    sides.append(ledger.file_side(job, REWRITTEN, on_onnxruntime.load(exported.model)))
    pairs.append(ledger.Pair(ONNX, REWRITTEN, None))
    form = _tensorrt_form(job, exported)
    if form is not None:
        add(
            ledger.file_side(job, TENSORRT, form[1]),
            ONNX,
            "build",
            lambda: diagnose.rewritten(TENSORRT, exported.model, form[0]),
        )
    artifacts = []
    final = ONNX
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
            add(
                ledger.file_side(job, name, runners.runner(runner).load(artifact.path)),
                ONNX,
                "build",
                partial(diagnose.shipped, job, artifact, exported.model, runner),
            )
            row["run"] = f"run by {runner}"
            final = name if artifact.purpose == "artifact" else final
        artifacts.append(row)
    for name, why in built.skipped.items():
        artifacts.append(
            {"name": name, "kind": "", "purpose": "skipped", "note": "", "facts": {}, "run": f"not built: {why}"}
        )

    watch = Watch(job, FLOAT, final, pairs)
    scores, entries = ledger.keep(job, sides, pairs, steps, watch.look)
    accuracy = {"teacher": job.teacher.accuracy, **scores}
    for side in sides:
        said = shown(job.task, accuracy[side.name])
        say(f"verify: {side.name}: {job.task.metric} {said} on {len(job.splits.test)} test examples")
    gates: list[Gate] = []
    found: list[dict[str, Any]] = []
    for entry in entries:
        failing = parity_gates(job, entry, accuracy)
        if any(not gate.passed for gate in failing):
            told = _bisected(job, entry, suspects[entry.pair.artifact], folder)
            found.append(told)
            first = next(index for index, gate in enumerate(failing) if not gate.passed)  # said once for each artifact
            failing[first] = dataclasses.replace(failing[first], cause=told["sentence"])
        gates.extend(failing)
    explained = parity.explained_steps(check_onnx.load(exported.model))
    # What rounding again explains is no bound on what quantising does.
    parities = [row for entry in entries for row in entry.rows({} if entry.pair.artifact == FAKE else explained)]

    budget = budget_of(job)
    diagnosed, told_of = _diagnose(job, student)
    costs = _costs(job, student, exported, built)
    cost = costs[SHIPPED]
    if budget.accuracy_drop is not None:
        drop = job.teacher.accuracy - accuracy[final]
        gates.append(of_metric(job.task, "drop", "quantize", final, drop, budget.accuracy_drop))
    gates.extend(cost_gates(job, cost))
    gates.extend(watch.gates())
    return {
        "accuracy": accuracy,
        "metric": job.task.metric,
        "metric_unit": job.task.metric_unit,
        "final": final,
        "step": steps[job.task.output_names[0]],
        "step_from": "the output's own" if own else "the output is float: its largest value / 127",
        "parity": parities,
        "bisect": found,
        "gates": [asdict(gate) | {"passed": gate.passed} for gate in gates],
        "costs": {name: _cost_json(value) for name, value in costs.items()},
        "budget": {k: v for k, v in asdict(budget).items() if v is not None},
        "artifacts": artifacts,
        "examples": len(job.splits.test),
        "fidelity": watch.found(student.model),
        "diagnostics": diagnosed,
        "diagnosed": told_of,
    }


def _steps(job: Job, exported: Exported, fake: ledger.Side) -> tuple[dict[str, float | None], bool]:
    """(output -> the unit of its differences, whether the first output's is its own).

    A runtime that keeps the last layer's output in float gives it no step: the one that 8 bits would have stands in.
    """
    known = parity.output_steps(check_onnx.load(exported.model))
    steps = {name: known.get(name) for name in job.task.output_names}
    own = steps[job.task.output_names[0]] is not None
    if any(step is None for step in steps.values()):
        largest = ledger.largest_outputs(job, fake)
        for name, step in steps.items():
            if step is None and largest.get(name, 0.0) > 0:
                steps[name] = largest[name] / ledger.LEVELS
    return steps, own


def _tensorrt_form(job: Job, exported: Exported) -> tuple[onnx.ModelProto, runners.Loaded] | None:
    """The graph as TensorRT's builders are given it, run node by node; None where the target has another runtime."""
    if job.target.runtime != "tensorrt":
        return None
    try:
        model = for_tensorrt.prepare(exported.model)
    except ExportError as error:
        job.progress.say(f"verify: {TENSORRT}: {error.what}")
        return None
    with tempfile.TemporaryDirectory(prefix="verify-") as scratch:
        path = Path(scratch) / "model.onnx"
        onnx.save(model, str(path))
        return model, on_onnxruntime.load(path, as_written=True)


def _bisected(job: Job, entry: ledger.Entry, suspect: Callable[[], diagnose.Suspect], folder: Path) -> dict[str, Any]:
    """Which layer makes the difference; never an error of its own, for the gate has failed already."""
    worst = [found for one in entry.outputs.values() for found in one.worst]
    worst.sort(key=lambda found: -found.difference)
    try:
        told = diagnose.diagnose(suspect(), diagnose.samples(job, worst), folder)
    except UserError as error:
        told = {"artifact": entry.pair.artifact, "sentence": f"the layers could not be compared: {error.what}"}
    job.progress.say(f"verify: {entry.pair.artifact}: {told['sentence']}")
    return told


def _strict(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for strict JSON."""
    made = parity.strict(dict(row))
    assert isinstance(made, dict)
    return made


def _diagnose(job: Job, student: Distilled) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Any]]]:
    """What the method's diagnostics say of the float student and its teacher, and of which stream's examples."""
    method = catalog.load("compress.methods", job.recipe.distill.method).METHOD
    objectives = tuple(trained_objectives(job, job.store.path("distill") / LEARNED).values())
    found: dict[str, dict[str, float]] = {}
    looked: dict[str, dict[str, Any]] = {}
    for name in method.diagnostics:
        diagnostic: Diagnostic = catalog.load("compress.diagnostics", name).DIAGNOSTIC()
        if diagnostic.stream not in job.splits.named():
            continue
        diagnostic.learned(objectives)
        counted = _Counted(_answers(job, student.model, diagnostic))
        found[name] = dict(diagnostic.measure(counted))
        looked[name] = {
            "stream": diagnostic.stream,
            "examples": counted.examples,
            "of": len(job.splits.named()[diagnostic.stream]),
        }
    return found, looked


class _Counted:
    """Hands answers on, and counts the examples of those that were asked for."""

    def __init__(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> None:
        self.examples, self._answers = 0, answers

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> tuple[Batch, Signals, Signals]:
        answer = next(self._answers)
        self.examples += len(answer[0])
        return answer


def _answers(job: Job, student: nn.Module, diagnostic: Diagnostic) -> Iterator[tuple[Batch, Signals, Signals]]:
    black_box = job.teacher.network is None
    teacher = job.teacher.teacher
    if diagnostic.teacher_taps and not black_box:
        teacher = job.teacher.tapped(diagnostic.teacher_taps)
    with Taps(student, () if black_box else diagnostic.student_taps) as taps:
        examples = job.splits.named()[diagnostic.stream]
        for index in torch.split(torch.arange(len(examples)), BATCH):
            batch = examples.batch(index)
            with torch.no_grad():
                said = detached(observe(student, batch, taps))
            yield batch, said, teacher.observe(batch)


def _costs(job: Job, student: Distilled, exported: Exported, built: Built) -> dict[str, Cost]:
    """Teacher, float student and shipped student on the target; the last one as well as that can be known."""
    costs = {"teacher": teacher_cost(job), "float student": profiles.profile(exported.float_model, target=job.target)}
    shipped = [artifact for artifact in built.artifacts if artifact.purpose == "artifact"]
    there = measured_there(job)
    if there is not None:
        found = _measured_there(job, shipped, exported, there)
        if found is not None:
            return costs | found
    for artifact in shipped:
        runner, _ = _runner_for(job, artifact)
        if runner is not None:
            predicted = profiles.profile(exported.model, target=job.target)
            target = dataclasses.replace(job.target, runners=_runners_of(job, artifact))
            measured = profiles.measure_cost(artifact.path, target, model=exported.model, inputs=_one_example(job))
            costs[SHIPPED] = dataclasses.replace(measured, layers=measured.layers or predicted.layers)
            costs[PREDICTED] = predicted
            return costs
    if runners.ESTIMATORS.isdisjoint(job.target.runners):
        costs[SHIPPED] = profiles.profile(exported.model, target=job.target)
    else:
        costs[SHIPPED] = estimate(exported.model, job.target)
        costs[PREDICTED] = profiles.profile(exported.model, target=job.target)
    return costs


def _measured_there(job: Job, shipped: Sequence[Artifact], exported: Exported, there: str) -> dict[str, Cost] | None:
    """What the first of the artifacts that can be measured on the remote machine costs there, and was predicted to."""
    for artifact in shipped:
        if artifact.kind == "bundle":  # it builds and checks itself on the device
            continue
        target = dataclasses.replace(job.target, runners=_runners_of(job, artifact))
        try:
            measured = remote.measure_cost(artifact.path, target, there, model=exported.model, inputs=_one_example(job))
        except UserError as error:
            job.progress.say(f"verify: {artifact.path.name} was not measured on {there}: {error.what}")
            continue
        predicted = profiles.profile(exported.model, target=job.target)
        return {
            SHIPPED: dataclasses.replace(measured, layers=measured.layers or predicted.layers),
            PREDICTED: predicted,
        }
    return None


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


def _cost_json(cost: Cost) -> dict[str, Any]:
    return asdict(cost) | {"flops": cost.flops}
