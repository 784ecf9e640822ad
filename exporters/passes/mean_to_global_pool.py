"""Write a mean over all spatial axes as GlobalAveragePool.

Torch's adaptive average pool to 1x1 arrives as ReduceMean. Runtimes have integer kernels for GlobalAveragePool and
none for ReduceMean.

Requires: ReduceMean over constant axes.
Ensures: every ReduceMean over exactly the axes 2..rank-1 of a tensor of known rank >= 3 is a GlobalAveragePool, with a
Flatten behind it where the axes were dropped, of the same mathematical value (the order of additions may differ, so
float32 rounding may). Where only a per-tensor QuantizeLinear reads the mean, the same pair stands between pool and
Flatten as well, because integer kernels are recognised by the pair directly behind the pool; quantising twice with one
scale changes nothing.
"""

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from exporters import graph

LARGEST_CHANGE = 1e-6  # relative, of the outputs: a sum in another order


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
        reader = _only_quantizer(main, node.output[0], known)
        if not kept and reader is not None:
            codes, pooled = (graph.fresh_name(main, f"{pooled}_{part}") for part in ("codes", "rounded"))
            parameters = list(reader.input[1:])
            made.append(
                helper.make_node("QuantizeLinear", [made[0].output[0], *parameters], [codes], name=f"{node.name}/q")
            )
            made.append(helper.make_node("DequantizeLinear", [codes, *parameters], [pooled], name=f"{node.name}/dq"))
        if not kept:
            made.append(helper.make_node("Flatten", [pooled], [node.output[0]], name=f"{node.name}/flatten", axis=1))
        for part in made:
            part.metadata_props.extend(node.metadata_props)
        nodes.extend(made)
    graph.replace_nodes(main, nodes)
    return model


def _only_quantizer(main: GraphProto, name: str, known: dict[str, TensorProto]) -> NodeProto | None:
    """The per-tensor QuantizeLinear that alone reads a tensor."""
    readers = graph.consumers(main).get(name, [])
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear" or name in {value.name for value in main.output}:
        return None
    scale = known.get(readers[0].input[1])
    return readers[0] if scale is not None and graph.array(scale).size == 1 and len(readers[0].input) == 3 else None


def _axes(node: NodeProto, known: dict[str, TensorProto]) -> list[int] | None:
    for item in node.attribute:
        if item.name == "axes":  # opset 17 and older
            return [int(axis) for axis in item.ints]
    if len(node.input) > 1 and node.input[1] in known:
        return [int(axis) for axis in graph.array(known[node.input[1]]).ravel()]
    return None
