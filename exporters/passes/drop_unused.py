"""Remove nodes and initializers that no output depends on.

Requires: a valid graph.
Ensures: the same outputs, bit for bit; inputs stay, also unread ones (a caller feeds them by name).
"""

from onnx import ModelProto

from exporters import graph

LARGEST_CHANGE = 0.0  # bit for bit


def apply(model: ModelProto) -> ModelProto:
    """A model in which everything is needed."""
    model = graph.copy(model)
    main = model.graph
    makers = graph.producers(main)
    needed: set[str] = set()
    waiting = [value.name for value in main.output]
    while waiting:
        name = waiting.pop()
        if name in needed:
            continue
        needed.add(name)
        if name in makers:
            waiting.extend(source for source in makers[name].input if source)
    graph.replace_nodes(main, [node for node in main.node if any(name in needed for name in node.output)])
    initializers = [tensor for tensor in main.initializer if tensor.name in needed]
    del main.initializer[:]
    main.initializer.extend(initializers)
    values = [value for value in main.value_info if value.name in needed]
    del main.value_info[:]
    main.value_info.extend(values)
    return model
