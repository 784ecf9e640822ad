"""Remove nodes that hand their input on: Identity, Dropout at inference, Cast to the type it already is.

Training leaves them behind (Dropout, Identity where a module was replaced), and a quantise/dequantise pair is only
recognised by runtimes where it stands directly at its layer.

Requires: a valid graph.
Ensures: the same outputs, bit for bit, under the same names. Identities between a graph input and a graph output stay
(an output needs a node of its own), and so does Dropout whose mask is read.
"""

import onnx
from onnx import ModelProto, NodeProto

from exporters import graph, large

LARGEST_CHANGE = 0.0  # bit for bit


def apply(model: ModelProto) -> ModelProto:
    """A model without such nodes."""
    model = graph.copy(model)
    main = model.graph
    outputs = {value.name for value in main.output}
    inputs = {value.name for value in main.input}
    types = _types(model)
    for node in list(main.node):
        if not _hands_on(node, main, types, outputs):
            continue
        source, result = node.input[0], node.output[0]
        if result not in outputs:
            graph.remove_nodes(main, [node])
            graph.rename_input(main, result, source)
        elif source not in outputs and source not in inputs and source in graph.producers(main):
            graph.remove_nodes(main, [node])
            _rename_tensor(model, source, result)
    return model


def _hands_on(node: NodeProto, main: onnx.GraphProto, types: dict[str, int], outputs: set[str]) -> bool:
    if node.domain not in graph.STANDARD_DOMAINS:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Dropout":
        if len(node.input) > 2 and node.input[2]:
            mode = graph.constants(main).get(node.input[2])
            if mode is None or bool(graph.array(mode)):
                return False
        mask = node.output[1] if len(node.output) > 1 else ""
        return not mask or (mask not in outputs and mask not in graph.consumers(main))
    if node.op_type == "Cast":
        return types.get(node.input[0]) == graph.attribute(node, "to", 0)
    return False


def _types(model: ModelProto) -> dict[str, int]:
    inferred = large.infer_shapes(model)
    known = {tensor.name: tensor.data_type for tensor in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        known[value.name] = value.type.tensor_type.elem_type
    return known


def _rename_tensor(model: ModelProto, old: str, new: str) -> None:
    main = model.graph
    graph.rename_input(main, old, new)
    for node in main.node:
        for index, name in enumerate(node.output):
            if name == old:
                node.output[index] = new
    kept = [value for value in main.value_info if value.name not in (old, new)]
    del main.value_info[:]
    main.value_info.extend(kept)
