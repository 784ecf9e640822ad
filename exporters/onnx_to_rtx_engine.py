"""An engine by TensorRT for RTX, ahead of time: no GPU and no driver is needed to build it.

It is the artifact where a target's compute capability is one that the library compiles for (A100: SM80), and a check
elsewhere: an engine for SM86 proves that TensorRT's parser takes the graph and that Ampere has int8 kernels for it; it
does not run on an Orin (SM87), whose own engine is built on the device.

The library orders parts of its plan by addresses. Without address randomisation two builds give the same bytes; with
it they do not (measured with 1.7.1). `facts["reproducible"]` is the comparison of two builds.
"""

import hashlib
import importlib.util
import json
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnx import ModelProto

from exporters import build_log, bundle, bundle_run, child, engine_request, for_tensorrt, rtx_build
from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.device import identity
from exporters.errors import ExportError
from exporters.remote import Machine, machine_of, missing_tools
from profiles import atomic
from profiles.target import Target

CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # ComputeCapability of tensorrt_rtx 1.7
PACKAGE = "tensorrt_rtx"
SECOND_BUILD_SECONDS = 60.0  # a build that took longer is not repeated to compare bytes


def can_run(target: Target, *, remote: str | Machine | None = None) -> str | None:
    """None where an engine for `target` (or, at least, its check) can be built here or on `remote`; else what lacks."""
    if target.compute_capability not in CAPABILITIES and target.check_capability not in CAPABILITIES:
        return (
            f"TensorRT for RTX compiles for {', '.join(CAPABILITIES)}, "
            f"not for {target.compute_capability or 'a target without a GPU'}"
        )
    if remote is not None:
        return _lacks_remote(machine_of(remote))
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return "TensorRT for RTX is not installed (pip install 'compress[tensorrt-rtx]')"
    return None


def convert(model: Path, target: Target, out: Path, *, options: BuildOptions) -> Artifact:
    """Build `model.engine` (or, with purpose "check", `check_sm86.engine`) below `out`.

    Args:
        model: the exported ONNX file.
        target: gives the compute capability where `options` name none: its own for an artifact, `check_capability` for
            a check.
        out: folder; the engine, its record (`<name>.json`) and its log (`<stem>.build.log`) appear there, each whole or
            not at all.
        options: capability or capabilities, purpose, batches, shapes, dims, profiles, name, seconds, progress; `remote`
            builds on another machine that has TensorRT for RTX, which needs no GPU either.

    Returns:
        The engine. facts: tensorrt_rtx, capabilities, profiles, int8_share with the names of weighted nodes that run in
        float (for each capability under `per_capability`), reproducible, log. `build_seconds` is there too and differs
        between builds.

    Raises:
        ExportError: the parser or the builder refuses, crashes, or exceeds its limits.
    """
    missing = can_run(target, remote=options.remote)
    if missing is not None:
        raise ExportError(missing, fix="install it, or let another builder of the target run")
    capabilities = _capabilities(target, options)
    graph = for_tensorrt.prepare(model)
    wanted = engine_request.request(graph, options, capabilities)
    if options.remote is not None:
        return _there(model, target, out, options, capabilities)
    plan, result, log = _build(graph, wanted, options)
    reproducible: bool | None = None
    if float(result["seconds"]) <= SECOND_BUILD_SECONDS:
        again, _, _ = _build(graph, wanted, options)
        reproducible = again == plan
    name = _name(options, capabilities)
    log_name = f"{Path(name).stem}.build.log"
    atomic.write_text(out / log_name, build_log.without_times(log))
    with tempfile.TemporaryDirectory(prefix="engine-") as scratch:
        made = Path(scratch) / name
        made.write_bytes(plan)
        facts = {"tensorrt": result["version"], "flags": result["flags"], "tf32": False}
        data = graph.SerializeToString(deterministic=True)
        record = identity.record(
            made,
            PACKAGE,
            facts,
            None,
            wanted,
            onnx=hashlib.sha256(data).hexdigest(),
            exported=atomic.sha256(model),
        )
    atomic.write_text(identity.path_of(out / name), json.dumps(record, indent=1, sort_keys=True) + "\n")
    atomic.write_bytes(out / name, plan)
    logs = {capabilities[0]: log}
    if len(capabilities) > 1:  # one engine's log lists the kernels of one capability only
        logs = {one: _build(graph, engine_request.request(graph, options, (one,)), options)[2] for one in capabilities}
    each = {capability: _kernels(graph, text) for capability, text in logs.items()}
    worst = min(each.values(), key=lambda found: float(found["int8_share"]))
    return Artifact(
        path=out / name,
        kind="engine",
        purpose=options.purpose,
        note=_note(target, capabilities, options.purpose),
        facts={
            "tensorrt_rtx": result["version"],
            "capability": ", ".join(capabilities),
            "capabilities": list(capabilities),
            "profile": wanted["profiles"][0] if wanted["profiles"] else {},
            "profiles": wanted["profiles"],
            "inputs": result["inputs"],
            "outputs": result["outputs"],
            "tf32": False,
            "bytes": len(plan),
            "engine_sha256": record["engine_sha256"],
            **worst,
            "per_capability": each,
            "reproducible": reproducible,
            "fixed_addresses": result["fixed_addresses"],
            "build_seconds": result["seconds"],
            "log": log_name,
        },
    )


