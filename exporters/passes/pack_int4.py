"""Store four-bit weights two to a byte, laid out as the product reads them.

An exporter without four-bit tensors of its own writes int8 -> Cast to int4 -> DequantizeLinear, and a linear layer's
weight is transposed behind that. TensorRT wants an int4 constant (it refuses the Cast), and runtimes fuse a
dequantiser with the product that reads it directly (onnxruntime: MatMulNBits).

Requires: int8 constants of -8..7 behind the Cast; opset 21.
Ensures: no Cast to int4 of a constant is left; a transposition between a blocked dequantiser of a constant matrix and
its readers is done on codes and scales instead, with the block axis moved. The same outputs, bit for bit.
"""

import ml_dtypes
import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters import graph
from exporters.errors import ExportError
from exporters.passes import drop_unused

LARGEST_CHANGE = 0.0  # bit for bit


def apply(model: ModelProto) -> ModelProto:
    """A model whose four-bit weights are packed."""
    model = graph.copy(model)
    main = model.graph
    known = graph.constants(main)
    outputs = {value.name for value in main.output}
    gone: list[NodeProto] = []
    for node in main.node:
        if node.op_type != "Cast" or graph.attribute(node, "to", 0) != TensorProto.INT4:
            continue
        if node.input[0] not in known or known[node.input[0]].data_type != TensorProto.INT8:
            continue
        codes = graph.array(known[node.input[0]]).astype(np.int16)
        if codes.min(initial=0) < -8 or codes.max(initial=0) > 7:
            raise ExportError(
                f"the weight {node.input[0]!r} has codes outside -8..7", fix="quantise it with 'int4_weights'"
            )
        packed = numpy_helper.from_array(codes.astype(ml_dtypes.int4), node.output[0])
        main.initializer.append(packed)
        known[node.output[0]] = packed
        gone.append(node)
    graph.remove_nodes(main, gone)
    makers = graph.producers(main)
    for node in main.node:
        source = makers.get(node.input[0]) if node.op_type == "Transpose" and node.input else None
        if source is None or source.op_type != "DequantizeLinear" or node.output[0] in outputs:
            continue
        codes_tensor, scale = known.get(source.input[0]), known.get(source.input[1])
        if codes_tensor is None or codes_tensor.data_type != TensorProto.INT4 or scale is None:
            continue
        order = next((list(item.ints) for item in node.attribute if item.name == "perm"), [1, 0])
        if order != [1, 0] or len(source.input) > 2 or len(scale.dims) != 2:
            continue
        names = [_transposed(main, tensor) for tensor in (codes_tensor, scale)]
        node.op_type = "DequantizeLinear"
        node.name = source.name or node.name
        node.input[:] = names
        del node.attribute[:]
        block = graph.attribute(source, "block_size", 0)
        axis = 1 - graph.attribute(source, "axis", 1) % 2
        node.attribute.extend([helper.make_attribute("axis", axis), helper.make_attribute("block_size", block)])
    return drop_unused.apply(model)


def _transposed(main: GraphProto, tensor: TensorProto) -> str:
    """The name of a matrix's transpose, stored once."""
    name = f"{tensor.name}_transposed"
    if not any(found.name == name for found in main.initializer):
        array = np.ascontiguousarray(numpy_helper.to_array(tensor).T)
        main.initializer.append(numpy_helper.from_array(array, name))
    return name
