"""Static shapes, and shapes that were computed."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from exporters.errors import ExportError
from exporters.passes import fix_shapes

RNG = np.random.default_rng(0)


def computed_shape(model_of):
    """x (batch, 3, length) flattened by a shape that the graph reads from x itself."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "first"], ["b"]),
        helper.make_node("Concat", ["b", "rest"], ["shape"], axis=0),
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["y"]),
    ]
    constants = {"first": np.array([0], np.int64), "rest": np.array([-1], np.int64)}
    return model_of(nodes, {"x": ["batch", 3, "length"]}, {"y": ["batch", "flat"]}, constants, opset=18)


def test_computed_shapes_become_constants(model_of, unchanged_by, kinds) -> None:
    model = computed_shape(model_of)
    after = fix_shapes.apply(model, {"batch": 2, "length": 5})
    assert kinds(after) == ["Relu", "Reshape"]
    dims = [
        d.dim_value for value in (*after.graph.input, *after.graph.output) for d in value.type.tensor_type.shape.dim
    ]
    assert dims == [2, 3, 5, 2, 15]
    unchanged_by(model, after, {"x": RNG.standard_normal((2, 3, 5)).astype(np.float32)})


def test_a_dimension_without_a_size_is_named(model_of) -> None:
    with pytest.raises(ExportError, match=r"dimension 2 of input 'x' \(length\)"):
        fix_shapes.apply(computed_shape(model_of), {"batch": 1})


def test_an_exported_network_becomes_static(float_model, run_onnx) -> None:
    model = onnx.load(float_model.path)
    after = fix_shapes.apply(model, {"batch": 9})
    onnx.checker.check_model(after, full_check=True)
    x = {"input": float_model.inputs.numpy()}
    np.testing.assert_array_equal(run_onnx(after, x)[0], run_onnx(model, x)[0])
    symbols = [d.dim_param for value in after.graph.value_info for d in value.type.tensor_type.shape.dim]
    assert not any(symbols)
    assert not any(node.op_type == "Shape" for node in after.graph.node)
    kinds = {value.type.tensor_type.elem_type for value in after.graph.input}
    assert kinds == {TensorProto.FLOAT}
