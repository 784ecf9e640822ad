"""P3, P5, P7, P11: operators that join two computed tensors, or average one."""

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from exporters.lint.finding import ALL, BUILT, ORT, QUANTIZED_TYPES, TENSORRT, Hit, Rule
from exporters.lint.view import ACTIVATIONS, View, numbers

_NORM = frozenset({"BatchNormalization"})


def from_int8_convolution(view: View, tensor: str, through: frozenset[str] = _NORM) -> bool:
    """Whether a quantised Conv computes the tensor, but for nodes of the kinds `through` behind it."""
    start = view.before(tensor, through)
    maker = view.makers.get(start)
    return maker is not None and maker.op_type == "Conv" and start in view.quantised


def _computed(view: View, node: NodeProto) -> list[str]:
    return [name for name in node.input if name and name not in view.fixed]


def _skips(view: View) -> Iterator[Hit]:
    for node in view.nodes:
        if node.op_type != "Add":
            continue
        sources = _computed(view, node)
        if len(sources) != 2 or _differ(view, sources):
            continue
        encoded = [view.dequantizer(source) is not None for source in sources]
        if view.device.runtime == "tensorrt":
            if not any(encoded) and any(from_int8_convolution(view, source) for source in sources):
                yield Hit(
                    node,
                    "no branch of this residual add is quantised: the kernel reads a float tensor for the skip",
                    "quantise the skip branch, with the scale of the convolution that reads the same tensor",
                )
        elif not all(encoded) and (any(encoded) or any(from_int8_convolution(view, source) for source in sources)):
            yield Hit(
                node,
                "not both branches of this residual add are quantised: it runs in float, and so does the convolution "
                "in front of the branch that is not",
                "quantise both branches, and the sum",
            )


def _differ(view: View, names: list[str]) -> bool:
    shapes = [view.shape(name) for name in names]
    return None not in shapes and shapes[0] != shapes[1]


def _one_scale(view: View) -> Iterator[Hit]:
    for node in view.nodes:
        if node.op_type != "Concat":
            continue
        pairs = [(name, view.dequantizer(name)) for name in _computed(view, node)]
        scales = [view.value(pair.input[1]) for _, pair in pairs if pair is not None]
        values = {float(scale.reshape(-1)[0]) for scale in scales if scale is not None and scale.size == 1}
        if len(values) > 1:
            listed = ", ".join(f"{value:.4g}" for value in sorted(values))
            yield Hit(
                node,
                f"its inputs have different scales ({listed}): all but one are requantised",
                "calibrate one scale for all of them",
            )
        elif values and any(pair is None and view.type(name) in (1, 10) for name, pair in pairs):
            yield Hit(
                node,
                "some inputs are quantised and some are float: the quantised ones are decoded first",
                "quantise all of them with one scale, or none",
            )


def _averages(view: View) -> Iterator[Hit]:
    for node in view.nodes:
        if _is_average(view, node):
            if view.dequantizer(node.input[0]) is None and from_int8_convolution(view, node.input[0], ACTIVATIONS):
                yield Hit(
                    node,
                    "the average reads the float result of an int8 convolution",
                    "quantise its input: a quarter of the bytes",
                )
        elif node.op_type == "Mul" and _is_gate(view, node):
            sources = _computed(view, node)
            encoded = [view.dequantizer(name) is not None for name in sources]
            if not all(encoded) and (
                any(encoded) or any(from_int8_convolution(view, name, ACTIVATIONS) for name in sources)
            ):
                yield Hit(
                    node,
                    "the squeeze-excite product reads a float tensor in an int8 network",
                    "quantise both of its inputs",
                )


def _is_average(view: View, node: NodeProto) -> bool:
    if node.op_type == "GlobalAveragePool":
        return True
    if node.op_type != "ReduceMean":
        return False
    shape = view.shape(node.input[0])
    axes: list[int] = numbers(node, "axes", [])
    if len(node.input) > 1:
        given = view.value(node.input[1])
        axes = [int(axis) for axis in np.reshape(given, -1)] if given is not None else []
    if shape is None or len(shape) < 3:
        return False
    return sorted(axis % len(shape) for axis in axes) == list(range(2, len(shape)))


def _is_gate(view: View, node: NodeProto) -> bool:
    """Two computed factors, one of which has one value per channel."""
    sources = _computed(view, node)
    if len(sources) != 2:
        return False
    shapes = [view.shape(name) for name in sources]
    if None in shapes or len({len(shape) for shape in shapes if shape is not None}) != 1:
        return False
    ranks = [shape for shape in shapes if shape is not None]
    return len(ranks[0]) > 2 and [all(size == 1 for size in shape[2:]) for shape in ranks].count(True) == 1


def _attention(view: View) -> Iterator[Hit]:
    if not any(product.quantised and product.constant for product in view.products):
        return
    for product in view.products:
        if not product.constant and product.node.op_type == "MatMul" and product.data_dq is None is product.weight_dq:
            yield Hit(
                product.node,
                "a product of two computed tensors is float in an int8 network",
                "quantise both inputs: both products of attention run in int8, and its projections become one",
            )


RULES = (
    Rule(
        "P3",
        "The skip branch of a residual add is quantised",
        f"TensorRT documentation, adding custom Q/DQ insertion cases; {BUILT}; {ORT}",
        "slow",
        ALL,
        _skips,
    ),
    Rule("P5", "All inputs of a Concat have one scale", BUILT, "slow", ALL, _one_scale),
    Rule(
        "P7",
        "Global average pools and both inputs of the squeeze-excite product are quantised",
        "NVIDIA TensorFlow quantization toolkit documentation (EfficientNet)",
        "slow",
        ALL,
        _averages,
    ),
    Rule(
        "P11",
        "Both inputs of attention's products are quantised",
        f"{QUANTIZED_TYPES}; {BUILT}",
        "slow",
        TENSORRT,
        _attention,
    ),
)
