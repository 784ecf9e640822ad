"""Remove what an exporter writes for its own debugging: stack traces, class names, doc strings, graph signatures.

Such text names files of the machine that exported, grows a small model several times, and differs between machines.

Requires: nothing.
Ensures: nodes, values and initializers compute the same; a node's only metadata is "module", the name of the torch
module that it came from (such as "blocks.0.conv1"), where the exporter knew it.
"""

import ast

from onnx import ModelProto, NodeProto

from exporters import graph

LARGEST_CHANGE = 0.0  # bit for bit

SCOPES = "pkg.torch.onnx.name_scopes"
MODULE = "module"


def apply(model: ModelProto) -> ModelProto:
    """A model without traces."""
    model = graph.copy(model)
    model.doc_string = ""
    del model.metadata_props[:]
    main = model.graph
    main.doc_string = ""
    del main.metadata_props[:]
    for node in main.node:
        module = module_name(node)
        node.doc_string = ""
        del node.metadata_props[:]
        if module:
            node.metadata_props.add(key=MODULE, value=module)
    for value in (*main.input, *main.output, *main.value_info):
        value.doc_string = ""
        del value.metadata_props[:]
    for tensor in main.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    return model


def module_name(node: NodeProto) -> str:
    """Name of the torch module that the node came from; '' where it is unknown or the whole model."""
    for entry in node.metadata_props:
        if entry.key == MODULE:
            return str(entry.value)
        if entry.key == SCOPES:
            try:
                scopes = ast.literal_eval(entry.value)
            except (ValueError, SyntaxError):
                return ""
            # The last scope is the operator itself, those before it are modules from the outside in.
            return str(scopes[-2]) if isinstance(scopes, list) and len(scopes) >= 2 else ""
    return ""
