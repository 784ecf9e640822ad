"""Q3 to Q5, Q9: what a scale must be. One file, because each looks at the second input of a quantiser."""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from exporters.lint.finding import ALL, BUILT, HEADERS, QUANTIZED_TYPES, TENSORRT, Hit, Rule
from exporters.lint.view import View, type_name
from exporters.passes.floor_scales import RELATIVE_FLOOR, SMALLEST_NORMAL

_NARROW: frozenset[int] = frozenset({TensorProto.FLOAT16, TensorProto.BFLOAT16})
FLOOR = "export with simplify=True, which floors the scales of dead channels (exporters/passes/floor_scales.py)"


def first_of_pair(view: View, node: NodeProto) -> bool:
    """False for a DequantizeLinear with the constants of the QuantizeLinear in front: one breach, one finding."""
    maker = view.makers.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
    return maker is None or maker.op_type != "QuantizeLinear" or list(maker.input[1:]) != list(node.input[1:])


def _positive(view: View) -> Iterator[Hit]:
    for node in view.quantizers():
        scale = view.value(node.input[1])
        if scale is None or not first_of_pair(view, node):
            continue
        values = scale.astype(np.float64)
        if values.size == 0 or np.isnan(values).any() or (values <= 0).any():
            bad = int((~(values > 0)).sum())
            of = f"{bad} of {values.size} scales are" if values.size > 1 else "the scale is"
            yield Hit(node, f"{of} not positive and finite, and one such scale refuses the whole model", FLOOR)


def _finite(view: View) -> Iterator[Hit]:
    for node in view.quantizers():
        scale = view.value(node.input[1])
        if scale is None or not first_of_pair(view, node):
            continue
        values = scale.astype(np.float64)
        if np.isinf(values).any():
            yield Hit(
                node,
                "a scale is not positive and finite but +Inf: compilers accept that silently, and the tensor becomes "
                "zeros or NaN",
                "calibrate again on data without NaN or infinity",
            )
            continue
        values = values[values > 0]
        if values.size == 0:
            continue
        if values.min() < SMALLEST_NORMAL and scale.dtype != np.float16:
            yield Hit(node, f"a scale of {values.min():.1e} is below what float32 can divide by", FLOOR)
        elif values.min() < values.max() * RELATIVE_FLOOR * (1 - 1e-6):
            yield Hit(
                node,
                f"the smallest scale, {values.min():.1e}, is below 2^-24 of the largest, {values.max():.1e}: that "
                "channel is dead",
                FLOOR,
                level="note",
            )


def _constant(view: View) -> Iterator[Hit]:
    for node in view.quantizers():
        if not first_of_pair(view, node):
            continue
        if node.input[1] not in view.fixed:
            yield Hit(
                node,
                "the scale is computed in the graph (dynamic quantisation), which can crash the builder",
                "calibrate static scales",
            )
            continue
        scale = view.value(node.input[1])
        if scale is not None and scale.size > 1 and node.input[0] not in view.fixed and _codes_computed(view, node):
            yield Hit(
                node,
                f"an activation has {scale.size} scales, one per channel: it is dequantised and what reads it runs "
                "in float",
                "quantise activations per tensor",
                level="slow",
            )


def _codes_computed(view: View, node: NodeProto) -> bool:
    """Whether the codes are an activation's; rows that are looked up in a stored table are the table's."""
    maker = view.makers.get(node.input[0])
    looked_up = maker is not None and maker.op_type == "Gather" and maker.input[0] in view.fixed
    return node.op_type == "QuantizeLinear" or (maker is not None and not looked_up)


def _scale_type(view: View) -> Iterator[Hit]:
    for node in view.quantizers():
        scale = view.type(node.input[1])
        if node.op_type == "QuantizeLinear":
            data = view.type(node.input[0])
            if data and scale and data != scale and (scale in _NARROW or data in _NARROW):
                yield Hit(
                    node,
                    f"the scale is {type_name(scale)} and the tensor {type_name(data)}",
                    "write scales in the type of the tensor that they scale",
                )
        elif scale in _NARROW:
            for reader in view.readers.get(node.output[0], []):
                wide = [name for name in reader.input if view.type(name) == TensorProto.FLOAT]
                if wide and reader.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul"):
                    yield Hit(
                        node,
                        f"the scale is {type_name(scale)}, and {reader.name} also reads float32",
                        "write scales in the type of the tensor that they scale",
                    )
                    break


RULES = (
    Rule("Q3", "A scale is positive", f"{HEADERS}; {BUILT}", "refused", ALL, _positive),
    Rule(
        "Q4",
        "A scale is finite, and at least 2^-24 of its tensor's largest",
        f"{BUILT}: +Inf and 1e-40 are accepted silently",
        "wrong",
        ALL,
        _finite,
    ),
    Rule(
        "Q5",
        "Activations have one constant scale per tensor",
        f"{HEADERS}; {BUILT}: a computed scale ended the builder with a segmentation fault; NVIDIA/TensorRT#4698",
        "refused",
        frozenset({"tensorrt", "c"}),
        _constant,
    ),
    Rule(
        "Q9",
        "A scale has the type of its tensor",
        f"{HEADERS}; {QUANTIZED_TYPES}; {BUILT}",
        "refused",
        TENSORRT,
        _scale_type,
    ),
)