def _there(model: Path, target: Target, out: Path, options: BuildOptions, capabilities: tuple[str, ...]) -> Artifact:
    """Build on another machine, with the script of the bundles; it says how the engine was built, not its kernels."""
    with tempfile.TemporaryDirectory(prefix="engine-") as scratch:
        folder = Path(scratch) / "bundle"
        manifest = bundle.write(model, target, folder, options, package=PACKAGE, capabilities=capabilities)
        result = bundle_run.run(folder, manifest, options)
        path = bundle_run.keep(folder, result, out, _name(options, capabilities))
        log = (folder / "build.log").read_text("utf-8", "replace") if (folder / "build.log").is_file() else ""
    graph = for_tensorrt.prepare(model)
    facts = {**result, "tensorrt_rtx": result["tensorrt"], "capability": ", ".join(capabilities)}
    if result.get("parity") is None:  # it was not run there, so the log is what tells of kernels
        facts.update(_kernels(graph, log))
    return Artifact(
        path=path,
        kind="engine",
        purpose=options.purpose,
        note=_note(target, capabilities, options.purpose),
        facts={**facts, "reproducible": None, "remote": bundle_run.where(options)},
    )


def _lacks_remote(machine: Machine) -> str | None:
    missing = missing_tools()
    if missing is not None:
        return missing
    try:
        done = bundle_run.probe(machine, PACKAGE)
        if done.returncode != 0:
            return f"{machine.python} on {machine.host} cannot run the builder: {_last_line(done.stderr)}"
        found = json.loads(_last_line(done.stdout))
    except ExportError as error:
        return error.what
    except ValueError:
        return f"{machine.host} gave no answer about its TensorRT"
    return f"{machine.host} lacks " + "; ".join(found["missing"]) if found["missing"] else None


def _kernels(graph: ModelProto, log: str) -> dict[str, Any]:
    """What the log says about int8, for one capability."""
    kernels = build_log.kernels(log)
    weighted, quantised = for_tensorrt.weighted_nodes(graph)
    share = build_log.int8_share(kernels, weighted, quantised)
    heavy = [kernel for kernel in kernels if kernel.heavy]
    return {
        "int8_share": share.share,
        "weighted_nodes": len(weighted),
        "quantised_nodes": len(quantised),
        "float_nodes": list(share.float),
        "missed_int8_nodes": list(share.missed),
        "kernels": len(kernels),
        "heavy_kernels": len(heavy),
        "heavy_kernels_int8": sum(kernel.input_type == "Int8" for kernel in heavy),
    }


