"""Shapes, types and constants of a graph: what `View` looks up."""

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

SMALL = 1024  # elements of a constant that shape inference may need to see (shapes, axes, pads)


def constant_of(node: NodeProto) -> TensorProto | None:
    """The value of a Constant node that holds numbers instead of a tensor; None for any other."""
    for item in node.attribute:
        if item.name in ("value_float", "value_floats"):
            values = [item.f] if item.name == "value_float" else list(item.floats)
            kind = TensorProto.FLOAT
        elif item.name in ("value_int", "value_ints"):
            values = [item.i] if item.name == "value_int" else list(item.ints)
            kind = TensorProto.INT64
        else:
            continue
        shape = [] if item.name in ("value_float", "value_int") else [len(values)]
        return helper.make_tensor(node.output[0], kind, shape, values)
    return None


def infer(model: ModelProto) -> tuple[dict[str, tuple[int | str, ...]], dict[str, int]]:
    """Shapes and types by name. Large constants are left out: inference needs only their shapes."""
    light = ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    main = light.graph
    main.name = model.graph.name or "g"
    main.node.extend(model.graph.node)
    given = {tensor.name for tensor in model.graph.initializer}
    main.input.extend(value for value in model.graph.input if value.name not in given)
    main.output.extend(model.graph.output)
    main.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims, dtype=np.int64)) <= SMALL:
            main.initializer.add().CopyFrom(tensor)
        else:
            main.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    try:
        inferred = onnx.shape_inference.infer_shapes(light).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        inferred = main
    shapes: dict[str, tuple[int | str, ...]] = {}
    types: dict[str, int] = {}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        tensor_type = value.type.tensor_type
        types[value.name] = int(tensor_type.elem_type)
        if tensor_type.HasField("shape"):
            shapes[value.name] = tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor_type.shape.dim
            )
    return shapes, types
