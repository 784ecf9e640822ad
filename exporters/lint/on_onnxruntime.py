"""The verdict of onnxruntime's CPU provider: which products its optimised graph computes in integers."""

import importlib.util
import re
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto

from exporters import large
from exporters.errors import ExportError
from exporters.lint.finding import Finding
from exporters.lint.verdict import Verdict, judge
from exporters.lint.view import ACTIVATIONS, View

INTEGER = frozenset(
    {
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "ConvInteger",
        "MatMulInteger",
        "QAttention",
        "MatMulNBits",
    }
)
REAL = frozenset(
    {"Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "Attention"}
)
_COPY = re.compile(r"(?:_token_\d+|_nchwc)$")  # what its rewrites add to a name


def missing() -> str | None:
    """Why there is no verdict here; None where there is one."""
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnxruntime is not installed (pip install onnxruntime)"
    return None


def verdict(model: ModelProto, findings: Iterable[Finding], seen: View) -> Verdict:
    """Open the model in a session with all optimisations and read the graph that it runs.

    Raises:
        ExportError: onnxruntime is not installed.
    """
    reason = missing()
    if reason is not None:
        raise ExportError(reason, fix="install it, or pass --no-compile")
    import onnxruntime
    from onnxruntime import SessionOptions  # type: ignore[attr-defined]

    compiler = f"onnxruntime {onnxruntime.__version__}"
    built_for = "the CPU provider of this machine"
    with tempfile.TemporaryDirectory(prefix="lint-") as name:
        path = Path(name) / "optimised.onnx"
        options = SessionOptions()
        options.optimized_model_filepath = str(path)
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            large.session(model, options)
            optimised = onnx.load(str(path))
        except Exception as error:  # onnxruntime raises a family of exceptions without a common base of its own
            lines = str(error).strip().splitlines()
            return Verdict(compiler, built_for, accepted=False, refusal=lines[0][:300] if lines else "no reason given")
    return from_graph(optimised, compiler, built_for, findings, seen)


def from_graph(
    optimised: ModelProto, compiler: str, built_for: str, findings: Iterable[Finding], seen: View
) -> Verdict:
    """The verdict that an optimised graph holds."""
    names = frozenset(product.node.name for product in seen.products)
    operators = {product.node.name: product.node.op_type for product in seen.products}
    results = {product.node.output[0]: product.node.name for product in seen.products}
    types: dict[str, str] = {}
    for node in optimised.graph.node:
        if node.op_type not in INTEGER and node.op_type not in REAL:
            continue
        found = _before(node.name, names)
        if found is None:  # a blocked convolution is named by its result
            found = results.get(seen.before(_COPY.sub("", node.name), ACTIVATIONS))
        if found is None:
            continue
        if node.op_type in INTEGER:
            types[found] = "int8"
        else:
            types.setdefault(found, "float")
    stored = {tensor.name for tensor in optimised.graph.initializer if tensor.data_type != TensorProto.FLOAT}
    decoded = [
        node.name for node in optimised.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in stored
    ]
    counts = Counter(node.op_type for node in optimised.graph.node if node.op_type in INTEGER | REAL)
    notes = [f"{len(decoded)} constants are decoded at every inference"] if decoded else []
    gone = [name for name in names if name not in types]
    if gone:
        notes.append(
            f"{len(gone)} products are not in its graph under their names (fused or folded), counted as float: "
            + ", ".join(f"{name} ({operators[name]})" for name in sorted(gone)[:3])
        )
    return Verdict(
        compiler=compiler,
        built_for=built_for,
        accepted=True,
        runs=judge(seen, findings, types, "float"),
        notes=tuple(notes),
        facts={
            "nodes": len(optimised.graph.node),
            "integer_operators": {kind: count for kind, count in sorted(counts.items()) if kind in INTEGER},
            "float_operators": {kind: count for kind, count in sorted(counts.items()) if kind in REAL},
            "decoded_constants": decoded,
        },
    )


def _before(name: str, names: frozenset[str]) -> str | None:
    """The product that a node of the optimised graph comes from: rewrites add "_token_3" or "/..." behind a name."""
    name = _COPY.sub("", name)
    while name and name not in names:
        name = _COPY.sub("", name.rpartition("/")[0])
    return name or None
