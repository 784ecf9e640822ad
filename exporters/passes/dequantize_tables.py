"""Dequantise a table in front of the lookup: the order that TensorRT takes, the reverse of gather_codes.

Its builder refuses a lookup in codes ("Quantized constant is only allowed before DQ", TensorRT-RTX 1.7). A table that
is dequantised first stays int8 in the engine: one kernel reads the codes of the rows that are asked for and scales
them (build log for compute capability 8.0: 3.9 MB of weights for 30,522 rows of 128).

Requires: a lookup along axis 0 in a stored matrix of codes, read by one DequantizeLinear whose scale and zero point are
constants, one of each or one per column.
Ensures: the same outputs bit for bit.
"""

from onnx import ModelProto, NodeProto, TensorProto, helper

from exporters import graph

LARGEST_CHANGE = 0.0  # bit for bit
CODES = (TensorProto.INT8, TensorProto.UINT8)


def apply(model: ModelProto) -> ModelProto:
    """A model whose lookups read numbers."""
    model = graph.copy(model)
    main = model.graph
    known, readers = graph.constants(main), graph.consumers(main)
    outputs = {value.name for value in main.output}
    nodes: list[NodeProto] = []
    gone: set[str] = set()
    for node in main.node:
        if node.output[0] in gone:
            continue
        behind = _behind(node, known, readers, outputs)
        if behind is not None:
            numbers = f"{node.input[0]}_numbers_{behind.output[0]}"
            before = helper.make_node(
                "DequantizeLinear",
                [node.input[0], *behind.input[1:]],
                [numbers],
                name=f"{node.name}_table",
                axis=1,
            )
            before.metadata_props.extend(behind.metadata_props)
            nodes.append(before)
            gone.add(behind.output[0])
            node.input[0], node.output[0] = numbers, behind.output[0]
        nodes.append(node)
    graph.replace_nodes(main, nodes)
    return model


def _behind(
    node: NodeProto, known: dict[str, TensorProto], readers: dict[str, list[NodeProto]], outputs: set[str]
) -> NodeProto | None:
    """The dequantiser of a lookup in codes."""
    table = known.get(node.input[0]) if node.op_type == "Gather" else None
    if table is None or table.data_type not in CODES or len(table.dims) != 2 or node.output[0] in outputs:
        return None
    found = readers.get(node.output[0], [])
    if graph.attribute(node, "axis", 0) != 0 or len(found) != 1 or found[0].op_type != "DequantizeLinear":
        return None
    return found[0] if all(name in known for name in found[0].input[1:] if name) else None
