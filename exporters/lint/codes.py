"""Q1, Q2, Q8, Q10, Q11: zero points, and which types are quantised how."""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from exporters import graph
from exporters.lint.finding import BUILT, HEADERS, QUANTIZED_TYPES, TENSORRT, Hit, Rule
from exporters.lint.scales import first_of_pair
from exporters.lint.view import View, type_name

FOUR_BITS = frozenset({TensorProto.INT4, TensorProto.UINT4})
_FP8 = frozenset({TensorProto.FLOAT8E4M3FN})
_FP4 = frozenset({TensorProto.FLOAT4E2M1})
_BLOCKED = FOUR_BITS | _FP8 | _FP4
_TAKEN = frozenset({TensorProto.INT8, TensorProto.UINT8}) | _BLOCKED
SYMMETRIC = "quantise with the quantizer 'tensorrt' instead of an asymmetric one"


def code_type(view: View, node: NodeProto) -> int:
    """TensorProto.DataType of the codes that a quantiser writes or reads; 0 where it is unknown."""
    if node.op_type == "DequantizeLinear":
        known = view.type(node.input[0])
        if known:
            return known
    if len(node.input) > 2 and node.input[2]:
        return view.type(node.input[2])
    return graph.attribute(node, "output_dtype", 0) or TensorProto.UINT8


def _zero_points(view: View) -> Iterator[tuple[NodeProto, bool]]:
    """Quantisers with a zero point that TensorRT does not take, and whether it is a constant."""
    for node in view.quantizers():
        if len(node.input) < 3 or not node.input[2] or not first_of_pair(view, node):
            continue
        zero = view.value(node.input[2])
        if zero is None or (zero.astype(np.float64) != 0).any():
            yield node, zero is not None


def _symmetric(view: View) -> Iterator[Hit]:
    for node, constant in _zero_points(view):
        if code_type(view, node) == TensorProto.UINT8 and constant:
            continue  # Q2 has more to say
        if constant:
            yield Hit(node, "the zero point is not 0; TensorRT takes symmetric quantisation only", SYMMETRIC)
        else:
            yield Hit(node, "the zero point is computed in the graph", "calibrate static ranges")


def _unsigned(view: View) -> Iterator[Hit]:
    for node, constant in _zero_points(view):
        if code_type(view, node) == TensorProto.UINT8 and constant:
            yield Hit(
                node,
                "uint8 with a zero point that is not 0; TensorRT takes that on the DLA of an Orin only, behind "
                "ENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA",
                SYMMETRIC,
            )


def _types(view: View) -> Iterator[Hit]:
    for node in view.quantizers():
        kind = code_type(view, node)
        if node.op_type == "DequantizeLinear" and kind and kind not in _TAKEN:
            name = type_name(kind)
            bias = [
                reader
                for reader in view.readers.get(node.output[0], [])
                if len(reader.input) > 2 and reader.input[2] == node.output[0]
            ]
            what = f"the bias of {bias[0].name} is {name} behind DequantizeLinear" if bias else f"it dequantises {name}"
            yield Hit(node, f"{what}; TensorRT takes int8, fp8 and int4 there", "keep that tensor in float")


def _not_scalar(view: View) -> Iterator[Hit]:
    for node in view.quantizers():
        if view.shape(node.input[0]) == () and first_of_pair(view, node):
            yield Hit(node, "a scalar is quantised", "keep it in float")


def _blocks(view: View) -> Iterator[Hit]:
    for node in view.quantizers():
        kind = code_type(view, node)
        shape = view.shape(node.input[1])
        blocked = graph.attribute(node, "block_size", 0) > 0 or (shape is not None and len(shape) > 1)
        if blocked and kind not in _BLOCKED:
            yield Hit(
                node,
                "scales per block of a type other than fp4, fp8 and int4",
                "quantise int8 weights per output channel",
            )
        elif blocked and not _last_axes(view, node):
            yield Hit(
                node, "blocks along an axis other than the last two", "block along the last axis or the one before"
            )
        if kind in FOUR_BITS and node.op_type == "QuantizeLinear" and node.input[0] not in view.fixed:
            yield Hit(
                node, "an activation is quantised to int4, which is for weights only", "keep it in float16 or int8"
            )


def _last_axes(view: View, node: NodeProto) -> bool:
    shape = view.shape(node.input[0])
    axis = graph.attribute(node, "axis", 1)
    return shape is None or (axis if axis >= 0 else axis + len(shape)) >= len(shape) - 2


RULES = (
    Rule(
        "Q1",
        "Quantisation is symmetric: every zero point is a constant 0",
        f"{HEADERS}; {BUILT}",
        "refused",
        TENSORRT,
        _symmetric,
    ),
    Rule(
        "Q2",
        "uint8 has zero point 0",
        f'{HEADERS}; {BUILT}; "ONNX Parser Flags for DLA"',
        "refused",
        TENSORRT,
        _unsigned,
    ),
    Rule(
        "Q8",
        "Biases are float; only int8, uint8, fp8, fp4 and int4 stand behind DequantizeLinear",
        f"{BUILT}; pytorch/pytorch#133552",
        "refused",
        TENSORRT,
        _types,
    ),
    Rule("Q10", "What is quantised is not a scalar", HEADERS, "refused", TENSORRT, _not_scalar),
    Rule(
        "Q11",
        "Scales per block are for fp4, fp8 and int4 on the last two axes; int4 is for weights",
        f"{HEADERS}; {QUANTIZED_TYPES}",
        "refused",
        TENSORRT,
        _blocks,
    ),
)
