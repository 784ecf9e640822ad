"""The graph from which C is generated: no tensor between the first quantiser and the logits is float alone."""

from collections.abc import Callable
from typing import Any

import onnx

# What folds into the operator in front of it when its output is quantised.
FOLDED = ("Relu", "Clip")
MOVES = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def test_every_operator_reads_and_gives_codes(made: Any) -> None:
    graph = onnx.load(made.path).graph
    produced = {output: node for node in graph.node for output in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    first = next(index for index, node in enumerate(graph.node) if node.op_type == "QuantizeLinear")
    inside = [node for node in graph.node[first:] if "Linear" not in node.op_type and node.op_type not in MOVES]
    assert inside
    for node in inside:
        source = produced.get(node.input[0])
        if node.op_type not in FOLDED:
            assert source is not None
            assert source.op_type == "DequantizeLinear" or source.op_type in MOVES, node.name
        for reader in readers.get(node.output[0], []):
            assert reader.op_type == "QuantizeLinear" or reader.op_type in FOLDED + MOVES, (node.name, reader.name)
    last = produced[graph.output[0].name]
    assert last.op_type == "DequantizeLinear"


def test_weights_and_their_zero_points_are_symmetric(exported: Callable[[str, str], Any]) -> None:
    graph = onnx.load(exported("plain", "cortex_m").path).graph
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in values]
    assert weights
    for node in weights:
        assert values[node.input[0]].min() >= -127
        assert len(node.input) < 3 or not values[node.input[2]].any()


def test_max_pool_and_concatenation_keep_one_scale(exported: Callable[[str, str], Any]) -> None:
    made = exported("concat", "cortex_m")
    scales = []
    for node in made.model.graph.graph.nodes:
        if node.op == "call_module" and any(
            reader.op == "call_function" and reader.target.__name__ in ("cat.default", "max_pool2d.default")
            for reader in node.users
        ):
            scales.append(float(made.model.graph.get_submodule(node.target).scale))
    assert len(scales) == 3  # two branches and the concatenation in front of the pool
    assert len(set(scales)) == 1
