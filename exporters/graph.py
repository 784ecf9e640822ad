"""Questions that rewrites ask an ONNX graph: who makes a tensor, who reads it, is it a constant.

Only the main graph is looked at. Models with control flow (If, Loop, Scan) are refused at `check_onnx.load`'s edge
where a rewrite would need to see into their bodies; the networks that this project makes have none.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, numpy_helper

from exporters import large

STANDARD_DOMAINS = ("", "ai.onnx")
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def copy(model: ModelProto) -> ModelProto:
    """A model that can be changed without changing `model`."""
    twin = ModelProto()
    twin.CopyFrom(model)
    return twin


def opset(model: ModelProto) -> int:
    """Version of the standard operators that the model imports; 0 where it imports none."""
    return max((entry.version for entry in model.opset_import if entry.domain in STANDARD_DOMAINS), default=0)


def producers(graph: GraphProto) -> dict[str, NodeProto]:
    """Tensor name -> the node that makes it."""
    return {name: node for node in graph.node for name in node.output if name}


def consumers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    """Tensor name -> the nodes that read it, in graph order, a node as often as it reads."""
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            if name:
                readers.setdefault(name, []).append(node)
    return readers


def constants(graph: GraphProto) -> dict[str, TensorProto]:
    """Tensor name -> its value, of initializers and of Constant nodes that hold a tensor."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS:
            for item in node.attribute:
                if item.name == "value":
                    found[node.output[0]] = item.t
    return found


def array(tensor: TensorProto) -> NDArray[np.generic]:
    """The tensor's value; a fresh array."""
    return np.array(numpy_helper.to_array(tensor))


def attribute(node: NodeProto, name: str, default: int) -> int:
    """An integer attribute, or `default` where the node has none."""
    for item in node.attribute:
        if item.name == name:
            return int(item.i)
    return default


def shapes(model: ModelProto) -> dict[str, list[int | str]]:
    """Tensor name -> shape, of every tensor whose rank shape inference knows; unknown sizes are ''.

    A symbolic size is its name, such as 'batch'.
    """
    inferred = large.infer_shapes(model)
    known: dict[str, list[int | str]] = {t.name: [int(d) for d in t.dims] for t in inferred.graph.initializer}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        tensor = value.type.tensor_type
        if tensor.HasField("shape"):
            known[value.name] = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in tensor.shape.dim]
    return known


def rename_input(graph: GraphProto, old: str, new: str) -> None:
    """Make every reader of tensor `old` read `new`. Graph outputs keep their names."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == old:
                node.input[index] = new


def remove_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Remove nodes, told apart by their first output (unique in a valid graph)."""
    gone = {node.output[0] for node in nodes}
    for index in reversed(range(len(graph.node))):
        if graph.node[index].output[0] in gone:
            del graph.node[index]


def replace_nodes(graph: GraphProto, nodes: Iterable[NodeProto]) -> None:
    """Make `nodes` the graph's nodes, in that order."""
    kept = []
    for node in nodes:
        twin = NodeProto()
        twin.CopyFrom(node)
        kept.append(twin)
    del graph.node[:]
    graph.node.extend(kept)


def fresh_name(graph: GraphProto, wish: str) -> str:
    """`wish`, or `wish` with the smallest number behind it that no tensor of the graph has yet."""
    taken = set(_names(graph))
    if wish not in taken:
        return wish
    number = 1
    while f"{wish}_{number}" in taken:
        number += 1
    return f"{wish}_{number}"


def _names(graph: GraphProto) -> Iterator[str]:
    for value in (*graph.input, *graph.output):
        yield value.name
    for tensor in graph.initializer:
        yield tensor.name
    for node in graph.node:
        yield from node.input
        yield from node.output
