"""Q6, Q7: how weights are quantised."""

from collections.abc import Iterator

from onnx import NodeProto

from exporters import graph
from exporters.lint.finding import ALL, BUILT, HEADERS, ORT, QUANTIZED_TYPES, Hit, Rule
from exporters.lint.view import PER_CHANNEL_AXIS, Product, View, numbers


def right_axis(view: View, product: Product) -> int | None:
    """The axis of the weight's codes that holds output channels; None where shapes hide it."""
    shape = view.shape(product.weight)
    node = product.node
    if node.op_type in PER_CHANNEL_AXIS:
        axis = PER_CHANNEL_AXIS[node.op_type]
    elif node.op_type == "Gemm":
        if product.weight != node.input[1]:
            return None
        axis = 0 if graph.attribute(node, "transB", 0) else 1
    elif shape is None:
        return None
    else:
        axis = len(shape) - (1 if product.weight == node.input[1] else 2)
    for step in view.origin(product.weight)[1]:  # from the node back to the codes
        if step.op_type != "Transpose":
            return None
        axis = numbers(step, "perm", list(range(len(view.shape(step.input[0]) or ())))[::-1] or [1, 0])[axis]
    return axis


def _axes(view: View) -> Iterator[Hit]:
    for product in view.products:
        weight = product.weight_dq
        if weight is None or not product.constant or graph.attribute(weight, "block_size", 0):
            continue
        scale = view.value(weight.input[1])
        if scale is None:
            continue
        wanted = right_axis(view, product)
        codes = view.shape(weight.input[0])
        if scale.size == 1:
            if codes is not None and wanted is not None and wanted < len(codes) and codes[wanted] != 1:
                # TensorRT-RTX keeps int8 kernels there: it costs accuracy, not speed.
                yield Hit(
                    product.node,
                    "all output channels of its weight share one scale",
                    "quantise weights per output channel: as fast, and rounds less",
                    level="note",
                )
            continue
        axis = graph.attribute(weight, "axis", 1)
        axis += len(codes) if axis < 0 and codes is not None else 0
        if wanted is not None and axis != wanted:
            wrong = view.device.runtime == "onnxruntime"
            yield Hit(
                product.node,
                f"its weight has scales along axis {axis}, and output channels are axis {wanted}: "
                + ("the integer kernel applies them to the wrong channels" if wrong else "it builds and runs in float"),
                f"quantise the weight along axis {wanted}",
                level="wrong" if wrong else None,
            )


def _stored(view: View) -> Iterator[Hit]:
    for product in view.products:
        weight = product.weight_dq
        maker: NodeProto | None = view.makers.get(weight.input[0]) if weight is not None else None
        if maker is not None and maker.op_type == "QuantizeLinear" and product.constant:
            yield Hit(
                product.node,
                "its weight is stored in float and quantised when it is loaded, so the file is four times larger",
                "export with simplify=True, which stores int8 codes (exporters/passes/fold_weight_quantizers.py)",
            )


RULES = (
    Rule(
        "Q6",
        "Weights have a scale per output channel: axis 0 of Conv, 1 of ConvTranspose, 0 of Gemm with transB, the last "
        "of MatMul",
        f"{HEADERS}; {BUILT}: a wrong axis builds, and its products run in float; {ORT}: another result",
        "slow",
        ALL,
        _axes,
    ),
    Rule("Q7", "Weights are stored as int8 codes", f"{QUANTIZED_TYPES}; {BUILT}", "note", ALL, _stored),
)
