"""Stage 7: everything that was found, for machines and for people."""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import compress
from compress import page
from compress.job import Job
from compress.records import digest, read_record
from compress.selection.events import Built
from compress.selection.history import with_artifact
from compress.stages.candidates import CANDIDATES, SEARCH
from compress.stages.distill import CURVE
from compress.stages.ending import Ending, built_event
from compress.stages.learned import PREDICTED, SHIPPED, Choice, Memory
from compress.stages.select import inputs_of
from compress.stages.verify import Checks
from profiles.atomic import write_text

PACKAGES = (
    "torch",
    "torchao",
    "onnx",
    "onnxruntime",
    "torch-pruning",
    "lightning-fabric",
    "numpy",
    "tensorrt-rtx-cu13",
)
JSON = "report.json"
HTML = "report.html"


def report(job: Job, choice: Choice, checks: Checks, memory: Memory, end: Ending | None = None) -> Path:
    """Write `report.json` and the self-contained `report.html` into the run's folder.

    Args:
        memory: what earlier rounds learned.
        end: how the search ended, where the budget's bound on the metric was not reached.
    """
    inputs = {
        "verify": checks.record.identity,
        "choice": choice.identity,
        "labels": digest(list(job.task.labels)),
        "version": compress.__version__,
        **({} if end is None else {"end": digest(end.why)}),
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        content = _content(job, choice, checks, memory, end)
        write_text(folder / JSON, json.dumps(content, indent=1, default=str))
        write_text(folder / HTML, page.render(content))
        return {"report for machines": folder / JSON, "report for people": folder / HTML}, {}

    job.store.once("report", inputs, work)
    for name in (JSON, HTML):  # also where people look first
        write_text(job.store.folder / name, (job.store.path("report") / name).read_text(encoding="utf-8"))
    job.progress.say(f"report: {job.store.folder / HTML}")
    return job.store.folder / HTML


def _content(job: Job, choice: Choice, checks: Checks, memory: Memory, end: Ending | None) -> dict[str, Any]:
    store = job.store
    values = dict(checks.record.values)
    return {
        "format": 1,
        "name": job.recipe.name,
        "task": {
            "name": job.task.name,
            "kind": job.task.kind,
            "metric": job.task.metric,
            "metric_unit": job.task.metric_unit,
            "labels": list(job.task.labels),
            "inputs": [
                {"name": one.name, "shape": list(one.shape), "type": str(one.dtype).removeprefix("torch.")}
                for one in job.task.inputs
            ],
            "preprocessing": job.task.preprocessing,
            "examples": job.teacher.record.values["data"],
        },
        "target": {
            "name": job.target.name,
            "device": job.target.device,
            "description": job.target.description,
            "runtime": job.target.runtime,
            "runtime_version": job.target.runtime_version,
            "quantizer": job.target.quantizer,
            "sources": dict(job.target.sources),
        },
        "choice": {"space": choice.space, "plan": choice.plan, "why": choice.why},
        "selection": _selection(job, checks) if end is None else _ended(job, memory, end),
        "verify": values,
        "curves": {
            stage: json.loads((store.path(stage) / CURVE).read_text(encoding="utf-8"))
            for stage in ("distill", "quantize")
        },
        "distill": _values(job, "distill"),
        "quantize": _values(job, "quantize"),
        "lint": _values(job, "build").get("lint"),
        "failed": [*checks.failed, *(() if end is None else (end.why,))],
        "stages": [
            _stage(job, name) for name in ("prepare", "select", "distill", "quantize", "export", "build", "verify")
        ],
        "files": [entry.__dict__ for entry in store.manifest().values()],
        "provenance": _provenance(job),
    }


def _selection(job: Job, checks: Checks) -> dict[str, Any]:
    """What select wrote; its search told to the end, where the choice's artifact was costed."""
    folder = job.store.path("select")
    found, search = (json.loads((folder / name).read_text(encoding="utf-8")) for name in (CANDIDATES, SEARCH))
    found, costs = found | {"search": search}, checks.record.values["costs"]
    if search["chosen"] is None or SHIPPED not in costs:
        return dict(found)
    cost = costs[SHIPPED]
    built = Built(
        round=max((row["round"] for row in search["rounds"]), default=1),
        identity=search["chosen"],
        latency_ms=cost["latency_ms"],
        interval_ms=tuple(cost["interval_ms"]),
        origin=cost["origin"],
        predicted_ms=costs.get(PREDICTED, cost)["latency_ms"],
        met=not checks.failed,
        why="; ".join(checks.failed),
    )
    return dict(found) | {"search": with_artifact(search, built)}


def _ended(job: Job, memory: Memory, end: Ending) -> dict[str, Any]:
    """What select wrote when it chose the student that ships; the search told to its end, which came later."""
    found: dict[str, Any] = json.loads((job.store.path("select") / CANDIDATES).read_text(encoding="utf-8"))
    *before, last = memory.learned
    folder = job.store.kept("select", inputs_of(job, before)) or job.store.path("select")
    search = json.loads((folder / SEARCH).read_text(encoding="utf-8"))
    search = with_artifact(search, built_event(len(memory.learned), search["chosen"], last))
    shipped = next(row["identity"] for row in found["candidates"] if row["chosen"])
    why = f"It is the nearest to the {job.task.metric} that the budget asks for; no student that was built reached it."
    return found | {
        "learned": list(end.tried),
        "ended": {"why": end.why, "fix": end.fix},
        "search": search | {"chosen": shipped, "why": why},
    }


def _values(job: Job, stage: str) -> dict[str, Any]:
    record = read_record(job.store.path(stage))
    return {} if record is None else dict(record.values)


def _stage(job: Job, name: str) -> dict[str, Any]:
    record = read_record(job.store.path(name))
    return {"name": name, "seconds": None if record is None else record.seconds}


def _provenance(job: Job) -> dict[str, Any]:
    return {
        "compress": compress.__version__,
        "git": _git_revision(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "environment": _loaded(),
        "seed": job.recipe.seed,
        "recipe": job.recipe.to_json(),
        "identities": dict(job.identities),
    }


def _loaded() -> dict[str, str]:
    """Distributions of which a module is loaded, and their versions."""
    tops = {name.partition(".")[0] for name in sys.modules}
    found = {name for top, names in metadata.packages_distributions().items() if top in tops for name in names}
    return {name: version for name in sorted(found, key=str.lower) if (version := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """The revision of the source that runs, where it is a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
