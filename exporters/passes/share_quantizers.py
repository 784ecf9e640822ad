"""Let equal QuantizeLinear (and DequantizeLinear) nodes of one tensor be one node.

A quantiser annotates consumers, so a tensor that three layers read may be quantised three times with one scale. One
pair lets a runtime see that the readers share their input.

Requires: a valid graph.
Ensures: no two quantise or dequantise nodes have the same input, equal constant scales and zero points (compared by
value) and equal attributes; the same outputs, bit for bit.
"""

from onnx import ModelProto, NodeProto, TensorProto

from exporters import graph

LARGEST_CHANGE = 0.0  # bit for bit

Key = tuple[str, str, str, str, bytes]


def apply(model: ModelProto) -> ModelProto:
    """A model in which each quantised tensor is quantised once per scale."""
    model = graph.copy(model)
    main = model.graph
    known = graph.constants(main)
    outputs = {value.name for value in main.output}
    renamed: dict[str, str] = {}
    first: dict[Key, NodeProto] = {}
    dropped: list[NodeProto] = []
    for node in main.node:
        for index, name in enumerate(node.input):
            if name in renamed:
                node.input[index] = renamed[name]
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.output[0] in outputs:
            continue
        key = _key(node, known)
        if key in first:
            renamed[node.output[0]] = first[key].output[0]
            dropped.append(node)
        else:
            first[key] = node
    graph.remove_nodes(main, dropped)
    return model


def _key(node: NodeProto, known: dict[str, TensorProto]) -> Key:
    scale, zero = node.input[1], node.input[2] if len(node.input) > 2 else ""
    attributes = NodeProto()
    attributes.attribute.extend(sorted(node.attribute, key=lambda item: str(item.name)))
    return (
        node.op_type,
        node.input[0],
        _value(scale, known),
        _value(zero, known),
        attributes.SerializeToString(deterministic=True),
    )


def _value(name: str, known: dict[str, TensorProto]) -> str:
    if name not in known:
        return f"tensor {name}"
    array = graph.array(known[name])
    return f"value {array.dtype} {array.shape} {array.tobytes().hex()}"
