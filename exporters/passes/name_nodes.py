"""Give every node a name of its own.

Build logs, errors of parsers and reports name nodes; ONNX allows them to have none.

Requires: a valid graph.
Ensures: every node has a non-empty name, all different; names that were so already stay.
"""

from onnx import ModelProto

from exporters import graph

LARGEST_CHANGE = 0.0  # bit for bit


def apply(model: ModelProto) -> ModelProto:
    """A model whose nodes can be told apart by name."""
    model = graph.copy(model)
    taken = {node.name for node in model.graph.node if node.name}
    seen: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in seen:
            wish = node.name or f"{node.op_type}_{node.output[0]}"
            name, number = wish, 1
            while name in taken:
                name, number = f"{wish}_{number}", number + 1
            node.name = name
            taken.add(name)
        seen.add(node.name)
    return model
