"""Write a mean over all spatial axes as GlobalAveragePool.

Torch's adaptive average pool to 1x1 arrives as ReduceMean. Runtimes have integer kernels for GlobalAveragePool and
none for ReduceMean.

Requires: ReduceMean with keepdims over constant axes.
Ensures: every ReduceMean over exactly the axes 2..rank-1 of a tensor of known rank >= 3 is a GlobalAveragePool with
the same mathematical value (the order of additions may differ, so float32 rounding may).
"""

from onnx import ModelProto, NodeProto, TensorProto, helper

from exporters import graph


def apply(model: ModelProto) -> ModelProto:
    """A model with global pools."""
    model = graph.copy(model)
    main = model.graph
    known = graph.constants(main)
    shapes = graph.shapes(model)
    for index, node in enumerate(main.node):
        if node.op_type != "ReduceMean" or not graph.attribute(node, "keepdims", 1):
            continue
        shape = shapes.get(node.input[0])
        if shape is None or len(shape) < 3:
            continue
        axes = _axes(node, known)
        if axes is None or sorted(axis % len(shape) for axis in axes) != list(range(2, len(shape))):
            continue
        pool = helper.make_node("GlobalAveragePool", [node.input[0]], [node.output[0]], name=node.name)
        pool.metadata_props.extend(node.metadata_props)
        main.node[index].CopyFrom(pool)
    return model


def _axes(node: NodeProto, known: dict[str, TensorProto]) -> list[int] | None:
    for item in node.attribute:
        if item.name == "axes":  # opset 17 and older
            return [int(axis) for axis in item.ints]
    if len(node.input) > 1 and node.input[1] in known:
        return [int(axis) for axis in graph.array(known[node.input[1]]).ravel()]
    return None
