"""What must stay float32, and the sentence that says why."""

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from exporters.errors import ExportError
from exporters.half import plan, policy
from exporters.half.formats import BF16, FP16
from exporters.half.observe import Seen, observe, seen_in


def model_of(nodes, constants=None, shape=(2, 3, 8), opset=20) -> ModelProto:
    made = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def kept(model: ModelProto, seen=None, **options) -> dict[str, str]:
    decided = plan.decide(model, FP16, seen or {}, **options)
    return {one.node: one.why for one in decided.kept}


def test_a_tensor_in_figures() -> None:
    """2^-24 is the least fp16; a tenth of it rounds to zero. 1 and 65504 are exact, infinity is allowed."""
    assert seen_in(np.array([1.0, -65504.0, np.inf], np.float32), FP16) == Seen(65504.0, 0.0)
    assert seen_in(np.array([0.1 * 2.0**-24], np.float32), FP16).lost == pytest.approx(1.0)
    assert not seen_in(np.array([1.0, np.nan], np.float32), FP16).finite
    assert seen_in(np.array([0.0], np.float32), FP16) == Seen(0.0, 0.0)
    assert seen_in(np.array([1e-6], np.float32), BF16).lost < 2.0**-8, "bf16 has float32's exponents"


def test_overflow_counts_headroom() -> None:
    assert policy.misfit(Seen(16000.0, 0.0), FP16, 4.0) is None
    assert "reaches 2e+04" in str(policy.misfit(Seen(20000.0, 0.0), FP16, 4.0))
    assert policy.misfit(Seen(20000.0, 0.0), BF16, 4.0) is None
    assert "underflow" in str(policy.misfit(Seen(1e-7, 0.3), FP16, 4.0))


