"""Lint one file for one target: the rules, then the target's own compiler."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from exporters import check_onnx, graph, large, tensorrt_form
from exporters.errors import ExportError
from exporters.lint import checklist, on_c, on_onnxruntime, on_openvino, on_tensorrt
from exporters.lint.dla import verdicts as dla_verdicts
from exporters.lint.finding import LEVELS, Finding
from exporters.lint.report import LintReport
from exporters.lint.rules import DLA_RULES, RULES, found_in
from exporters.lint.verdict import Verdict
from exporters.lint.view import View, device, view
from profiles.target import Target

SECONDS = 300.0
_MENDED = "; the engine builders here rewrite it, others refuse it"
_ENGINE_TYPES = {
    TensorProto.FLOAT: "FLOAT",
    TensorProto.FLOAT16: "HALF",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8",
    TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32",
    TensorProto.INT64: "INT64",
    TensorProto.BOOL: "BOOL",
}


def lint(
    model: Path,
    target: Target,
    *,
    compile: bool = True,
    dla: bool = False,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    seconds: float = SECONDS,
) -> LintReport:
    """Check a file against the rules of the target's runtime and ask its compiler.

    Args:
        model: an ONNX file; nothing in it is run before it is checked.
        target: says which rules hold and which compiler answers: TensorRT-RTX in a child process (runtime tensorrt),
            onnxruntime's optimiser (onnxruntime), the C exporter's lowering (cortex-m).
        compile: False reads the file only.
        dla: also say of each node whether a DLA runs it.
        shapes: input -> shape without the batch, of inputs with other dynamic sizes.
        seconds: time limit of one build.

    Returns:
        The report; a broken rule, a refusal of the compiler or a missing compiler are in it, not raised.

    Raises:
        ExportError: the file cannot be read, is damaged, or keeps data outside its folder; a shape is of no input.
    """
    model = Path(model)
    loaded = check_onnx.read(model)
    _named(shapes or {}, loaded)
    of = device(target)
    seen = view(loaded, of)
    findings = _mended(found_in(RULES, seen), seen)
    findings += _full_check(loaded)
    rows = None
    if dla:
        about = found_in(DLA_RULES, seen)
        findings += about
        rows = dla_verdicts(seen, about)
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    verdict, why = (None, "--no-compile") if not compile else _compiled(model, target, seen, findings, shapes, seconds)
    return LintReport(
        model=model.name,
        target=target.name,
        findings=tuple(findings),
        compiler=verdict,
        not_compiled=why,
        others=_others(target, seen) if compile else (),
        dla=rows,
        checklist=checklist_of(findings, seen, verdict),
        facts={
            "device": f"{target.device}, {target.runtime} {target.runtime_version}".strip(),
            "opset": graph.opset(loaded),
            "nodes": len(loaded.graph.node),
            "products": len(seen.products),
            "quantised": sum(product.quantised for product in seen.products),
            "weights_only": sum(
                product.constant and product.weight_dq is not None and product.data_dq is None
                for product in seen.products
            ),
        },
    )


def _named(shapes: Mapping[str, tuple[int, ...]], model: ModelProto) -> None:
    """Refuse a shape of what is no input: it would change nothing, and nobody would see it."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    names = [value.name for value in model.graph.input if value.name not in fixed]
    wrong = [name for name in shapes if name not in names]
    if wrong:
        raise ExportError(
            f"no input is called {', '.join(map(repr, wrong))}; there are {', '.join(names)}",
            fix="name one of these, with its sizes without the batch",
        )


def _full_check(model: ModelProto) -> list[Finding]:
    """A file that onnx's full check does not take: runtimes may, and may not."""
    try:
        onnx.checker.check_model(large.skeleton(model), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return [Finding("C2", "note", "", "", f"onnx's full check says: {lines[0][:200]}", "export the model again")]
    return []


def checklist_of(findings: Iterable[Finding], seen: View, verdict: Verdict | None) -> tuple[checklist.Item, ...]:
    """C1 to C12 for these findings and, where there is one, this verdict."""
    rules = frozenset(rule.id for rule in RULES if seen.device.runtime in rule.runtimes)
    return checklist.items(findings, rules, None if verdict is None else _broken(seen, verdict))


def _broken(seen: View, verdict: Verdict) -> dict[str, str | None]:
    """What the compiler says about C8 and C12."""
    if not verdict.accepted:
        return {"C8": "refused"}
    silent = verdict.silent
    found: dict[str, str | None] = {
        "C8": f"{len(silent)} quantised products run in float" if silent else None,
    }
    if "falls_back" in verdict.facts:
        said = verdict.facts["falls_back"]
        other = _other_types(seen, verdict)
        found["C12"] = str(said) if said else f"types differ: {', '.join(other)}" if other else None
    return found


def _other_types(seen: View, verdict: Verdict) -> list[str]:
    built: dict[str, str] = {}
    for side in ("inputs", "outputs"):
        given = verdict.facts.get(side)
        built.update(given if isinstance(given, dict) else {})
    return [
        f"{name} is {kind}"
        for name, kind in built.items()
        if _ENGINE_TYPES.get(seen.type(name), kind) != kind  # type: ignore[call-overload, unused-ignore]
    ]


def _mended(findings: list[Finding], seen: View) -> list[Finding]:
    """A refusal that this project's rewrites for TensorRT take away is a note: other builders meet it."""
    if seen.device.runtime != "tensorrt" or not any(finding.level == "refused" for finding in findings):
        return findings
    try:
        rewritten = tensorrt_form.rewrite(seen.model)
    except ExportError:
        return findings
    left = {(f.rule, f.node) for f in found_in(RULES, view(rewritten, seen.device))}
    return [
        replace(finding, level="note", what=finding.what + _MENDED)
        if finding.level == "refused" and (finding.rule, finding.node) not in left
        else finding
        for finding in findings
    ]


def _others(target: Target, seen: View) -> tuple[Verdict, ...]:
    """OpenVINO, where the target may run on it and it is installed."""
    if "on_openvino" not in target.runners or on_openvino.missing(seen.model) is not None:
        return ()
    return (on_openvino.verdict(seen.model, [], seen),)


def _compiled(
    path: Path,
    target: Target,
    seen: View,
    findings: list[Finding],
    shapes: Mapping[str, tuple[int, ...]] | None,
    seconds: float,
) -> tuple[Verdict | None, str]:
    """The verdict of the compiler that the target has, or why there is none."""
    runtime = seen.device.runtime
    if runtime == "tensorrt":
        why = on_tensorrt.missing(target)
        if large.bytes_of(seen.model) > large.ONE_FILE_BYTES:
            why = "the model is larger than one protobuf message, and the build here reads one"
        if why is not None:
            return None, why
        return on_tensorrt.verdict(seen.model, target, findings, seen, shapes=shapes or {}, seconds=seconds), ""
    if runtime == "onnxruntime":
        why = on_onnxruntime.missing()
        return (None, why) if why is not None else (on_onnxruntime.verdict(seen.model, findings, seen), "")
    if target.family == "cortex-m":
        return on_c.verdict(path, target.hardware.core, findings, seen), ""
    return None, f"there is no compiler for {target.runtime} here"
