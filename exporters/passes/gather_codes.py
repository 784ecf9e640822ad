"""Look codes up in a quantised table, and dequantise what was found: Gather first, DequantizeLinear behind it.

Quantisation leaves codes -> DequantizeLinear -> Gather. onnxruntime then turns the whole table into numbers for every
inference (9.4 ms for 30,522 rows of 128 on one thread, against 0.03 ms for the 32 rows that are read; onnxruntime 1.31,
measured). TensorRT takes only the other order: `passes/dequantize_tables.py` puts it back.

Requires: the table is stored as codes; its scale is one number or has one value per index of the last axis (so it is a
constant behind the lookup too); the lookup is along axis 0.
Ensures: the same outputs bit for bit: each value is the same code times the same scale. Tables whose numbers something
else reads as well keep their DequantizeLinear beside it.
"""

from onnx import ModelProto, NodeProto, TensorProto, helper

from exporters import graph
from exporters.passes import drop_unused

LARGEST_CHANGE = 0.0  # bit for bit
CODES = (TensorProto.INT8, TensorProto.UINT8)


def apply(model: ModelProto) -> ModelProto:
    """A model whose lookups read codes."""
    model = graph.copy(model)
    main = model.graph
    known, makers = graph.constants(main), graph.producers(main)
    nodes: list[NodeProto] = []
    shapes: dict[str, list[int | str]] = {}
    for node in main.node:
        nodes.append(node)
        table = makers.get(node.input[0]) if node.op_type == "Gather" else None
        if table is None or not _is_table(table, known) or graph.attribute(node, "axis", 0) != 0:
            continue
        shapes = shapes or graph.shapes(model)
        if node.input[1] not in shapes:
            continue
        found = node.output[0]
        codes = f"{found}_codes"
        node.input[0], node.output[0] = table.input[0], codes
        behind = helper.make_node(
            "DequantizeLinear",
            [codes, *table.input[1:]],
            [found],
            name=f"{node.name}_dequantized",
            axis=len(shapes[node.input[1]]),
        )
        behind.metadata_props.extend(node.metadata_props)
        nodes.append(behind)
    if len(nodes) == len(main.node):
        return model
    graph.replace_nodes(main, nodes)
    return drop_unused.apply(model)


def _is_table(node: NodeProto, known: dict[str, TensorProto]) -> bool:
    """A matrix of stored codes, dequantised by constants that hold for all of its rows."""
    if node.op_type != "DequantizeLinear" or not all(name in known for name in node.input if name):
        return False
    codes, scale = known[node.input[0]], known[node.input[1]]
    single = list(scale.dims) in ([], [1])
    by_column = len(scale.dims) == 1 and graph.attribute(node, "axis", 1) in (1, -1)
    plain = not graph.attribute(node, "block_size", 0)
    return codes.data_type in CODES and len(codes.dims) == 2 and plain and (single or by_column)
