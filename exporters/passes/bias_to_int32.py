"""Store biases as the int32 that integer kernels add, behind DequantizeLinear.

onnxruntime turns a layer whose output is quantised into an integer kernel with any constant bias, but one with a float
output (the last layer, mostly) only where the bias already stands there as int32 of scale = input scale * weight
scale. TensorRT refuses such a bias: for onnxruntime only.

Requires: biases that lie on that grid, as `compress.qat.bias_grid` leaves them; others stay float.
Ensures: every Conv and Gemm between DequantizeLinear nodes has its bias behind one, too; values as before, up to the
rounding of a float product.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters import graph

LARGEST_CHANGE = 1e-6
OFF_GRID = 0.01  # of a step; float32 holds a bias on the grid to 2^-24 of itself
LARGEST_CODE = 2**30


def apply(model: ModelProto) -> ModelProto:
    """A model whose quantised layers have quantised biases."""
    model = graph.copy(model)
    main = model.graph
    known, makers = graph.constants(main), graph.producers(main)
    placed: list[NodeProto] = []
    for node in main.node:
        scale = _scale(node, makers, known)
        if scale is not None and len(node.input) > 2 and node.input[2] in known:
            bias = graph.array(known[node.input[2]]).astype(np.float64)
            codes = bias / scale
            rounded = np.rint(codes)
            fits = np.abs(rounded).max(initial=0) <= LARGEST_CODE
            near = np.abs(codes - rounded) <= OFF_GRID + np.abs(codes) * 2.0**-22
            if bias.ndim == 1 and fits and bool(near.all()):
                placed.append(_dequantized(main, node, rounded, np.broadcast_to(scale, bias.shape)))
        placed.append(node)
    graph.replace_nodes(main, placed)
    return model


def _scale(
    node: NodeProto, makers: Mapping[str, NodeProto], known: Mapping[str, TensorProto]
) -> NDArray[np.float32] | None:
    """Input scale * weight scale, () or (C,); None where either is not a constant behind DequantizeLinear."""
    if node.op_type not in ("Conv", "Gemm") or any(a.name in ("alpha", "beta") and a.f != 1.0 for a in node.attribute):
        return None
    scales = []
    for name in node.input[:2]:
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear" or maker.input[1] not in known:
            return None
        scales.append(graph.array(known[maker.input[1]]).astype(np.float32))
    if scales[0].size != 1:
        return None
    return (scales[0].reshape(()) * scales[1]).astype(np.float32)


def _dequantized(
    main: GraphProto, node: NodeProto, codes: NDArray[np.float64], scale: NDArray[np.float32]
) -> NodeProto:
    """Point the node's bias at a new DequantizeLinear, which is returned."""
    name = f"{node.name}_bias"
    main.initializer.append(numpy_helper.from_array(codes.astype(np.int32), f"{name}_codes"))
    main.initializer.append(numpy_helper.from_array(np.ascontiguousarray(scale), f"{name}_scale"))
    made = helper.make_node(
        "DequantizeLinear", [f"{name}_codes", f"{name}_scale"], [f"{name}_dequantized"], name=name, axis=0
    )
    made.metadata_props.extend(node.metadata_props)
    node.input[2] = made.output[0]
    return made
