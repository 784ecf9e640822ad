"""A half-precision graph for a runtime without such kernels: computed in float32, every tensor rounded.

onnxruntime's CPU provider computes fp16 in float32 too, but drops the rounding between two such nodes (measured with
1.31: the square of 600 passes through fp16 as 360000), so it shows no overflow; bf16 it mostly refuses. This form is
what a device computes, and runs anywhere.
"""

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters import graph, large
from exporters.half.formats import HalfFormat


def in_float32(model: ModelProto, half: HalfFormat) -> ModelProto:
    """The model with float32 in place of `half`, and two Casts (there and back) behind each node that computed in it.

    Every tensor holds exactly what a kernel with a float32 accumulator and one final rounding gives. The result's
    inputs and outputs are float32.
    """
    twin = graph.copy(model)
    main = twin.graph
    inferred = large.infer_shapes(model)
    values = (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info)
    halves = {value.name for value in values if value.type.tensor_type.elem_type == half.onnx_type}
    for tensor in main.initializer:
        if tensor.data_type == half.onnx_type:
            halves.discard(tensor.name)
            tensor.CopyFrom(numpy_helper.from_array(graph.array(tensor).astype(np.float32), tensor.name))
    for value in (*main.input, *main.output):
        if value.type.tensor_type.elem_type == half.onnx_type:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    del main.value_info[:]
    written: list[NodeProto] = []
    for node in main.node:
        written.append(node)
        for item in node.attribute:
            if item.type == onnx.AttributeProto.TENSOR and item.t.data_type == half.onnx_type:
                item.t.CopyFrom(numpy_helper.from_array(graph.array(item.t).astype(np.float32), item.t.name))
            if node.op_type == "Cast" and item.name == "to" and item.i == half.onnx_type:
                item.i = TensorProto.FLOAT
        for position, name in enumerate(node.output):
            if name in halves:
                exact, rounded = f"{name}/exact", f"{name}/rounded"
                node.output[position] = exact
                written.append(helper.make_node("Cast", [exact], [rounded], to=half.onnx_type))
                written.append(helper.make_node("Cast", [rounded], [name], to=TensorProto.FLOAT))
    graph.replace_nodes(main, written)
    return twin