def test_a_normalisation_written_out_stays_float_as_a_whole() -> None:
    """x - mean, its square's mean, + eps, root, division: all of it; the convolutions around it not."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="before"),
        helper.make_node("ReduceMean", ["a", "axis"], ["m"], name="mean"),
        helper.make_node("Sub", ["a", "m"], ["c"], name="centre"),
        helper.make_node("Mul", ["c", "c"], ["s"], name="square"),
        helper.make_node("ReduceMean", ["s", "axis"], ["v"], name="variance"),
        helper.make_node("Add", ["v", "eps"], ["e"], name="epsilon"),
        helper.make_node("Sqrt", ["e"], ["r"], name="root"),
        helper.make_node("Div", ["c", "r"], ["n"], name="divide"),
        helper.make_node("MatMul", ["n", "w"], ["y"], name="after"),
    ]
    w = np.eye(8, dtype=np.float32)
    found = kept(model_of(nodes, {"w": w, "axis": np.array([-1], np.int64), "eps": np.float32(1e-5)}))
    assert set(found) == {"mean", "centre", "square", "variance", "epsilon", "root", "divide"}


def test_rms_norm_by_a_power_of_minus_a_half() -> None:
    nodes = [
        helper.make_node("Pow", ["x", "two"], ["s"], name="square"),
        helper.make_node("ReduceMean", ["s", "axis"], ["v"], name="mean"),
        helper.make_node("Add", ["v", "eps"], ["e"], name="epsilon"),
        helper.make_node("Pow", ["e", "power"], ["r"], name="root"),
        helper.make_node("Mul", ["x", "r"], ["n"], name="scale"),
        helper.make_node("MatMul", ["n", "w"], ["y"], name="after"),
    ]
    constants = {"two": np.float32(2), "power": np.float32(-0.5), "eps": np.float32(1e-5)}
    found = kept(model_of(nodes, constants | {"w": np.eye(8, dtype=np.float32), "axis": np.array([-1], np.int64)}))
    assert set(found) == {"square", "mean", "epsilon", "root", "scale"}


def test_a_log_mel_front_end_stays_float_and_a_log_behind_a_network_alone() -> None:
    front = [
        helper.make_node("MatMul", ["x", "w"], ["spectrum"], name="spectrum"),
        helper.make_node("Mul", ["spectrum", "spectrum"], ["power"], name="power"),
        helper.make_node("MatMul", ["power", "w"], ["bands"], name="bands"),
        helper.make_node("Clip", ["bands", "least"], ["held"], name="held"),
        helper.make_node("Log", ["held"], ["log"], name="log"),
        helper.make_node("MatMul", ["log", "w"], ["a"], name="network"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("MatMul", ["b", "w"], ["c"], name="head"),
        helper.make_node("Log", ["c"], ["y"], name="last"),
    ]
    found = kept(model_of(front, {"w": np.eye(8, dtype=np.float32), "least": np.float32(1e-3)}))
    assert set(found) == {"spectrum", "power", "bands", "held", "log", "last"}


def test_a_long_sum_stays_float_and_a_short_one_not() -> None:
    for size, expected in ((16, set()), (17, {"pool"})):
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
            helper.make_node("GlobalAveragePool", ["a"], ["b"], name="pool"),
            helper.make_node("Conv", ["b", "w"], ["y"], name="after"),
        ]
        model = model_of(nodes, {"w": np.ones((3, 3, 1, 1), np.float32)}, shape=(1, 3, size, size))
        assert set(kept(model)) == expected


def test_constants_that_half_precision_cannot_hold_keep_their_reader_float() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Add", ["a", "mask"], ["b"], name="masked"),
        helper.make_node("MatMul", ["b", "w"], ["y"], name="second"),
    ]
    w = np.eye(8, dtype=np.float32)
    assert "reaches" in kept(model_of(nodes, {"w": w, "mask": np.float32(-1e9)}))["masked"]
    assert "underflow" in kept(model_of(nodes, {"w": w, "mask": np.float32(1e-9)}))["masked"]
    assert not kept(model_of(nodes, {"w": w, "mask": np.float32(-np.inf)}))


def test_what_the_caller_asks_for_stays_float() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="head"),
    ]
    nodes[1].metadata_props.add(key="module", value="head.linear")
    model = model_of(nodes, {"w": np.eye(8, dtype=np.float32)})
    assert kept(model, keep=("head",)) == {"head": "asked for"}
    assert kept(model, keep=("hea",)) == {}


def test_observed_ranges_are_those_of_the_tensors_inside() -> None:
    nodes = [helper.make_node("Mul", ["x", "k"], ["a"]), helper.make_node("Mul", ["a", "a"], ["y"])]
    model = model_of(nodes, {"k": np.float32(300)}, shape=("batch", 2))
    samples = [{"x": np.array([[1.0, -2.0]], np.float32)}, {"x": np.array([[0.5, 0.0], [0.0, 0.0]], np.float32)}]
    found = observe(model, samples, FP16)
    assert {name: seen.largest for name, seen in found.items()} == {"x": 2.0, "a": 600.0, "y": 360000.0}
    with pytest.raises(ExportError, match="no sample"):
        observe(model, [], FP16)
    with pytest.raises(ExportError, match="sample"):
        observe(model, [{"z": np.zeros((1, 2), np.float32)}], FP16)


def test_formats_that_an_opset_lacks_are_refused() -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], opset=20)
    with pytest.raises(ExportError, match="opset 20 has no bf16"):
        plan.decide(model, BF16, {})
    quantised = model_of(
        [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ],
        {"s": np.float32(0.1), "z": np.int8(0)},
        opset=17,
    )
    with pytest.raises(ExportError, match="scales"):
        plan.decide(quantised, FP16, {})


@pytest.mark.parametrize(("rows", "stays"), [(100, True), (10_000, False)])
def test_large_tables_are_stored_in_half_also_between_float_nodes(rows: int, stays: bool) -> None:
    """A Cast of the rows that are looked up costs less than a table that is twice as wide."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="lookup"),
        helper.make_node("LayerNormalization", ["rows", "gain"], ["n"], name="norm"),
        helper.make_node("MatMul", ["n", "w"], ["y"], name="product"),
    ]
    constants = {"table": np.ones((rows, 8), np.float32), "gain": np.ones(8, np.float32), "w": np.eye(8)}
    model = model_of(nodes, {name: value.astype(np.float32) for name, value in constants.items()})
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"]))
    found = kept(model)
    assert "norm" in found
    assert ("lookup" in found) is stays
