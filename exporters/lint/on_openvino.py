"""The verdict of OpenVINO's CPU plugin, from the graph that it runs: each layer with the type it computes in.

A layer of that graph names the ONNX nodes that were fused into it (originalLayersNames) and the type that its kernel
reads (runtimePrecision); OpenVINO documentation, "Model runtime information".
"""

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from onnx import ModelProto

from exporters import large
from exporters.errors import ExportError
from exporters.lint.finding import Finding
from exporters.lint.verdict import Verdict, judge
from exporters.lint.view import View

HEAVY = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul", "ScaledDotProductAttention"})
TYPES = {"u8": "int8", "i8": "int8", "f32": "float", "f16": "half", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Layer:
    """One layer of the runtime graph."""

    kind: str  # layerType
    precision: str  # runtimePrecision: u8, i8, f32, bf16, ...
    nodes: tuple[str, ...]  # ONNX nodes in it


def missing(model: ModelProto) -> str | None:
    """Why there is no verdict here; None where there is one."""
    if importlib.util.find_spec("openvino") is None:
        return "OpenVINO is not installed (pip install openvino)"
    if large.bytes_of(model) > large.ONE_FILE_BYTES:
        return "the model is larger than one protobuf message"
    return None


def verdict(model: ModelProto, findings: Iterable[Finding], seen: View) -> Verdict:
    """Compile the model for one thread of this machine's CPU and read the graph that runs.

    Raises:
        ExportError: OpenVINO is not installed.
    """
    reason = missing(model)
    if reason is not None:
        raise ExportError(reason, fix="install it, or pass --no-compile")
    openvino: Any = importlib.import_module("openvino")
    compiler = f"OpenVINO {openvino.__version__.split('-')[0]}"
    built_for = "the CPU plugin on this machine"
    try:
        core = openvino.Core()
        compiled = core.compile_model(
            core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        )
        layers = [_layer(operator) for operator in compiled.get_runtime_model().get_ordered_ops()]
    except RuntimeError as error:  # all of its refusals
        lines = str(error).strip().splitlines()
        return Verdict(compiler, built_for, accepted=False, refusal=lines[-1][:300] if lines else "no reason given")
    return from_layers(layers, compiler, built_for, findings, seen)


def from_layers(
    layers: Iterable[Layer], compiler: str, built_for: str, findings: Iterable[Finding], seen: View
) -> Verdict:
    """The verdict that the layers of a runtime graph hold. Rules of other runtimes do not explain its floats."""
    # A layer that makes an output of the network bears the name of that output.
    names = {name: product.node.name for product in seen.products for name in product.node.output}
    names |= {product.node.name: product.node.name for product in seen.products}
    types: dict[str, str] = {}
    kinds = []
    for layer in layers:
        if layer.kind not in HEAVY:
            continue
        kinds.append(layer.precision)
        for entry in layer.nodes:
            found = entry if entry in names else entry.partition("/WithoutBiases")[0]
            if found in names:
                types.setdefault(names[found], TYPES.get(layer.precision, layer.precision))
    return Verdict(
        compiler=compiler,
        built_for=built_for,
        accepted=True,
        runs=judge(seen, findings, types, "float"),
        facts={"heavy_layers": len(kinds), "heavy_layers_int8": sum(TYPES.get(kind) == "int8" for kind in kinds)},
    )


def _layer(operator: Any) -> Layer:
    info = operator.get_rt_info()

    def text(key: str) -> str:
        return str(info[key].astype(str)) if key in info else ""

    return Layer(text("layerType"), text("runtimePrecision"), tuple(text("originalLayersNames").split(",")))
