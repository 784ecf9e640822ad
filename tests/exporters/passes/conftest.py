"""Small graphs to rewrite."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper


def _model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, list[int | str]],
    outputs: dict[str, list[int | str]],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
) -> ModelProto:
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def _kinds(model: ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _pair(name: str, source: str, scale: str, zero: str, **attributes: int) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [source, scale, zero], [f"{name}_q"], **attributes),
        helper.make_node("DequantizeLinear", [f"{name}_q", scale, zero], [f"{name}_dq"], **attributes),
    ]


@pytest.fixture(scope="session")
def model_of() -> Callable[..., ModelProto]:
    """nodes, inputs, outputs, constants, opset -> a checked model of float inputs and outputs."""
    return _model_of


@pytest.fixture(scope="session")
def kinds() -> Callable[[ModelProto], list[str]]:
    """Operators of a model, in order."""
    return _kinds


@pytest.fixture(scope="session")
def pair() -> Callable[..., list[onnx.NodeProto]]:
    """QuantizeLinear and DequantizeLinear of a tensor, `<name>_q` and `<name>_dq`."""
    return _pair
