"""Each rule names its own bad pattern, at its node, and nothing else; good graphs are named by none."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper

from exporters.lint.finding import Finding
from exporters.lint.rules import DLA_RULES, RULES, find
from exporters.lint.view import Device
from tests.exporters.lint.graphs import Writer, good, good_for_onnxruntime, unsigned

A100 = Device("tensorrt", "8.0", 16, "11.4.1", 20, "tensorrt", name="a100")
ORIN = Device("tensorrt", "8.7", 16, "10.3", 20, "tensorrt", dla_tops=52.5, name="jetson_agx_orin_64gb")
X86 = Device("onnxruntime", "", 1, "1.31", 23, "onnxruntime_x86", name="x86")
M4 = Device("c", "", 4, "", 20, "cortex_m", name="cortex_m4")

FOR_X86 = {"quantizer": "onnxruntime_x86", "recipe": "a"}
NEWER = replace(A100, opset=24)

Plant = Callable[[], ModelProto]
PLANTS: list[tuple[str, str, Device, Plant]] = []  # rule, node ('' is the whole model), device, graph


def plant(rule: str, node: str, device: Device = A100) -> Callable[[Plant], Plant]:
    def keep(make: Plant) -> Plant:
        PLANTS.append((rule, node, device, make))
        return make

    return keep


def ends(g: Writer, tensor: str) -> ModelProto:
    """The tensor through one more int8 convolution to the output."""
    return g.model(g.int8_conv(g.pair(tensor)))


@plant("Q1", "bad_q")
def asymmetric() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv(g.pair("x", zero=3, name="bad")))


@plant("Q1", "bad_q")
def computed_zero_point() -> ModelProto:
    g = Writer()
    zero = g.op("Cast", g.op("ReduceMax", "x", keepdims=0), to=TensorProto.INT8)
    step = g.const(0.1)
    codes = g.op("QuantizeLinear", "x", step, zero, name="bad_q")
    return g.model(g.int8_conv(g.op("DequantizeLinear", codes, step, zero)))


@plant("Q2", "bad_q")
def asymmetric_uint8() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv(g.pair("x", zero=128, dtype=np.uint8, name="bad")))


@plant("Q3", "bad_q")
def a_scale_of_zero() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv(g.pair("x", 0.0, name="bad")))


@plant("Q3", "bad")
def a_dead_channel() -> ModelProto:
    g = Writer()
    return g.model(g.conv(g.pair("x"), g.weight(16, 16, 3, 3, scale=[0.0] + [0.01] * 15, name="bad")))


@plant("Q3", "bad")
def a_scale_that_is_no_number() -> ModelProto:
    g = Writer()
    return g.model(g.conv(g.pair("x"), g.weight(16, 16, 3, 3, scale=[np.nan] + [0.01] * 15, name="bad")))


@plant("Q3", "bad_q", X86)
def a_scale_of_zero_for_onnxruntime() -> ModelProto:
    g = Writer()
    return g.model(unsigned(g, g.int8_conv(g.pair("x", 0.0, name="bad"))), metadata=FOR_X86)


@plant("Q4", "bad_q")
def an_infinite_scale() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv(g.pair("x", np.inf, name="bad")))


@plant("Q4", "bad_q")
def a_scale_that_float32_cannot_divide_by() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv(g.pair("x", 1e-40, name="bad")))


@plant("Q4", "bad")
def a_scale_far_below_the_largest() -> ModelProto:
    g = Writer()
    return g.model(g.conv(g.pair("x"), g.weight(16, 16, 3, 3, scale=[2.0**-25] + [1.0] * 15, name="bad")))


@plant("Q5", "bad_q")
def a_computed_scale() -> ModelProto:
    g = Writer()
    step, zero = g.op("ReduceMax", "x", keepdims=0), g.const(0, np.int8)
    codes = g.op("QuantizeLinear", "x", step, zero, name="bad_q")
    return g.model(g.int8_conv(g.op("DequantizeLinear", codes, step, zero)))


@plant("Q5", "bad_q")
def an_activation_with_a_scale_per_channel() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv(g.pair("x", [0.1] * 16, name="bad", axis=1)))


@plant("Q6", "bad")
def scales_along_the_wrong_axis() -> ModelProto:
    g = Writer(("batch", 16))
    return g.model(g.op("MatMul", g.pair("x"), g.weight(16, 16, axis=0), name="bad"))


@plant("Q6", "bad")
def scales_along_the_wrong_axis_behind_a_transpose() -> ModelProto:
    g = Writer(("batch", 16))
    return g.model(g.op("MatMul", g.pair("x"), g.op("Transpose", g.weight(16, 16, axis=1), perm=[1, 0]), name="bad"))


@plant("Q6", "bad", X86)
def scales_that_onnxruntime_applies_to_the_wrong_channels() -> ModelProto:
    g = Writer(("batch", 16))
    return g.model(
        g.op("MatMul", g.pair("x"), g.weight(16, 16, axis=0), name="bad"),
        metadata=FOR_X86,
    )


@plant("Q6", "bad")
def one_scale_for_all_output_channels() -> ModelProto:
    g = Writer()
    weight = g.op("DequantizeLinear", g.const(np.ones((16, 16, 3, 3)), np.int8), g.const(0.01))
    return g.model(g.conv(g.pair("x"), weight, name="bad"))


@plant("Q7", "bad")
def weights_stored_in_float() -> ModelProto:
    g = Writer()
    return g.model(g.conv(g.pair("x"), g.pair(g.real(16, 16, 3, 3), [0.01] * 16, axis=0), name="bad"))


@plant("Q8", "bad")
def an_integer_bias() -> ModelProto:
    g = Writer()
    bias = g.op("DequantizeLinear", g.const(np.ones(16), np.int32), g.const(np.full(16, 5e-4)), name="bad", axis=0)
    return g.model(g.op("Conv", g.pair("x"), g.weight(16, 16, 1, 1), bias))


@plant("Q9", "bad_q", NEWER)
def a_half_scale_on_a_float_tensor() -> ModelProto:
    g = Writer(opset=23)
    step = g.const(0.1, np.float16)
    codes = g.op("QuantizeLinear", "x", step, g.const(0, np.int8), name="bad_q")
    return g.model(g.int8_conv(g.op("DequantizeLinear", codes, g.const(0.1), g.const(0, np.int8))))


@plant("Q10", "bad_q")
def a_scalar() -> ModelProto:
    g = Writer()
    scalar = g.pair(g.op("ReduceMax", "x", keepdims=0), name="bad")
    return g.model(g.op("Mul", g.body(), scalar))


@plant("Q11", "bad", NEWER)
def int8_weights_in_blocks() -> ModelProto:
    g = Writer(("batch", 16), opset=21)
    codes, steps = g.const(np.ones((16, 16)), np.int8), g.const(np.ones((2, 16)))
    return g.model(
        g.op(
            "MatMul", g.pair("x"), g.op("DequantizeLinear", codes, steps, name="bad", axis=0, block_size=8), name="mul"
        )
    )


@plant("Q12", "bad")
def a_scale_per_channel_before_opset_13() -> ModelProto:
    g = Writer(opset=12)
    return g.model(g.conv(g.pair("x"), g.weight(16, 16, 3, 3, name="bad")))


@plant("Q12", "", replace(A100, capability="7.2", version="8.5", opset=17))
def an_opset_that_the_runtime_is_not_known_to_read() -> ModelProto:
    g = Writer(opset=18)
    return g.model(g.int8_conv(g.pair("x")))


@plant("Q13", "bad")
def an_operator_of_another_domain() -> ModelProto:
    g = Writer()
    return g.model(g.op("FakeQuantize", "x", name="bad", domain="org.openvinotoolkit"))


@plant("Q13", "bad")
def an_integer_operator() -> ModelProto:
    g = Writer(("batch", 16))
    name = g.op("MatMulInteger", g.op("Cast", "x", to=TensorProto.INT8), g.const(np.ones((16, 4)), np.int8), name="bad")
    return g.model(g.op("Cast", name, to=TensorProto.FLOAT))


@plant("Q13", "bad")
def an_operator_that_the_parser_lacks() -> ModelProto:
    g = Writer(("batch", 4, 4))
    return g.model(g.op("Det", "x", name="bad"))


@plant("Q14", "")
def a_dynamic_length() -> ModelProto:
    g = Writer(("batch", 16, "height", 8))
    return g.model(g.int8_conv(g.pair("x")))


@plant("P1", "bad")
def a_quantised_weight_alone() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv("x", "bad"))


@plant("P1", "bad")
def a_quantised_input_alone() -> ModelProto:
    g = Writer()
    return g.model(g.conv(g.pair("x"), g.real(16, 16, 3, 3), name="bad"))


@plant("P1", "bad")
def a_weight_only_matrix_product() -> ModelProto:
    g = Writer(("batch", 16))
    return g.model(g.op("MatMul", "x", g.weight(16, 16, axis=1), name="bad"))


@plant("P2", "bad_dq")
def a_quantised_output() -> ModelProto:
    g = Writer()
    return g.model(g.pair(g.int8_conv(g.pair("x")), name="bad"))


@plant("P2", "bad_dq")
def two_pairs_in_a_row() -> ModelProto:
    g = Writer()
    return ends(g, g.pair(g.body(), name="bad"))


@plant("P3", "bad")
def a_float_skip() -> ModelProto:
    g = Writer()
    skip = g.body()
    return ends(g, g.op("Relu", g.op("Add", g.int8_conv(g.pair(skip)), skip, name="bad")))


@plant("P3", "bad", X86)
def a_float_branch_in_onnxruntime() -> ModelProto:
    g = Writer()
    skip = unsigned(g, g.op("Relu", g.int8_conv(g.pair("x", zero=128, dtype=np.uint8))))
    # The branch's own convolution is float, so that nothing but the add is to blame.
    total = g.op("Add", g.op("Sigmoid", skip), skip, name="bad")
    return g.model(total, metadata=FOR_X86)


@plant("P4", "bad_q")
def a_pair_in_front_of_the_activation() -> ModelProto:
    g = Writer()
    return ends(g, g.op("Relu", g.pair(g.int8_conv(g.pair("x")), name="bad")))


@plant("P4", "bad")
def an_unfolded_batch_norm() -> ModelProto:
    g = Writer()
    statistics = [g.const(np.ones(16)) for _ in range(4)]
    return ends(g, g.op("Relu", g.op("BatchNormalization", g.int8_conv(g.pair("x")), *statistics, name="bad")))


@plant("P5", "bad")
def a_concat_of_two_scales() -> ModelProto:
    g = Writer()
    first = g.pair(g.body(), 0.1)
    parts = [g.pair(g.op("Relu", g.int8_conv(first)), scale) for scale in (0.2, 0.3)]
    return g.model(g.conv(g.pair(g.op("Concat", *parts, name="bad", axis=1)), g.weight(16, 32, 3, 3)))


@plant("P5", "bad")
def a_concat_of_int8_and_float() -> ModelProto:
    g = Writer()
    first = g.pair(g.body(), 0.1)
    parts = [g.pair(g.op("Relu", g.int8_conv(first)), 0.2), g.op("Relu", g.int8_conv(first))]
    return g.model(g.conv(g.pair(g.op("Concat", *parts, name="bad", axis=1)), g.weight(16, 32, 3, 3)))


@plant("P6", "bad")
def a_pair_in_front_of_the_pool() -> ModelProto:
    g = Writer()
    pooled = g.op("MaxPool", g.pair(g.body()), name="bad", kernel_shape=[2, 2])
    return g.model(g.int8_conv(pooled))


@plant("P7", "bad")
def a_float_average() -> ModelProto:
    g = Writer()
    return g.model(g.conv(g.pair(g.op("GlobalAveragePool", g.body(), name="bad")), g.weight(16, 16, 1, 1), size=1))


@plant("P7", "bad")
def a_float_gate() -> ModelProto:
    g = Writer()
    body = g.body()
    gate = g.conv(g.pair(g.op("GlobalAveragePool", g.pair(body))), g.weight(16, 16, 1, 1), size=1)
    return ends(g, g.op("Mul", body, g.op("Sigmoid", gate), name="bad"))


@plant("P8", "bad")
def a_quantised_transposed_convolution() -> ModelProto:
    g = Writer()
    weight = g.weight(16, 16, 2, 2, axis=1)
    return g.model(g.op("ConvTranspose", g.pair(g.body()), weight, name="bad", strides=[2, 2]))


@plant("P8", "bad")
def a_pair_in_front_of_a_softmax() -> ModelProto:
    g = Writer()
    return g.model(g.op("Softmax", g.pair(g.body()), name="bad"))


@plant("P9", "bad")
def a_depthwise_convolution_in_int8() -> ModelProto:
    g = Writer()
    return ends(g, g.op("Relu", g.conv(g.pair(g.body()), g.weight(16, 1, 3, 3), name="bad", group=16)))


@plant("P10", "bad")
def seventeen_channels() -> ModelProto:
    g = Writer()
    odd = g.op("Relu", g.conv(g.pair("x"), g.weight(17, 16, 3, 3), channels=17, name="bad"))
    return g.model(g.op("GlobalAveragePool", g.pair(odd)))


@plant("P11", "bad")
def float_attention() -> ModelProto:
    g = Writer(("batch", 16, 16))
    projected = g.op("MatMul", g.pair("x"), g.weight(16, 16, axis=1))
    return g.model(g.op("MatMul", projected, g.op("Transpose", projected, perm=[0, 2, 1]), name="bad"))


@plant("P12", "bad")
def a_norm_of_run_time_statistics() -> ModelProto:
    g = Writer()
    scale, shift = g.const(np.ones(16)), g.const(np.zeros(16))
    normed = g.op("InstanceNormalization", g.int8_conv(g.pair("x")), scale, shift, name="bad")
    return ends(g, g.op("Relu", normed))


@plant("P13", "", replace(A100, capability="5.3", has_int8=False))
def int8_on_a_device_without() -> ModelProto:
    return good()


@plant("P13", "", replace(A100, capability="7.5"))
def int8_on_turing() -> ModelProto:
    return good()


def fp8_pair(g: Writer, tensor: str, name: str) -> str:
    """A pair of fp8 codes with one scale."""
    if all(tensor_.name != "zero" for tensor_ in g.tensors):
        g.tensors.append(helper.make_tensor("zero", TensorProto.FLOAT8E4M3FN, [], [0.0]))
    step = g.const(0.1)
    return g.op("DequantizeLinear", g.op("QuantizeLinear", tensor, step, "zero", name=f"{name}_q"), step, "zero")


def fp8() -> ModelProto:
    """Both inputs of a product in fp8."""
    g = Writer(("batch", 16))
    return g.model(g.op("MatMul", fp8_pair(g, "x", "bad0"), fp8_pair(g, g.real(16, 16), "bad1")))


@plant("P15", "")
def a_float_convolution_beside_int8_ones() -> ModelProto:
    g = Writer()
    return ends(g, g.op("Relu", g.conv(g.body(), g.real(16, 16, 3, 3))))


@plant("P16", "")
def the_placement_of_another_runtime() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv(g.pair("x")), metadata={"quantizer": "cortex_m", "recipe": "a"})


@plant("P16", "bad", X86)
def an_output_that_is_not_quantised() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv(g.pair("x", zero=128, dtype=np.uint8), "bad"), metadata=FOR_X86)


@plant("P16", "bad", X86)
def a_relu_that_stays_in_front_of_signed_codes() -> ModelProto:
    g = Writer()
    return g.model(g.pair(g.op("Relu", g.int8_conv(g.pair("x"), "bad"))), metadata=FOR_X86)


@plant("P16", "bad", X86)
def a_last_gemm_with_a_float_bias() -> ModelProto:
    g = Writer(("batch", 16))
    head = g.op("Gemm", unsigned(g, "x"), g.weight(8, 16), g.const(np.ones(8)), name="bad", transB=1)
    return g.model(head, metadata=FOR_X86)


@plant("P16", "bad", X86)
def a_gemm_whose_weight_has_no_zero_point() -> ModelProto:
    g = Writer(("batch", 16))
    weight = g.op("DequantizeLinear", g.const(np.ones((8, 16)), np.int8), g.const(np.full(8, 0.01)), axis=0)
    return g.model(g.op("Gemm", unsigned(g, "x"), weight, name="bad", transB=1), metadata=FOR_X86)


@plant("P16", "bad", X86)
def a_transposed_convolution_in_onnxruntime() -> ModelProto:
    g = Writer()
    up = g.op("ConvTranspose", unsigned(g, "x"), g.weight(16, 16, 2, 2, axis=1), name="bad", strides=[2, 2])
    return g.model(unsigned(g, up), metadata=FOR_X86)


@plant("C9", "bad")
def stack_traces() -> ModelProto:
    g = Writer()
    g.int8_conv(g.pair("x"), "bad")
    g.nodes[-1].metadata_props.add(key="trace", value='File "/home/me/net.py", line 3, in forward')
    return g.model("bad_out")


@plant("C10", "")
def a_file_that_does_not_say_where_it_is_from() -> ModelProto:
    g = Writer()
    return g.model(g.int8_conv(g.pair("x")), metadata={})


def found(model: ModelProto, device: Device) -> list[Finding]:
    return find(RULES, model, device)


@pytest.mark.parametrize(("rule", "node", "device", "make"), PLANTS, ids=[make.__name__ for *_, make in PLANTS])
def test_a_bad_pattern_is_named_at_its_node_and_nothing_else_is(
    rule: str, node: str, device: Device, make: Plant
) -> None:
    findings = found(make(), device)
    assert [(finding.rule, finding.node) for finding in findings] == [(rule, node)]
    assert findings[0].module == (f"net.{node}" if node else "")
    assert findings[0].what
    assert findings[0].fix


def test_every_rule_has_a_planted_pattern() -> None:
    assert {rule.id for rule in RULES} - {rule for rule, *_ in PLANTS} == {"P14"}  # tested by the fp8 graph below


@pytest.mark.parametrize("device", [A100, ORIN, replace(A100, capability="8.9")])
def test_a_good_graph_is_named_by_none(device: Device) -> None:
    assert found(good(), device) == []


def test_a_good_graph_for_onnxruntime_is_named_by_none() -> None:
    assert found(good_for_onnxruntime(), X86) == []


def test_a_float_graph_is_named_by_none() -> None:
    g = Writer()
    hidden = g.op("Relu", g.conv("x", g.real(7, 16, 3, 3), channels=7))
    joined = g.op("Concat", hidden, g.op("Sigmoid", hidden), axis=1)
    model = g.model(g.op("GlobalAveragePool", joined), metadata={})
    for device in (A100, X86, M4):
        assert found(model, device) == []


def test_fp8_is_not_taken_for_int8() -> None:
    """Its placement is its own: what int8 rules want of averages, skips and depthwise layers does not hold."""
    g = Writer()
    depthwise = g.conv(fp8_pair(g, "x", "data"), fp8_pair(g, g.real(16, 1, 3, 3), "weight"), group=16)
    skip = g.op("Add", depthwise, g.op("Sigmoid", depthwise))
    model = g.model(g.op("GlobalAveragePool", skip), g.op("GlobalAveragePool", depthwise))
    assert not [f for f in found(model, replace(A100, capability="8.9")) if f.rule.startswith("P")]


def test_a_format_that_places_for_no_other_runtime_is_no_finding() -> None:
    g = Writer()
    model = g.model(g.int8_conv(g.pair("x")), metadata={"quantizer": "tensorrt_fp8", "recipe": "a"})
    assert found(model, A100) == []


def test_fp8_is_refused_before_ada_and_taken_from_there_on() -> None:
    rules = [(f.rule, f.node) for f in found(fp8(), A100) if f.rule == "P14"]
    assert rules == [("P14", "bad0_q")]
    for capability in ("8.9", "9.0", "12.0"):
        assert all(f.rule != "P14" for f in found(fp8(), replace(A100, capability=capability)))


def test_weights_behind_a_transpose_keep_their_axis() -> None:
    """Codes (out, in) with scales along 0, transposed for MatMul: output channels are where they should be."""
    g = Writer(("batch", 16))
    weight = g.op("Transpose", g.weight(16, 16, axis=0), perm=[1, 0])
    assert found(g.model(g.op("MatMul", g.pair("x"), weight)), A100) == []


def test_int4_weights_alone_are_meant() -> None:
    g = Writer(("batch", 16), opset=21)
    g.tensors.append(helper.make_tensor("codes", TensorProto.INT4, [16, 16], [1] * 256))
    weight = g.op("DequantizeLinear", "codes", g.const(np.ones((2, 16))), axis=0, block_size=8)
    assert found(g.model(g.op("MatMul", "x", weight)), replace(A100, opset=21)) == []


def test_a_scale_of_exactly_the_floor_is_kept() -> None:
    g = Writer()
    weight = g.weight(16, 16, 3, 3, scale=[2.0**-24] + [1.0] * 15)
    assert found(g.model(g.conv(g.pair("x"), weight)), A100) == []


def test_a_clamp_that_the_range_covers_is_folded_by_onnxruntime() -> None:
    """uint8 of scale 6/255 ends where Clip(0, 6) does; a scale of 0.05 reaches 12.75."""
    for scale, expected in ((6 / 255, []), (0.05, ["P16"])):
        g = Writer()
        clipped = g.op("Clip", g.int8_conv(unsigned(g, "x")), g.const(0.0), g.const(6.0))
        model = g.model(unsigned(g, clipped, scale), metadata=FOR_X86)
        assert [finding.rule for finding in found(model, X86)] == expected


def test_the_gravest_come_first() -> None:
    g = Writer(("batch", 20), opset=20)
    bad = g.model(g.op("MatMul", g.pair("x", 0.0), g.weight(20, 20, axis=0)))
    assert [finding.level for finding in found(bad, A100)] == ["refused", "slow", "note"]


def test_nothing_is_changed() -> None:
    model = good()
    model.graph.node[0].name = ""
    before = model.SerializeToString(deterministic=True)
    found(model, A100)
    assert model.SerializeToString(deterministic=True) == before


def on_dla(make: Callable[[Writer], str], shape: tuple[int | str, ...] = (1, 16, 8, 8)) -> list[tuple[str, str]]:
    g = Writer(shape)
    model = g.model(make(g))
    return [(f.rule, f.node) for f in find(DLA_RULES, model, replace(ORIN, version="8.5"))]


def half(g: Writer, *shape: int) -> str:
    return g.const(np.ones(shape), np.float16)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda g: g.op("Conv", g.op("Cast", "x", to=10), half(g, 16, 16, 3, 3), name="n"), []),
        (lambda g: g.op("Conv", "x", g.real(16, 16, 3, 3), name="n"), [("D4", "n")]),
        (lambda g: g.op("Conv", g.op("Cast", "x", to=10), half(g, 16, 16, 33, 1), name="n"), [("D5", "n")]),
        (
            lambda g: g.op("Conv", g.op("Cast", "x", to=10), half(g, 16, 16, 3, 3), name="n", strides=[9, 9]),
            [("D5", "n")],
        ),
        (lambda g: g.op("ConvTranspose", g.op("Cast", "x", to=10), half(g, 16, 16, 2, 2), name="n"), []),
        (
            lambda g: g.op(
                "ConvTranspose", g.op("Cast", "x", to=10), half(g, 16, 16, 2, 2), name="n", pads=[1, 1, 1, 1]
            ),
            [("D6", "n")],
        ),
        (lambda g: g.op("Concat", *[g.op("Cast", "x", to=10)] * 2, name="n", axis=1), []),
        (lambda g: g.op("Concat", *[g.op("Cast", "x", to=10)] * 2, name="n", axis=2), [("D7", "n")]),
        (lambda g: g.op("Greater", *[g.op("Cast", "x", to=10)] * 2, name="n"), [("D8", "n")]),
        (lambda g: g.op("MaxPool", g.op("Cast", "x", to=10), name="n", kernel_shape=[2, 2]), []),
        (lambda g: g.op("AveragePool", g.op("Cast", "x", to=10), name="n", kernel_shape=[8, 9]), [("D9", "n")]),
        (lambda g: g.op("Erf", g.op("Cast", "x", to=10), name="n"), [("D10", "n")]),
        (lambda g: g.op("Relu", g.int8_conv(g.pair("x", name="n"))), [("D11", "n_q")]),
    ],
)
def test_dla_restrictions(make: Callable[[Writer], str], expected: list[tuple[str, str]]) -> None:
    """Hand-read from NVIDIA's table; the cast in front stays float32 itself and is not counted."""
    found = [(rule, node) for rule, node in on_dla(make) if not node.startswith("cast")]
    assert found == expected


