"""Lookups read codes, and TensorRT's form reads numbers again: the same outputs bit for bit."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporters import graph
from exporters.lint.rules import RULES, find
from exporters.lint.view import Device
from exporters.passes import dequantize_tables, gather_codes, quantize_weights_in_graph
from profiles.runners import on_onnxruntime

RNG = np.random.default_rng(0)
CODES = RNG.integers(-127, 128, (50, 6)).astype(np.int8)
COLUMNS = np.array([0.5, 0.25, 1, 2, 0.1, 3], np.float32)
IDS = {"ids": RNG.integers(0, 50, (2, 7))}


def lookup(
    scale: np.ndarray, *, axis: int = 1, along: int = 0, codes: np.ndarray = CODES, also: bool = False
) -> ModelProto:
    """Stored codes -> DequantizeLinear -> Gather -> a sum over the last axis, and perhaps another reader."""
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "s", "z"], ["table"], axis=axis, name="dq"),
        helper.make_node("Gather", ["table", "ids"], ["rows"], axis=along, name="lookup"),
        helper.make_node("Relu", ["rows"], ["y"]),
    ]
    shape = ["batch", 7, *codes.shape[1:]] if along == 0 else [50, "batch", 7]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)]
    if also:
        nodes.append(helper.make_node("Neg", ["table"], ["minus"]))
        outputs.append(helper.make_tensor_value_info("minus", TensorProto.FLOAT, codes.shape))
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 7])],
        outputs,
        [
            numpy_helper.from_array(codes, "codes"),
            numpy_helper.from_array(scale, "s"),
            numpy_helper.from_array(np.zeros(scale.shape, np.int8), "z"),
        ],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.fixture
def same(tmp_path) -> Callable[[ModelProto, ModelProto], None]:
    """Both models give the same bits."""

    def check(before: ModelProto, after: ModelProto) -> None:
        onnx.checker.check_model(after, full_check=True)
        outputs = []
        for name, model in (("before", before), ("after", after)):
            onnx.save(model, tmp_path / f"{name}.onnx")
            outputs.append(on_onnxruntime.load(tmp_path / f"{name}.onnx", as_written=True).run(IDS))
        assert outputs[0].keys() == outputs[1].keys()
        for name, value in outputs[0].items():
            np.testing.assert_array_equal(value, outputs[1][name])

    return check


@pytest.mark.parametrize("scale", [COLUMNS, np.array(0.5, np.float32)])
def test_the_lookup_reads_codes(kinds, same, scale: np.ndarray) -> None:
    model = lookup(scale)
    after = gather_codes.apply(model)
    assert kinds(after) == ["Gather", "DequantizeLinear", "Relu"]
    assert after.graph.node[0].input[0] == "codes"
    assert graph.attribute(after.graph.node[1], "axis", 1) == 2, "columns of the table are the last axis behind it"
    same(model, after)
    back = dequantize_tables.apply(after)
    assert kinds(back) == ["DequantizeLinear", "Gather", "Relu"]
    assert graph.attribute(back.graph.node[0], "axis", 0) == 1
    same(model, back)
    # TensorRT 8 takes no stored codes: they come from a quantiser in front of the dequantiser.
    assert kinds(quantize_weights_in_graph.apply(back))[0] == "QuantizeLinear"


def test_a_table_that_something_else_reads_keeps_its_numbers(kinds, same) -> None:
    model = lookup(COLUMNS, also=True)
    after = gather_codes.apply(model)
    assert sorted(kinds(after)) == ["DequantizeLinear", "DequantizeLinear", "Gather", "Neg", "Relu"]
    same(model, after)


@pytest.mark.parametrize("changed", [{"axis": 0}, {"along": 1}, {"codes": CODES.reshape(50, 3, 2)}])
def test_what_is_no_table_stays(changed: dict[str, object]) -> None:
    scale = np.array(0.5, np.float32)
    if "axis" in changed:
        scale = np.full(50, 0.5, np.float32)  # of rows: it would have to be looked up as well
    model = lookup(scale, **changed)  # type: ignore[arg-type]
    assert gather_codes.apply(model).SerializeToString() == model.SerializeToString()


def test_float_tables_stay() -> None:
    model = gather_codes.apply(lookup(COLUMNS))
    model.graph.node[1].op_type = "Cast"
    del model.graph.node[1].input[1:], model.graph.node[1].attribute[:]
    model.graph.node[1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
    assert dequantize_tables.apply(model).SerializeToString() == model.SerializeToString()


def test_the_linter_takes_a_tables_columns_for_no_activation() -> None:
    wanted = [rule for rule in RULES if rule.id == "Q5"]
    assert wanted
    assert not list(find(wanted, gather_codes.apply(lookup(COLUMNS)), Device("tensorrt")))