def _build(graph: ModelProto, request: dict[str, Any], options: BuildOptions) -> tuple[bytes, dict[str, Any], str]:
    """Plan, result and log of one build in a child process."""
    with tempfile.TemporaryDirectory(prefix="engine-") as name:
        folder = Path(name)
        (folder / rtx_build.MODEL).write_bytes(graph.SerializeToString(deterministic=True))
        (folder / rtx_build.REQUEST).write_text(json.dumps(request, sort_keys=True), "utf-8")
        outcome = child.run(
            child.python("exporters.rtx_build"),
            folder=folder,
            seconds=options.seconds,
            memory_bytes=options.engine.memory_mib << 20,
            environment=child.plain_environment(),
            progress=None if options.progress is None else _prefixed(options.progress),
        )
        log = _text(folder / rtx_build.LOG)
        why = outcome.why()
        if why is not None:
            raise ExportError(
                f"the engine builder {why}; it last said: {_last_line(log) or _last_line(outcome.text)}",
                fix="look for the node named there in the ONNX file; a smaller profile or student needs less",
            )
        result: dict[str, Any] = json.loads(_text(folder / rtx_build.RESULT))
        if result["stage"] != "done":
            raise ExportError(_refusal(result, log), fix=_FIXES[result["stage"]])
        return (folder / rtx_build.ENGINE).read_bytes(), result, log


def _prefixed(progress: Callable[[str], None]) -> Callable[[str], None]:
    return lambda line: progress(f"building the engine: {line}")


_FIXES = {
    "parse": "replace that operator in the student, or keep that layer out of the quantiser",
    "build": "compile for a later capability, or keep the layer named there in float",
}


def _refusal(result: dict[str, Any], log: str) -> str:
    if result["stage"] == "parse":
        first = result["errors"][0] if result["errors"] else {"text": "no reason given", "node": "", "operator": ""}
        where = f"node {first['node']!r} ({first['operator']})" if first["node"] else "the graph"
        return f"TensorRT's parser refuses {where}: {first['text']}"
    errors = [line for line in log.splitlines() if re.match(r"(INTERNAL_)?ERROR ", line)]
    if not errors and "said" in result:
        return str(result["said"])
    return f"TensorRT cannot build this graph: {errors[-1].split(' ', 1)[1] if errors else 'no reason given'}"


def _capabilities(target: Target, options: BuildOptions) -> tuple[str, ...]:
    own = target.check_capability if options.purpose == "check" else target.compute_capability
    chosen = options.capabilities or (options.capability or own,)
    for one in chosen:
        if one not in CAPABILITIES:
            raise ExportError(
                f"TensorRT for RTX does not compile for {one or 'no capability'!s} ({target.name}); "
                f"it knows {', '.join(CAPABILITIES)}",
                fix=f"choose one of these ({target.check_capability or CAPABILITIES[1]} serves as a check here), "
                "or build on the device",
            )
    if len(set(chosen)) != len(chosen):
        raise ExportError(f"capabilities {', '.join(chosen)} name one twice", fix="name each once")
    return tuple(chosen)


def _name(options: BuildOptions, capabilities: tuple[str, ...]) -> str:
    if options.name is not None:
        return options.name
    joined = "_".join(_sm(one) for one in capabilities)
    if options.purpose == "check":
        return f"check_{joined}.engine"
    return f"model_{joined}.engine" if options.capabilities else "model.engine"


def _sm(capability: str) -> str:
    return "sm" + capability.replace(".", "")


def _note(target: Target, capabilities: tuple[str, ...], purpose: str) -> str:
    listed = " and ".join(capabilities)
    if purpose == "check":
        return (
            f"proves that the graph compiles for compute capability {listed}; "
            f"does not run on {target.device} ({target.compute_capability})"
        )
    return f"runs with the TensorRT for RTX that built it, on compute capability {listed}; not run here"


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing"
