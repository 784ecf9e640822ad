"""Store dequantised constant biases as float32.

Some quantisers keep the bias as int32 behind DequantizeLinear, with scale = input scale * weight scale. TensorRT's
parser refuses int32 there; its own kernels take a float bias.

Requires: the DequantizeLinear's inputs are constants.
Ensures: every DequantizeLinear of constant int32 data is a float32 initializer with the values that ONNX defines,
(data - zero point) * scale: the same outputs bit for bit.
"""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from exporters import graph

LARGEST_CHANGE = 0.0  # bit for bit


def apply(model: ModelProto) -> ModelProto:
    """A model without int32 behind DequantizeLinear."""
    model = graph.copy(model)
    main = model.graph
    known = graph.constants(main)
    outputs = {value.name for value in main.output}
    folded: list[NodeProto] = []
    for node in main.node:
        if node.op_type != "DequantizeLinear" or node.output[0] in outputs:
            continue
        if not all(name in known for name in node.input if name):
            continue
        if known[node.input[0]].data_type != TensorProto.INT32:
            continue
        codes = graph.array(known[node.input[0]])
        scale = graph.array(known[node.input[1]]).astype(np.float32)
        if scale.ndim == 1 and scale.size > 1:
            shape = [1] * codes.ndim
            shape[graph.attribute(node, "axis", 1)] = -1
            scale = scale.reshape(shape)
        # An int32 has no zero point but 0 (ONNX, DequantizeLinear).
        values = codes.astype(np.float32) * scale
        main.initializer.append(numpy_helper.from_array(values.astype(np.float32), node.output[0]))
        folded.append(node)
    graph.remove_nodes(main, folded)
    return model
