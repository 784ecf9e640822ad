"""Write a mean over all spatial axes as GlobalAveragePool.

Torch's adaptive average pool to 1x1 arrives as ReduceMean. Runtimes have integer kernels for GlobalAveragePool and
none for ReduceMean.

Requires: ReduceMean over constant axes.
Ensures: every ReduceMean over exactly the axes 2..rank-1 of a tensor of known rank >= 3 is a GlobalAveragePool, with a
Flatten behind it where the axes were dropped, of the same mathematical value (the order of additions may differ, so
float32 rounding may).
"""

from onnx import ModelProto, NodeProto, TensorProto, helper

from exporters import graph


def apply(model: ModelProto) -> ModelProto:
    """A model with global pools."""
    model = graph.copy(model)
    main = model.graph
    known = graph.constants(main)
    shapes = graph.shapes(model)
    nodes: list[NodeProto] = []
    for node in main.node:
        shape = shapes.get(node.input[0]) if node.op_type == "ReduceMean" else None
        axes = _axes(node, known) if shape is not None and len(shape) >= 3 else None
        if shape is None or axes is None or sorted(axis % len(shape) for axis in axes) != list(range(2, len(shape))):
            nodes.append(node)
            continue
        kept = bool(graph.attribute(node, "keepdims", 1))
        pooled = node.output[0] if kept else graph.fresh_name(main, f"{node.output[0]}_pooled")
        made = [helper.make_node("GlobalAveragePool", [node.input[0]], [pooled], name=node.name)]
        if not kept:
            made.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}/flatten", axis=1))
        for part in made:
            part.metadata_props.extend(node.metadata_props)
        nodes.extend(made)
    graph.replace_nodes(main, nodes)
    return model


def _axes(node: NodeProto, known: dict[str, TensorProto]) -> list[int] | None:
    for item in node.attribute:
        if item.name == "axes":  # opset 17 and older
            return [int(axis) for axis in item.ints]
    if len(node.input) > 1 and node.input[1] in known:
        return [int(axis) for axis in graph.array(known[node.input[1]]).ravel()]
    return None
