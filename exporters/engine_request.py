"""What is asked of the script that builds an engine on its device: plain data, part of the bundle, hashed with it."""

from typing import Any

from onnx import ModelProto, TensorProto

from exporters import dla, profile_shapes
from exporters.builder import BuildOptions
from exporters.errors import ExportError

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def request(model: ModelProto, options: BuildOptions, capabilities: tuple[str, ...] = ()) -> dict[str, Any]:
    """Everything that decides the engine; see `exporters.device.plan.build`.

    Args:
        model: as TensorRT gets it.
        options: batches, shapes, dims, profiles, engine.
        capabilities: "8.0", ... for a build ahead of time.

    Raises:
        ExportError: a dynamic dimension without sizes, or what a DLA does not take.
    """
    engine = options.engine
    made: dict[str, Any] = {
        "profiles": profile_shapes.profiles(model, options),
        "tf32": engine.tf32,
        "hardware": engine.hardware,
        "version_compatible": engine.version_compatible,
        "strip_weights": engine.strip_weights,
        "optimisation_level": engine.optimisation_level,
        "workspace_mib": engine.workspace_mib,
        "int8": any(node.op_type in QUANTIZERS for node in model.graph.node),
        "fp16": _has_half(model),
        "dla": None,
    }
    if capabilities:
        made["capabilities"] = [sm(capability) for capability in capabilities]
    if engine.dla_core is not None:
        if made["profiles"]:
            raise ExportError("a DLA wants static shapes, and this model has dynamic ones", fix="fix its shapes first")
        made["dla"] = {
            "core": engine.dla_core,
            "gpu_fallback": engine.gpu_fallback,
            "scales": dla.strip(model).scales,
        }
    return made


def sm(capability: str) -> str:
    """ "8.6" -> "SM86"."""
    return "SM" + capability.replace(".", "")


def _has_half(model: ModelProto) -> bool:
    stored = any(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    ends = any(
        value.type.tensor_type.elem_type == TensorProto.FLOAT16 for value in (*model.graph.input, *model.graph.output)
    )
    casts = any(
        node.op_type == "Cast" and any(item.name == "to" and item.i == TensorProto.FLOAT16 for item in node.attribute)
        for node in model.graph.node
    )
    return stored or ends or casts
