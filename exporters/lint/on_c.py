"""The verdict of the C exporter: which nodes have an integer kernel for a core, which run in float, which have none."""

from collections.abc import Iterable
from pathlib import Path

from exporters.c import graph as c_graph
from exporters.c import lower
from exporters.errors import ExportError
from exporters.lint.finding import Finding
from exporters.lint.verdict import Verdict, judge
from exporters.lint.view import View
from exporters.passes.strip_traces import module_name
from profiles.errors import UserError

COMPILER = "exporters/onnx_to_c.py"
FALLBACK = (
    "emx-onnx-cgen is the fallback (exporters/onnx_to_emx_c.py): the whole model in floats, every tensor on the stack"
)


def verdict(path: Path, core: str, findings: Iterable[Finding], seen: View) -> Verdict:
    """Lower the model to C steps; nothing is written and no compiler runs."""
    built_for = core or "a core"
    try:
        context = lower.lower(c_graph.read(path))
    except UserError as error:  # of the exporter, or of reading shapes
        without = [node for node in seen.nodes if node.op_type not in lower.SUPPORTED]
        first = next((node for node in seen.nodes if repr(node.name) in error.what), without[0] if without else None)
        notes = [FALLBACK] if isinstance(error, ExportError) else []
        if without:
            kinds = ", ".join(f"{node.op_type} {node.name!r}" for node in without[:5])
            notes.append(f"{len(without)} nodes have no kernel: {kinds}{', ...' if len(without) > 5 else ''}")
        return Verdict(
            COMPILER,
            built_for,
            accepted=False,
            refusal=error.what.partition("; there are ")[0],
            refused_node=first.name if first is not None else "",
            refused_module=module_name(first) if first is not None else "",
            notes=tuple(notes),
        )
    types: dict[str, str] = {}
    for step in context.program.steps:
        types[step.name] = "int8" if step.integer else types.get(step.name, "float")
    decoded = list(context.fallback)
    for entry in decoded:
        for product in seen.products:
            if repr(product.node.name) in entry:
                types[product.node.name] = "float"
    notes = (
        [f"{len(decoded)} nodes decode quantised tensors and run in float: {', '.join(decoded[:3])}"] if decoded else []
    )
    return Verdict(
        COMPILER,
        built_for,
        accepted=True,
        runs=judge(seen, findings, types, "float"),
        notes=tuple(notes),
        facts={
            "kernels": sorted(frozenset[str]().union(*(step.kernels for step in context.program.steps))),
            "decoded": decoded,
            "steps": len(context.program.steps),
            "float_steps": [step.name for step in context.program.steps if not step.integer],
        },
    )
