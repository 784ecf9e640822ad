"""The form of a quantised model that a DLA takes before TensorRT 11: no Q/DQ, scales in a calibration cache.

The deep-learning accelerators of Xavier and Orin read their int8 scales per tensor from a calibration cache, and want a
graph of floats with static shapes (TensorRT documentation, "DLA Supported Layers and Restrictions";
NVIDIA-AI-IOT/cuDLA-samples). From 11.4.1 on they take the Q/DQ graph itself, which the parser adjusts (ADJUST_FOR_DLA),
and only the static shapes remain.
"""

from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, numpy_helper

from exporters import graph
from exporters.errors import ExportError
from exporters.passes import drop_unused

LARGEST_BATCH = 4096
LARGEST_DIMENSION = 8192


@dataclass(frozen=True)
class Stripped:
    """A model of floats and the scales that its Q/DQ pairs had.

    Attributes:
        model: no QuantizeLinear, no DequantizeLinear; weights carry the rounding that quantisation gave them.
        scales: tensor of the graph -> scale of its int8 codes.
        unscaled: tensors that layers make and no pair named a scale for: the DLA runs their layers in half precision.
    """

    model: ModelProto
    scales: dict[str, float]
    unscaled: tuple[str, ...]


def strip(model: ModelProto) -> Stripped:
    """Take every Q/DQ pair out and remember its scale.

    A pair on an activation gives its scale to the tensor that it read. Where two pairs read one tensor with different
    scales the larger one is kept: it covers both. A weight is stored as the floats that its codes stood for.

    Raises:
        ExportError: a pair has a zero point other than 0, or a scale that is no constant.
    """
    model = graph.copy(model)
    main = model.graph
    known = graph.constants(main)
    scales: dict[str, float] = {}
    renamed: dict[str, str] = {}
    dropped = []
    for node in main.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if node.input[1] not in known:
            raise ExportError(
                f"the scale of {node.name!r} is computed in the graph, and a DLA wants constants",
                fix="calibrate static scales instead of dynamic quantisation",
            )
        if len(node.input) > 2 and node.input[2]:
            _check_zero(node.name, known.get(node.input[2]))
        source = renamed.get(node.input[0], node.input[0])
        step = graph.array(known[node.input[1]]).astype(np.float32)
        if node.op_type == "DequantizeLinear" and source in known and known[source].data_type != 1:
            name = f"{node.output[0]}_stored"
            codes = graph.array(known[source]).astype(np.float32)
            axis = graph.attribute(node, "axis", 1)
            if step.size > 1:
                step = step.reshape([-1 if index == axis % codes.ndim else 1 for index in range(codes.ndim)])
            main.initializer.append(numpy_helper.from_array((codes * step).astype(np.float32), name))
            source = name
        elif node.op_type == "QuantizeLinear":
            if step.size != 1:
                raise ExportError(
                    f"{node.name!r} quantises an activation per channel, which no DLA does", fix="use one scale for it"
                )
            scales[source] = max(scales.get(source, 0.0), float(step.reshape(())))
        renamed[node.output[0]] = source
        dropped.append(node)
    outputs = {value.name for value in main.output}
    graph.remove_nodes(main, dropped)
    for node in main.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
    _keep_outputs(model, renamed, outputs, scales)
    stripped = drop_unused.apply(model)
    made = {name for node in stripped.graph.node for name in node.output if name}
    return Stripped(stripped, scales, tuple(sorted(made - set(scales) - outputs)))


def fix_batch(model: ModelProto, batch: int) -> ModelProto:
    """The same model with its first, dynamic dimension set to `batch`.

    Raises:
        ExportError: another dimension is dynamic, or larger than a DLA takes.
    """
    if not 1 <= batch <= LARGEST_BATCH:
        raise ExportError(f"a DLA takes batches of 1 to {LARGEST_BATCH}, not {batch}", fix="choose another batch")
    model = graph.copy(model)
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = batch
    for value in model.graph.input:
        for index, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                raise ExportError(
                    f"dimension {index} of {value.name!r} is dynamic ({dim.dim_param or '?'}); a DLA wants it fixed",
                    fix="export it with a fixed shape",
                )
            if index > 0 and dim.dim_value > LARGEST_DIMENSION:
                raise ExportError(
                    f"dimension {index} of {value.name!r} is {dim.dim_value}; a DLA takes up to {LARGEST_DIMENSION}",
                    fix="split it, or run the model on the GPU",
                )
    del model.graph.value_info[:]  # shapes of the old batch
    return model


def _check_zero(name: str, zero: object) -> None:
    if zero is None or (graph.array(zero).astype(np.int64) != 0).any():  # type: ignore[arg-type]
        raise ExportError(
            f"{name!r} has a zero point that is not a constant 0; a DLA's scales are symmetric",
            fix="train with the quantizer 'tensorrt'",
        )


def _keep_outputs(model: ModelProto, renamed: dict[str, str], outputs: set[str], scales: dict[str, float]) -> None:
    """An output that a DequantizeLinear made keeps its name: the tensor that was quantised takes it."""
    for name in sorted(outputs & set(renamed)):
        source = renamed[name]
        for node in model.graph.node:
            for index, made in enumerate(node.output):
                if made == source:
                    node.output[index] = name
            for index, read in enumerate(node.input):
                if read == source:
                    node.input[index] = name
        if source in scales:
            scales[name] = scales.pop(source)
