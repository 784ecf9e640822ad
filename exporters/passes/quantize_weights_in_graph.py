"""Store weights as floats behind QuantizeLinear: the form that TensorRT 8 takes, the reverse of fold_weight_quantizers.

Its parser refuses constants of int8 ("invalid weights type of Int8", megvii-research/Sparsebit#16 with 8.0 and 8.2),
so there a weight is float -> QuantizeLinear -> DequantizeLinear. From 10 on both forms are taken, and the small one is
kept.

Requires: DequantizeLinear whose data are stored as int8, with constant scales and zero points of 0.
Ensures: the same codes at the same DequantizeLinear, so the same outputs bit for bit: a code times its scale, divided
by that scale, differs from the code by far less than one half, and is rounded back to it.
"""

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters import graph
from exporters.passes import drop_unused

LARGEST_CHANGE = 0.0  # bit for bit


def apply(model: ModelProto) -> ModelProto:
    """A model without int8 constants but zero points."""
    model = graph.copy(model)
    main = model.graph
    known = graph.constants(main)
    made: list[NodeProto] = []
    nodes = list(main.node)
    taken = {name for node in nodes for name in (*node.input, *node.output)}
    for node in nodes:
        data = known.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        scale = known.get(node.input[1]) if data is not None else None
        if data is None or scale is None or data.data_type != TensorProto.INT8:
            continue
        if graph.attribute(node, "block_size", 0):
            continue
        axis = graph.attribute(node, "axis", 1)
        codes, steps = graph.array(data).astype(np.float32), graph.array(scale).astype(np.float32)
        if steps.size > 1:
            steps = steps.reshape([-1 if index == axis % codes.ndim else 1 for index in range(codes.ndim)])
        else:
            steps = steps.reshape(())
        name = _fresh(f"{data.name}_float", taken)
        main.initializer.append(numpy_helper.from_array((codes * steps).astype(np.float32), name))
        zero = node.input[2] if len(node.input) > 2 and node.input[2] else _zero(main, scale, data, taken)
        quantised = _fresh(f"{data.name}_codes", taken)
        quantizer = helper.make_node(
            "QuantizeLinear",
            [name, node.input[1], zero],
            [quantised],
            name=_fresh(f"{node.name}_codes", taken),
            axis=axis,
        )
        quantizer.metadata_props.extend(node.metadata_props)
        made.append(quantizer)
        node.input[0] = quantised
    del main.node[:]
    main.node.extend([*made, *nodes])
    return drop_unused.apply(model)


def _zero(main: object, scale: TensorProto, data: TensorProto, taken: set[str]) -> str:
    name = _fresh(f"{data.name}_zero", taken)
    zeros = np.zeros(graph.array(scale).shape, np.int8)
    main.initializer.append(numpy_helper.from_array(zeros, name))  # type: ignore[attr-defined]
    return name


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
