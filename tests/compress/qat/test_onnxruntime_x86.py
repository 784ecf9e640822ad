"""What ONNX Runtime's optimiser makes of the x86 placement."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

FLOAT = ("Conv", "FusedConv", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Relu", "Clip")


def optimised(path: Path, folder: Path) -> onnx.GraphProto:
    """The session's own graph."""
    options = SessionOptions()
    options.graph_optimization_level = GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx").graph


def test_no_float_operator_stays_between_the_first_quantiser_and_the_head(made: Any, tmp_path: Path) -> None:
    graph = optimised(made.path, tmp_path)
    count = Counter(node.op_type for node in graph.node)
    weighted = Counter(site.operator.split(".")[0] for site in made.model.sites)
    assert count["QLinearConv"] == sum(number for kind, number in weighted.items() if kind.startswith("conv"))
    # The last linear layer gives float logits.
    assert count["QGemm"] == weighted["linear"] - 1
    produced = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if node.op_type in FLOAT:  # a MaxPool stays MaxPool, on codes
            assert produced[node.input[0]].op_type in ("QLinearConv", "QLinearConcat", "MaxPool"), node.name


def test_activations_are_uint8_and_weights_int8(exported: Callable[[str, str], Any]) -> None:
    made = exported("residual", "onnxruntime_x86")
    graph = onnx.load(made.path).graph
    types = {tensor.name: (tensor.data_type, len(tensor.dims)) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            assert types[node.input[2]][0] == onnx.TensorProto.UINT8
    assert {kind for kind, dims in types.values() if dims > 1 and kind != onnx.TensorProto.FLOAT} <= {
        onnx.TensorProto.INT8,
        onnx.TensorProto.INT64,
    }
