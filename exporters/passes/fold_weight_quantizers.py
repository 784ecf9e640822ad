"""Store weights as int8: replace QuantizeLinear of a constant by its result.

Fake quantisation leaves float weight -> QuantizeLinear -> DequantizeLinear. Storing the codes makes the file four times
smaller, and makes the rounding ours instead of each runtime's.

Requires: the quantiser's data, scale and zero point are constants; scales are positive and finite.
Ensures: the same codes as ONNX defines them (round half to even, then saturate to the type's range), so the same
outputs bit for bit. QuantizeLinear of anything computed stays, and so does blocked or 4-bit or float8 quantisation.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from exporters import graph

LARGEST_CHANGE = 0.0  # bit for bit

RANGES: dict[int, tuple[int, int, type[np.generic]]] = {
    TensorProto.INT8: (-128, 127, np.int8),
    TensorProto.UINT8: (0, 255, np.uint8),
}


def apply(model: ModelProto) -> ModelProto:
    """A model whose constant tensors are stored quantised."""
    model = graph.copy(model)
    main = model.graph
    known = graph.constants(main)
    outputs = {value.name for value in main.output}
    folded: list[NodeProto] = []
    for node in main.node:
        if node.op_type != "QuantizeLinear" or node.domain not in graph.STANDARD_DOMAINS:
            continue
        if node.output[0] in outputs or graph.attribute(node, "block_size", 0):
            continue
        if not all(name in known for name in node.input if name):
            continue
        zero = known.get(node.input[2]) if len(node.input) > 2 else None
        kind = TensorProto.UINT8 if zero is None else zero.data_type
        if zero is None and graph.attribute(node, "output_dtype", 0):
            kind = graph.attribute(node, "output_dtype", 0)
        if kind not in RANGES:
            continue
        data = graph.array(known[node.input[0]]).astype(np.float32)
        scale = graph.array(known[node.input[1]]).astype(np.float32)
        shift = np.zeros_like(scale) if zero is None else graph.array(zero).astype(np.float32)
        axis = graph.attribute(node, "axis", 1)
        stored = quantize(data, scale, shift, axis, kind)
        main.initializer.append(numpy_helper.from_array(stored, node.output[0]))
        folded.append(node)
    graph.remove_nodes(main, folded)
    return model


def quantize(
    data: NDArray[np.float32], scale: NDArray[np.float32], zero: NDArray[np.float32], axis: int, kind: int
) -> NDArray[np.generic]:
    """Codes of `data` as ONNX's QuantizeLinear gives them.

    Args:
        data: any shape.
        scale: scalar, or one per index of `axis`; > 0.
        zero: zero points, of the scale's shape.
        axis: the axis that per-channel scales run along.
        kind: TensorProto.INT8 or TensorProto.UINT8.
    """
    low, high, numpy_type = RANGES[kind]
    if scale.ndim == 1 and scale.size > 1:
        shape = [1] * data.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    codes = np.clip(np.rint(data / scale) + zero, low, high).astype(numpy_type)
    return np.ascontiguousarray(codes.reshape(data.shape))
