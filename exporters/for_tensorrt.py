"""The form of a model that TensorRT's parser takes, and the rules that it must keep.

The exported file stays as it is (onnxruntime and the C exporter read that one); builders of TensorRT engines write this
form of it. The rules are checked here because the parser's answer names neither the rule nor a way out, accepts some
breaches silently, and crashes on one of them.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from exporters import check_onnx, graph
from exporters.errors import ExportError
from exporters.passes import bias_to_float, drop_unused, fold_weight_quantizers, name_nodes, stft_to_matmul

Profile = dict[str, list[list[int]]]
"""Input name -> [smallest, typical, largest] shape."""


def prepare(path: Path) -> ModelProto:
    """Read the model and rewrite it for TensorRT.

    Raises:
        ExportError: the file cannot be used, or breaks a rule that no rewrite mends.
    """
    model = check_onnx.load(path)
    for rewrite in (
        name_nodes.apply,
        stft_to_matmul.apply,
        bias_to_float.apply,
        fold_weight_quantizers.apply,
        drop_unused.apply,
    ):
        model = rewrite(model)
    check_rules(model)
    return model


def check_rules(model: ModelProto) -> None:
    """Refuse quantisation that TensorRT refuses, or accepts and gets wrong.

    Rules (TensorRT documentation, "Working with Quantized Types", and NvOnnxParser.h): constant scales, since a
    computed one ends the builder process with a segmentation fault (TensorRT-RTX 1.7.1); symmetric, so every zero
    point is 0; int8, not int32, behind DequantizeLinear; scales positive and finite, since infinity is accepted
    silently; weights per output channel.

    Raises:
        ExportError: names the node and the rule.
    """
    known = graph.constants(model.graph)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            _check_quantizer(node, known)
        if node.op_type in ("DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"):
            raise ExportError(
                f"node {node.name!r} is {node.op_type}, which TensorRT does not have",
                fix="quantise with QuantizeLinear/DequantizeLinear pairs (the quantizer 'tensorrt')",
            )


def weighted_nodes(model: ModelProto) -> tuple[list[str], list[str]]:
    """Names of the nodes with weights, and of those whose data and weights both come from DequantizeLinear."""
    makers = graph.producers(model.graph)
    weighted = [node for node in model.graph.node if node.op_type in graph.WEIGHTED]
    quantised = [
        node.name
        for node in weighted
        if all(name in makers and makers[name].op_type == "DequantizeLinear" for name in node.input[:2])
    ]
    return [node.name for node in weighted], quantised


def profile(model: ModelProto, batches: tuple[int, int, int], shapes: Mapping[str, tuple[int, ...]]) -> Profile:
    """Shapes of the optimisation profile: one entry per input with a dynamic dimension.

    Args:
        model: the model; its first dimension is the batch where it is dynamic.
        batches: smallest, typical, largest batch.
        shapes: input -> shape without the batch, for inputs with other dynamic dimensions.

    Raises:
        ExportError: a dynamic dimension that nothing gives a size to.
    """
    fixed = {tensor.name for tensor in model.graph.initializer}
    made: Profile = {}
    for value in model.graph.input:
        if value.name in fixed:
            continue
        dims = [d.dim_value if d.HasField("dim_value") else -1 for d in value.type.tensor_type.shape.dim]
        if -1 not in dims:
            continue
        rest = list(shapes.get(value.name, tuple(dims[1:])))
        if -1 in rest or len(rest) != len(dims) - 1:
            raise ExportError(
                f"input {value.name!r} has dynamic dimensions besides the batch: {dims}",
                fix="give its shape without the batch in BuildOptions.shapes, or export it with static shapes",
            )
        made[value.name] = [[batch if dims[0] == -1 else dims[0], *rest] for batch in batches]
    return made


def _check_quantizer(node: NodeProto, known: Mapping[str, TensorProto]) -> None:
    if node.input[1] not in known:
        raise ExportError(
            f"the scale of {node.name!r} is computed in the graph, and TensorRT wants constants",
            fix="calibrate static scales instead of dynamic quantisation",
        )
    scale = graph.array(known[node.input[1]]).astype(np.float64)
    if not np.isfinite(scale).all() or (scale <= 0).any():
        raise ExportError(
            f"the scale of {node.name!r} is not positive and finite",
            fix="export again with simplify=True, which floors the scales of dead channels",
        )
    if len(node.input) > 2 and node.input[2]:
        if node.input[2] not in known:
            raise ExportError(
                f"the zero point of {node.name!r} is computed in the graph", fix="calibrate static ranges"
            )
        zero = known[node.input[2]]
        if (graph.array(zero).astype(np.float64) != 0).any():
            raise ExportError(
                f"{node.name!r} has a zero point that is not 0; TensorRT takes symmetric quantisation only",
                fix="train with the quantizer 'tensorrt' instead of an asymmetric one",
            )
    data = known.get(node.input[0])
    if (
        node.op_type == "DequantizeLinear"
        and data is not None
        and data.data_type
        not in (
            TensorProto.INT8,
            TensorProto.UINT8,
        )
    ):
        kind = TensorProto.DataType.Name(data.data_type)
        raise ExportError(
            f"{node.name!r} dequantises {kind}; TensorRT takes int8 there", fix="keep that tensor in float"
        )
