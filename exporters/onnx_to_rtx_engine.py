"""An engine by TensorRT for RTX, ahead of time: no GPU and no driver is needed to build it.

It is the artifact where a target's compute capability is one that the library compiles for (A100: SM80), and a check
elsewhere: an engine for SM86 proves that TensorRT's parser takes the graph and that Ampere has int8 kernels for it; it
does not run on an Orin (SM87), whose own engine is built on the device.

The library orders parts of its plan by addresses. Without address randomisation two builds give the same bytes; with
it they do not (measured with 1.7.1). `facts["reproducible"]` is the comparison of two builds.
"""

import importlib.util
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from onnx import ModelProto

from exporters import build_log, child, for_tensorrt, rtx_build
from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles import atomic
from profiles.target import Target

CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # ComputeCapability of tensorrt_rtx 1.7
MEMORY_BYTES = 12 << 30
SECOND_BUILD_SECONDS = 60.0  # a build that took longer is not repeated to compare bytes


def can_run(target: Target, *, remote: str | None = None) -> str | None:
    """None where an engine for `target` (or, at least, its check) can be built here; else what is missing."""
    if remote is not None:
        return "TensorRT for RTX builds on this machine; it needs no remote one"
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return "TensorRT for RTX is not installed (pip install 'compress[tensorrt-rtx]')"
    if target.compute_capability not in CAPABILITIES and target.check_capability not in CAPABILITIES:
        return (
            f"TensorRT for RTX compiles for {', '.join(CAPABILITIES)}, "
            f"not for {target.compute_capability or 'a target without a GPU'}"
        )
    return None


def convert(model: Path, target: Target, out: Path, *, options: BuildOptions) -> Artifact:
    """Build `model.engine` (or, with purpose "check", `check_sm86.engine`) below `out`.

    Args:
        model: the exported ONNX file.
        target: gives the compute capability where `options.capability` is None: its own for an artifact,
            `check_capability` for a check.
        out: folder; the engine and its log (`<name>.build.log`) appear there, each whole or not at all.
        options: capability, purpose, batches, shapes, name, seconds.

    Returns:
        The engine. facts: tensorrt_rtx, capability, profile, sha256 of the parsed graph, int8_share with the names of
        weighted nodes that run in float, reproducible, log. `build_seconds` is there too and differs between builds.

    Raises:
        ExportError: the parser or the builder refuses, crashes, or exceeds its limits.
    """
    missing = can_run(target)
    if missing is not None:
        raise ExportError(missing, fix="install it, or let another builder of the target run")
    capability = _capability(target, options)
    name = options.name or ("model.engine" if options.purpose == "artifact" else f"check_{_sm(capability)}.engine")
    graph = for_tensorrt.prepare(model)
    request = {
        "capability": _sm(capability).upper(),
        "profile": for_tensorrt.profile(graph, options.batches, options.shapes),
    }
    plan, result, log = _build(graph, request, options.seconds)
    reproducible: bool | None = None
    if float(result["seconds"]) <= SECOND_BUILD_SECONDS:
        again, _, _ = _build(graph, request, options.seconds)
        reproducible = again == plan
    out.mkdir(parents=True, exist_ok=True)
    log_name = f"{Path(name).stem}.build.log"
    atomic.write_text(out / log_name, build_log.without_times(log))
    atomic.write_bytes(out / name, plan)
    kernels = build_log.kernels(log)
    weighted, quantised = for_tensorrt.weighted_nodes(graph)
    share = build_log.int8_share(kernels, weighted, quantised)
    heavy = [kernel for kernel in kernels if kernel.heavy]
    return Artifact(
        path=out / name,
        kind="engine",
        purpose=options.purpose,
        note=_note(target, capability, options.purpose),
        facts={
            "tensorrt_rtx": result["version"],
            "capability": capability,
            "profile": request["profile"],
            "inputs": result["inputs"],
            "outputs": result["outputs"],
            "tf32": False,
            "bytes": len(plan),
            "int8_share": share.share,
            "weighted_nodes": len(weighted),
            "quantised_nodes": len(quantised),
            "float_nodes": list(share.float),
            "missed_int8_nodes": list(share.missed),
            "kernels": len(kernels),
            "heavy_kernels": len(heavy),
            "heavy_kernels_int8": sum(kernel.input_type == "Int8" for kernel in heavy),
            "reproducible": reproducible,
            "fixed_addresses": result["fixed_addresses"],
            "build_seconds": result["seconds"],
            "log": log_name,
        },
    )


def _build(graph: ModelProto, request: dict[str, Any], seconds: float) -> tuple[bytes, dict[str, Any], str]:
    """Plan, result and log of one build in a child process."""
    with tempfile.TemporaryDirectory(prefix="engine-") as name:
        folder = Path(name)
        (folder / rtx_build.MODEL).write_bytes(graph.SerializeToString(deterministic=True))
        (folder / rtx_build.REQUEST).write_text(json.dumps(request, sort_keys=True), "utf-8")
        outcome = child.run(
            child.python("exporters.rtx_build"),
            folder=folder,
            seconds=seconds,
            memory_bytes=MEMORY_BYTES,
            environment=child.plain_environment(),
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
    return f"TensorRT cannot build this graph: {errors[-1].split(' ', 1)[1] if errors else 'no reason given'}"


def _capability(target: Target, options: BuildOptions) -> str:
    chosen = options.capability or (
        target.check_capability if options.purpose == "check" else target.compute_capability
    )
    if chosen not in CAPABILITIES:
        raise ExportError(
            f"TensorRT for RTX does not compile for {chosen or 'no capability'!s} ({target.name}); "
            f"it knows {', '.join(CAPABILITIES)}",
            fix=f"build a check (purpose='check' compiles for {target.check_capability or CAPABILITIES[1]}), "
            "or build on the device",
        )
    return chosen


def _sm(capability: str) -> str:
    return "sm" + capability.replace(".", "")


def _note(target: Target, capability: str, purpose: str) -> str:
    if purpose == "check":
        return (
            f"proves that the graph compiles for compute capability {capability}; "
            f"does not run on {target.device} ({target.compute_capability})"
        )
    return f"runs with the TensorRT for RTX that built it, on compute capability {capability}; not run here"


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.exists() else ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "nothing"