def test_a_dla_wants_static_sizes_within_its_limits() -> None:
    assert ("D2", "") in on_dla(lambda g: g.op("Cast", "x", to=10), ("batch", 16, 8, 8))
    rules = on_dla(lambda g: g.op("Relu", g.op("Cast", "x", to=10), name="n"), (1, 8193, 1, 1))
    assert ("D3", "n") in rules


@pytest.mark.parametrize(
    ("version", "name", "refused"),
    [
        ("8.5", "jetson_agx_xavier", False),
        ("10.3", "jetson_orin_nx_16gb", False),
        ("10.7", "jetson_orin_nx_16gb", False),
        ("10.13", "jetson_orin_nx_16gb", True),
        ("11.4.0", "jetson_agx_orin_64gb", True),
        ("11.4.1", "jetson_agx_orin_64gb", False),
        ("11.4.1", "jetson_orin_nx_16gb", True),
    ],
)
def test_which_tensorrt_has_a_dla(version: str, name: str, refused: bool) -> None:
    found = find(DLA_RULES, good(), replace(ORIN, version=version, name=name))
    assert any(finding.rule == "D1" for finding in found) == refused


def test_asymmetric_int8_is_not_for_a_dla() -> None:
    g = Writer((1, 16, 8, 8))
    model = g.model(g.int8_conv(g.pair("x", zero=3, name="bad")))
    assert ("D12", "bad_q") in [(f.rule, f.node) for f in find(DLA_RULES, model, ORIN)]


@pytest.mark.parametrize("device", [A100, X86], ids=lambda device: device.runtime)
def test_a_target_without_a_dla_says_so(device: Device) -> None:
    assert [f.rule for f in find(DLA_RULES, good(), device) if f.rule == "D1"] == ["D1"]
