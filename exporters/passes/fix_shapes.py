"""Give every dimension a number.

NVIDIA's DLA takes static shapes only, one batch size per loadable (TensorRT documentation, "Working with DLA"), and so
do compilers for NPUs.

Requires: a size for every symbolic dimension of the inputs, or a default for the batch.
Ensures: inputs and outputs have numbers for shapes, every tensor's shape is a number where inference can tell, and a
shape that the graph computed from its inputs (Shape and what follows) is a constant. Same outputs, bit for bit, for
inputs of those sizes.

Raises ExportError naming the input and the dimension without a size.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters import graph, large
from exporters.errors import ExportError
from exporters.passes import drop_unused

LARGEST_CHANGE = 0.0  # bit for bit

# What a computed shape is made of; all of it on a few integers.
SHAPE_ARITHMETIC = frozenset(
    {"Add", "Cast", "Concat", "Div", "Equal", "Expand", "Floor", "Gather", "Identity", "Max", "Min", "Mod", "Mul"}
    | {"Range", "ReduceProd", "Reshape", "Size", "Slice", "Split", "Squeeze", "Sub", "Unsqueeze", "Where"}
    | {"ConstantOfShape", "Constant"}
)
SMALL = 1024  # elements; larger tensors are data, and folding them would grow the file


def apply(model: ModelProto, sizes: Mapping[str, int]) -> ModelProto:
    """The model for one set of sizes.

    Args:
        model: with symbolic dimensions, such as "batch".
        sizes: symbol -> size, > 0.
    """
    model = graph.copy(model)
    main = model.graph
    known = {tensor.name for tensor in main.initializer}
    for value in main.input:
        if value.name in known:
            continue
        for position, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                continue
            size = sizes.get(dim.dim_param, 0)
            if size <= 0:
                raise ExportError(
                    f"dimension {position} of input {value.name!r} ({dim.dim_param or 'without a name'}) has no size",
                    fix=f"give one: sizes={{{dim.dim_param or 'name'!r}: 1}}",
                )
            dim.dim_value = size
    for value in (*main.output, *main.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if sizes.get(dim.dim_param, 0) > 0:
                dim.dim_value = sizes[dim.dim_param]
    del main.value_info[:]
    _fold(model)
    model = drop_unused.apply(model)
    inferred = large.infer_shapes(model, data_prop=True)
    for value, found in zip(model.graph.output, inferred.graph.output, strict=True):
        value.CopyFrom(found)
    values = sorted(inferred.graph.value_info, key=lambda value: value.name)
    model.graph.value_info.extend(values)
    return model


def _fold(model: ModelProto) -> None:
    """Compute shapes, as far as they follow from the inputs'."""
    main = model.graph
    inferred = large.infer_shapes(model, data_prop=True)
    shapes: dict[str, list[int]] = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(dim.HasField("dim_value") for dim in dims):
            shapes[value.name] = [dim.dim_value for dim in dims]
    constants = graph.constants(main)
    for tensor in main.initializer:
        shapes[tensor.name] = list(tensor.dims)
    results = {value.name for value in main.output}
    values = {name: graph.array(t) for name, t in constants.items() if int(np.prod(t.dims)) <= SMALL}
    folded: list[NodeProto] = []
    for node in main.node:
        if node.op_type == "Constant" or any(name in results for name in node.output):
            continue
        found = _value(node, values, shapes, model)
        if found is not None:
            values.update(found)
            for name, array in found.items():
                main.initializer.append(numpy_helper.from_array(array, name))
            folded.append(node)
    graph.remove_nodes(main, folded)


def _value(
    node: NodeProto, values: Mapping[str, np.ndarray], shapes: Mapping[str, list[int]], model: ModelProto
) -> dict[str, np.ndarray] | None:
    """What a node of shape arithmetic gives; None where it is none, or its inputs are not known."""
    if node.op_type == "Shape" and node.input[0] in shapes:
        start = graph.attribute(node, "start", 0)
        end = next((item.i for item in node.attribute if item.name == "end"), None)
        return {node.output[0]: np.asarray(shapes[node.input[0]][start:end], np.int64)}
    if node.op_type not in SHAPE_ARITHMETIC or not all(name in values for name in node.input if name):
        return None
    single = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "one",
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in dict.fromkeys(node.input) if name],
            [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output],
        ),
        opset_imports=list(model.opset_import),
    )
    feed = {name: values[name] for name in node.input if name}
    arrays = ReferenceEvaluator(single).run(None, feed)
    made = {name: np.asarray(array) for name, array in zip(node.output, arrays, strict=True)}
    return made if all(array.size <= SMALL for array in made.values()) else None
