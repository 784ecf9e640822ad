"""The lint inside a run: what stops an export, and what a build leaves beside its artifacts."""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from exporters import for_tensorrt
from exporters.artifact import Artifact
from exporters.errors import ExportError
from exporters.lint import on_tensorrt
from exporters.lint.report import LintReport
from exporters.lint.rules import RULES, found_in
from exporters.lint.run import checklist_of, lint
from exporters.lint.verdict import Verdict
from exporters.lint.view import device, view
from profiles import atomic
from profiles.target import Target

FILE = "lint.json"


def accepted(model: Path, target: Target) -> LintReport:
    """Check a fresh export by the rules; nothing is compiled.

    Raises:
        ExportError: a rule says that the target refuses it; names rule, node and module.
    """
    report = lint(model, target, compile=False)
    for finding in report.refused:
        raise ExportError(
            f"{target.name} refuses {model.name} by rule {finding.rule}: {finding.where() or 'the model'}: "
            f"{finding.what}",
            fix=finding.fix,
        )
    return report


def built(model: Path, target: Target, artifacts: Iterable[Artifact]) -> LintReport:
    """The rules' findings with the verdict of the compiler that has just run.

    An engine's verdict is read from its build log; onnxruntime and the C exporter answer in milliseconds and are asked.
    """
    ask = target.runtime != "tensorrt"
    report = lint(model, target, compile=ask)
    for artifact in artifacts:
        verdict = None if ask else _of_engine(model, target, artifact)
        if verdict is not None:
            return verdict_in(report, verdict, model, target)
    return report if ask else dataclasses.replace(report, not_compiled="no engine was compiled on this machine")


def summary(report: LintReport) -> dict[str, Any]:
    """For a stage's record: counts and findings."""
    return {"counts": report.counts(), "findings": [dataclasses.asdict(finding) for finding in report.findings]}


def write(report: LintReport, folder: Path) -> Path:
    """`lint.json` in the folder."""
    atomic.write_text(folder / FILE, json.dumps(report.to_json(), indent=1, sort_keys=True) + "\n")
    return folder / FILE


def verdict_in(report: LintReport, verdict: Verdict, model: Path, target: Target) -> LintReport:
    """The report with that verdict, and the checklist that follows."""
    seen = view(for_tensorrt.prepare(model), device(target))
    return dataclasses.replace(
        report, compiler=verdict, not_compiled="", checklist=checklist_of(report.findings, seen, verdict)
    )


def _of_engine(model: Path, target: Target, artifact: Artifact) -> Verdict | None:
    """From the log of an engine that TensorRT for RTX built for one compute capability; None for anything else."""
    log = artifact.path.parent / str(artifact.facts.get("log", ""))
    capability = str(artifact.facts.get("capability", ""))
    if "tensorrt_rtx" not in artifact.facts or capability not in on_tensorrt.KNOWN or not log.is_file():
        return None
    seen = view(for_tensorrt.prepare(model), device(target))
    notes = [] if capability == target.compute_capability else [artifact.note]
    return on_tensorrt.from_log(
        log.read_text("utf-8", "replace"),
        str(artifact.facts["tensorrt_rtx"]),
        capability,
        seen,
        found_in(RULES, seen),
        notes,
    )
