"""The verdict of TensorRT for RTX, which parses and compiles on a machine without a GPU.

It shares its ONNX parser with TensorRT, so a refusal there is a refusal on the device. Its kernels are another back
end's: strong hints for TensorRT, no proof, and for compute capabilities that it does not know those of a neighbour.
"""

import importlib.util
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onnx import ModelProto

from exporters import build_log, child, rtx_build, tensorrt_form
from exporters.errors import ExportError
from exporters.lint.finding import Finding
from exporters.lint.rules import RULES, found_in
from exporters.lint.verdict import Padded, Verdict, judge
from exporters.lint.view import View, groups, view
from exporters.passes import name_nodes
from exporters.passes.strip_traces import module_name
from profiles.target import Target

KNOWN = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")  # compute capabilities of TensorRT-RTX 1.7
BATCHES = (1, 8, 64)
OTHER_SIZE = 64  # of a dynamic size that nobody names
MEMORY_BYTES = 12 << 30
LIBRARY = "TensorRT-RTX"


def missing(target: Target) -> str | None:
    """Why there is no verdict for this target here; None where there is one."""
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return "TensorRT for RTX is not installed (pip install 'compress[tensorrt-rtx]')"
    if capability(target) is None:
        return f"TensorRT for RTX compiles for {', '.join(KNOWN)}, and nothing like {target.compute_capability or 'it'}"
    return None


def capability(target: Target) -> str | None:
    """The target's own compute capability where the library knows it, else the one that its check is built for."""
    for wanted in (target.compute_capability, target.check_capability):
        if wanted in KNOWN:
            return wanted
    return None


def verdict(
    model: ModelProto,
    target: Target,
    findings: Iterable[Finding],
    seen: View,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    seconds: float,
) -> Verdict:
    """Parse and build the file as it is; where that is refused, as this project's builders write it.

    Args:
        model: as the file is.
        findings: of the rules on it.
        seen: the model, as the rules saw it.
        shapes: input -> shape without the batch.
        seconds: time limit of one build.

    Raises:
        ExportError: the target has no verdict; see `missing`.
    """
    built_for = capability(target)
    reason = missing(target)
    if reason is not None or built_for is None:
        raise ExportError(reason or "there is no such compiler", fix="pass --no-compile, or install it")
    notes = []
    if built_for != target.compute_capability:
        notes.append(
            f"compute capability {target.compute_capability} is not among those it compiles for: parsed as there; "
            f"kernels are those of {built_for}"
        )
    named = name_nodes.apply(model)
    first = _attempt(named, built_for, shapes, seconds, notes)
    if isinstance(first, str) or first[0]["stage"] == "done":
        return _verdict(first, seen, findings, built_for, notes)
    try:
        rewritten = tensorrt_form.rewrite(model)
    except ExportError:
        return _verdict(first, seen, findings, built_for, notes)
    if rewritten.SerializeToString(deterministic=True) == named.SerializeToString(deterministic=True):
        return _verdict(first, seen, findings, built_for, notes)
    second = _attempt(rewritten, built_for, shapes, seconds, notes)
    if isinstance(second, str) or second[0]["stage"] != "done":
        return _verdict(first, seen, findings, built_for, notes)
    refused = _refusal(first)
    notes.append(f"refused as the file is ({refused[0]}), accepted as the engine builders here rewrite it")
    again = view(rewritten, seen.device)
    return _verdict(second, again, found_in(RULES, again), built_for, notes)


def from_log(
    log: str, version: str, built_for: str, seen: View, findings: Iterable[Finding], notes: Iterable[str] = ()
) -> Verdict:
    """The verdict of an engine that was built, from its build log.

    Args:
        log: of a build with detailed profiling verbosity.
        version: of the library.
        seen: the model that was built.
        findings: of the rules on it.
    """
    kernels = build_log.kernels(log)
    types = {node: _word(kind) for node, kind in build_log.types_of(kernels).items()}
    runs = judge(seen, findings, types, "float")
    heavy = [kernel for kernel in kernels if kernel.heavy]
    return Verdict(
        compiler=f"{LIBRARY} {version}",
        built_for=f"compute capability {built_for}",
        accepted=True,
        runs=runs,
        requantise=tuple(kernel.name for kernel in kernels if kernel.requantises),
        padded=tuple(_padded(seen, kernels)),
        notes=tuple(notes),
        facts={
            "kernels": len(kernels),
            "heavy_kernels": len(heavy),
            "heavy_kernels_int8": sum(kernel.input_type == "Int8" for kernel in heavy),
            "falls_back": [line.strip()[:200] for line in log.splitlines() if "falls back" in line.lower()][:5],
        },
    )


