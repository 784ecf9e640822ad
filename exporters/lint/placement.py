"""P1, P2, P4, P6: where a pair stands around one operator."""

from collections.abc import Iterator

from onnx import NodeProto

from exporters.lint.codes import FOUR_BITS, code_type
from exporters.lint.finding import ALL, BUILT, ORT, QUANTIZED_TYPES, TENSORRT, Hit, Rule
from exporters.lint.view import ACTIVATIONS, CLAMPS, View


def _both_inputs(view: View) -> Iterator[Hit]:
    for product in view.products:
        node = product.node
        if node.op_type == "ConvTranspose" or (product.data_dq is None) == (product.weight_dq is None):
            continue
        if product.weight_dq is not None and product.constant:
            if code_type(view, product.weight_dq) in FOUR_BITS:
                continue  # weight-only on purpose: int4 is for nothing else
            matrix = node.op_type in ("Gemm", "MatMul")
            yield Hit(
                node,
                "only its weight is quantised: it runs in float"
                + (", with the weight decoded on the way" if matrix else ", behind a kernel that decodes the weight"),
                "quantise its input too, or leave the weight in float",
                level="note" if matrix else None,
            )
        else:
            which = "its other input is not" if not product.constant else "its weight is not"
            yield Hit(
                node,
                f"one input is quantised and {which}: it runs in float, behind a kernel that rounds",
                "quantise both, or neither",
            )


def _outputs(view: View) -> Iterator[Hit]:
    for node in view.nodes:
        if node.op_type != "DequantizeLinear" or node.input[0] in view.fixed:
            continue
        tensor = node.output[0]
        readers = view.readers.get(tensor, [])
        if not readers and tensor in view.outputs:
            yield Hit(
                node,
                "the network's output is quantised: it is rounded, and nothing reads the codes",
                "leave the output in float",
            )
        elif readers and tensor not in view.outputs and all(reader.op_type == "QuantizeLinear" for reader in readers):
            yield Hit(
                node,
                f"the tensor is quantised twice in a row, here and at {readers[0].name}: a requantise kernel",
                "keep the pair at the consumer",
            )


def _between(view: View) -> Iterator[Hit]:
    folding = ACTIVATIONS if view.device.runtime == "tensorrt" else CLAMPS
    for product in view.products:
        if not product.quantised or product.node.op_type == "ConvTranspose":
            continue
        reader = _only_reader(view, product.node.output[0])
        if reader is None:
            continue
        if reader.op_type == "BatchNormalization":
            yield Hit(
                reader,
                f"the BatchNormalization behind {product.node.name} is not folded into its weights",
                "fold it before export: scales per channel are multiplied by its factors, codes stay",
                level="note" if view.device.runtime == "tensorrt" else None,
            )
        if reader.op_type != "QuantizeLinear":
            continue
        dequantize = _only_reader(view, reader.output[0])
        behind = _only_reader(view, dequantize.output[0]) if dequantize is not None else None
        if behind is not None and (behind.op_type in folding or behind.op_type == "BatchNormalization"):
            yield Hit(
                reader,
                f"a pair stands between {product.node.name} and its {behind.op_type}: two kernels instead of one, and "
                "the scale covers values that are cut off next",
                f"put the pair behind the {behind.op_type}",
            )


def _at_the_consumer(view: View) -> Iterator[Hit]:
    for product in view.products:
        if product.data_dq is None:
            continue
        for step in view.origin(product.data)[1]:
            if step.op_type in ("MaxPool", "Resize"):
                yield Hit(
                    step,
                    f"it stands between {product.data_dq.name} and {product.node.name}, which has no pair of its own",
                    f"put the pair behind the {step.op_type}, at its consumer",
                )


def _only_reader(view: View, tensor: str) -> NodeProto | None:
    readers = view.readers.get(tensor, [])
    return readers[0] if len(readers) == 1 and tensor not in view.outputs else None


RULES = (
    Rule(
        "P1",
        "Both inputs of each Conv, Gemm and MatMul are quantised, or neither",
        f"{QUANTIZED_TYPES}; {BUILT}",
        "slow",
        TENSORRT,
        _both_inputs,
    ),
    Rule(
        "P2",
        "A layer's output is not quantised as well: the next layer's input is",
        f"{QUANTIZED_TYPES}; {BUILT}",
        "slow",
        TENSORRT,
        _outputs,
    ),
    Rule(
        "P4",
        "Nothing stands between Conv, BatchNormalization and activation, and BatchNormalization is folded",
        f"{QUANTIZED_TYPES}; {BUILT}; {ORT}; ultralytics/ultralytics#26171",
        "slow",
        ALL,
        _between,
    ),
    Rule(
        "P6",
        "A pair stands behind a MaxPool or nearest Resize, at the consumer",
        f"{QUANTIZED_TYPES}; {BUILT}: the pool runs in int8 either way, with the scale of its larger input",
        "note",
        TENSORRT,
        _at_the_consumer,
    ),
)
