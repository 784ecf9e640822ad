"""Stage 5: from ONNX to what the target runs. Needs no torch: it also runs on the device."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import RunError
from compress.progress import Progress
from compress.records import digest, read_record
from compress.stages import build_choices
from compress.store import Store
from exporters import builder, loading, parity
from exporters.artifact import Artifact
from exporters.lint import gate
from exporters.remote import Machine, machine_of
from profiles import external_data
from profiles import trust as vouched
from profiles.atomic import sha256
from profiles.target import Target

MODEL = "model.onnx"
GOLDEN = "golden.npz"
AHEAD = "onnx_to_rtx_engine"  # the builder that compiles for named compute capabilities


@dataclass(frozen=True)
class Built:
    """What there is now.

    Attributes:
        artifacts: what the user ships, and checks beside it.
        skipped: builders that could not run here, and why.
    """

    artifacts: tuple[Artifact, ...]
    skipped: Mapping[str, str]


def build(
    store: Store, target: Target, remote: str | Machine | None, progress: Progress, *, trust: bool = False
) -> Built:
    """Build the target's artifact with the first of its builders that can run here, and every check beside it.

    Where compute capabilities were chosen (`build_choices`), an engine for them is compiled ahead of time as well.

    Args:
        target: the device; the format is the one that the model was exported in.
        trust: build from the exported files although the run's manifest does not list them as they are.

    Raises:
        RunError: the run has no exported model yet.
        UntrustedError: the exported model, its data or its golden samples are not what the export wrote.
        ExportError: the model is refused by the target's compiler.
    """
    exported = store.path("export")
    written = read_record(exported)
    if written is None:
        raise RunError(
            f"{store.folder} has no finished export, so there is nothing to build",
            fix=f"run: compress pipeline --out {store.folder} --until export",
        )
    for name in (MODEL, GOLDEN, *external_data.locations(exported / MODEL)):
        vouched.check(exported / name, trust=trust)
    target = replace(
        target,
        quantizer=written.values.get("quantizer", target.quantizer),
        precision=written.values.get("precision", target.precision),
    )
    given = build_choices.recall(store.folder)
    options = _options(exported, remote, build_choices.options(given), progress)
    skipped: dict[str, str] = {}
    chosen = None
    for name in target.builders:
        reason = builder.load(name).can_run(target, remote=remote)
        if reason is None:
            chosen = name
            break
        skipped[name] = reason
    checks = []
    for name in target.checks:
        reason = builder.load(name).can_run(target)
        if reason is None:
            checks.append(name)
        else:
            skipped[name] = reason
    ahead = bool(options.capabilities)
    if ahead and (reason := builder.load(AHEAD).can_run(target, remote=remote)) is not None:
        raise RunError(f"no engine can be compiled for {', '.join(options.capabilities)}: {reason}", fix="install it")
    for name, reason in skipped.items():
        progress.say(f"build: {name} skipped: {reason}")
    inputs = {
        "model": sha256(exported / MODEL),
        "golden": sha256(exported / GOLDEN),
        "target": digest(target),
        "builders": digest([chosen, checks, None if remote is None else machine_of(remote).host]),
    } | ({"choices": digest(given)} if given else {})

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        artifacts: list[Artifact] = []
        if chosen is not None:
            progress.say(f"build: {chosen} for {target.device}")
            own = replace(options, capabilities=())
            artifacts.append(builder.load(chosen).convert(exported / MODEL, target, folder, options=own))
        if ahead:
            progress.say(f"build: {AHEAD} for compute capability {', '.join(options.capabilities)}")
            runs_here = target.compute_capability in options.capabilities
            named = "model_" + "_".join(f"sm{one.replace('.', '')}" for one in options.capabilities) + ".engine"
            extra = replace(
                options, purpose="artifact" if runs_here else "check", name=named, engine=_for_ahead(options)
            )
            artifacts.append(builder.load(AHEAD).convert(exported / MODEL, target, folder, options=extra))
        for name in checks:
            progress.say(f"build: check with {name}")
            checking = replace(
                options,
                purpose="check",
                capability=target.check_capability or None,
                capabilities=(),
                remote=None,
                engine=_for_ahead(options),
            )
            artifacts.append(builder.load(name).convert(exported / MODEL, target, folder, options=checking))
        found = gate.built(exported / MODEL, target, artifacts)
        gate.write(found, folder)
        files = {f"{artifact.purpose} ({artifact.kind})": artifact.path for artifact in artifacts}
        if len(files) < len(artifacts):  # two of one kind: name them by their files
            files = {f"{artifact.purpose} ({artifact.path.name})": artifact.path for artifact in artifacts}
        return files | _logs(folder, artifacts), {
            "artifacts": [
                {
                    "path": artifact.path.relative_to(folder).as_posix(),
                    "kind": artifact.kind,
                    "purpose": artifact.purpose,
                    "note": artifact.note,
                    "facts": dict(artifact.facts),
                }
                for artifact in artifacts
            ],
            "skipped": skipped,
            "lint": gate.summary(found) | {"int8_share": found.int8_share},
        }

    kept = store.kept("build", inputs) or store.path("build")
    stale = _stale(kept, exported / MODEL) if remote is None and (chosen is not None or ahead) else []
    if stale:
        progress.say(f"build: again, for {'; '.join(stale)}")
        store.redo |= {"build"}
    record = store.once("build", inputs, work)
    folder = store.path("build")
    artifacts = tuple(
        Artifact(folder / row["path"], row["kind"], row["purpose"], row["note"], row["facts"])
        for row in record.values["artifacts"]
    )
    return Built(artifacts, record.values["skipped"])


def _stale(kept: Path, model: Path) -> list[str]:
    """Engines of an earlier build here that this machine cannot use any more, and why: another TensorRT, or GPU.

    Args:
        kept: the folder of that build; one that was set aside where it is taken back.
    """
    old = read_record(kept)
    rows = old.values["artifacts"] if old is not None else []
    reasons = []
    for row in rows:
        path = kept / row["path"]
        if row["kind"] == "engine" and row["facts"].get("remote") is None and path.is_file():
            reasons += [f"{path.name}: {reason}" for reason in loading.misfits(path, model)]
    return reasons


def _for_ahead(options: builder.BuildOptions) -> builder.EngineOptions:
    """Of the choices, those that a compiler ahead of time has, too."""
    chosen = options.engine
    return builder.EngineOptions(workspace_mib=chosen.workspace_mib, tf32=chosen.tf32, memory_mib=chosen.memory_mib)


def _options(
    exported: Path, remote: str | Machine | None, base: builder.BuildOptions, progress: Progress
) -> builder.BuildOptions:
    with np.load(exported / GOLDEN, allow_pickle=False) as golden:
        inputs = {name.removeprefix("input:"): golden[name] for name in golden.files if name.startswith("input:")}
        outputs = {name.removeprefix("output:"): golden[name] for name in golden.files if name.startswith("output:")}
    return replace(
        base,
        golden_inputs=inputs,
        golden_outputs=outputs,
        output_step=parity.output_step(exported / MODEL),
        remote=remote,
        progress=lambda line: progress.say(f"build: {line}"),
    )


def _logs(folder: Path, artifacts: list[Artifact]) -> dict[str, Path]:
    """Files that builders leave beside their artifact: logs, layer reports."""
    shipped = {artifact.path for artifact in artifacts}
    beside = [
        path
        for path in sorted(folder.iterdir())
        if path not in shipped and path.name not in ("begun.json", "stage.json")
    ]
    return {f"log ({path.name})": path for path in beside if not path.name.startswith(".")}