_Built = tuple[dict[str, Any], str]


def _attempt(
    model: ModelProto, built_for: str, shapes: Mapping[str, tuple[int, ...]], seconds: float, notes: list[str]
) -> _Built | str:
    """Result and log of one build; why the child ended, where it ended badly."""
    request = {
        "capability": "SM" + built_for.replace(".", ""),
        "profile": tensorrt_form.profile(model, BATCHES, _sized(model, shapes, notes)),
    }
    with tempfile.TemporaryDirectory(prefix="lint-") as name:
        folder = Path(name)
        (folder / rtx_build.MODEL).write_bytes(model.SerializeToString(deterministic=True))
        (folder / rtx_build.REQUEST).write_text(json.dumps(request, sort_keys=True), "utf-8")
        outcome = child.run(
            child.python("exporters.rtx_build"),
            folder=folder,
            seconds=seconds,
            memory_bytes=MEMORY_BYTES,
            environment=child.plain_environment(),
        )
        path = folder / rtx_build.LOG
        log = path.read_text("utf-8", "replace") if path.exists() else ""
        why = outcome.why()
        if why is not None:
            lines = [line.strip() for line in (log or outcome.text).splitlines() if line.strip()]
            return f"the builder {why}; it last said: {lines[-1][:300] if lines else 'nothing'}"
        result: dict[str, Any] = json.loads((folder / rtx_build.RESULT).read_text("utf-8"))
        return result, log


def _sized(model: ModelProto, shapes: Mapping[str, tuple[int, ...]], notes: list[str]) -> dict[str, tuple[int, ...]]:
    """A shape without the batch for every input that has other dynamic sizes."""
    made = dict(shapes)
    for value in model.graph.input:
        sizes = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
        if value.name not in made and -1 in sizes[1:]:
            made[value.name] = tuple(OTHER_SIZE if size == -1 else size for size in sizes[1:])
            said = f"dynamic sizes of input {value.name!r} are compiled as {OTHER_SIZE}; --shape gives others"
            if said not in notes:
                notes.append(said)
    return made


def _verdict(
    built: _Built | str, seen: View, findings: Iterable[Finding], built_for: str, notes: Iterable[str]
) -> Verdict:
    if not isinstance(built, str) and built[0]["stage"] == "done":
        result, log = built
        found = from_log(log, str(result["version"]), built_for, seen, findings, notes)
        found.facts.update(inputs=result["inputs"], outputs=result["outputs"])
        return found
    why, node = _refusal(built)
    maker = next((item for item in seen.nodes if item.name == node), None)
    version = "" if isinstance(built, str) else f" {built[0]['version']}"
    return Verdict(
        compiler=f"{LIBRARY}{version}",
        built_for=f"compute capability {built_for}",
        accepted=False,
        refusal=why,
        refused_node=node,
        refused_module=module_name(maker) if maker is not None else "",
        notes=tuple(notes),
    )


def _refusal(built: _Built | str) -> tuple[str, str]:
    """Why, and at which node."""
    if isinstance(built, str):
        return built, ""
    result, log = built
    if result["stage"] == "parse":
        first = result["errors"][0] if result["errors"] else {"text": "no reason given", "node": ""}
        return f"the parser says: {first['text'].splitlines()[0][:300]}", first["node"]
    errors = [line for line in log.splitlines() if line.startswith(("ERROR ", "INTERNAL_ERROR "))]
    return f"the builder says: {errors[-1].split(' ', 1)[1][:300] if errors else 'no reason given'}", ""


def _word(kind: str) -> str:
    return {"Fp8": "fp8", "Bf16": "bfloat16"}.get(kind, kind.lower())


def _padded(seen: View, kernels: Iterable[build_log.Kernel]) -> Iterable[Padded]:
    """Convolutions whose kernel reads more channels than the graph gives them."""
    nodes = {product.node.name: product.node for product in seen.products if product.node.op_type == "Conv"}
    for kernel in kernels:
        if kernel.type != "correlation" or not kernel.inputs or len(kernel.inputs[0].dims) < 3:
            continue
        for name in kernel.nodes:
            found = groups(seen, nodes[name]) if name in nodes else None
            if found is not None and kernel.inputs[0].dims[1] > found[1]:
                yield Padded(name, module_name(nodes[name]), found[1], kernel.inputs[0].dims[1])


__all__ = ["KNOWN", "capability", "from_log", "missing", "verdict"]
