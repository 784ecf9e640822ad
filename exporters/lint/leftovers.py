"""P8, P12, P15: what should stay float, and what float costs beside int8."""

from collections.abc import Iterator

from onnx import TensorProto

from exporters.lint.branches import from_int8_convolution
from exporters.lint.finding import BUILT, TENSORRT, Hit, Rule
from exporters.lint.view import ACTIVATIONS, View

FLOAT_ONLY = frozenset(
    {
        "Softmax",
        "LogSoftmax",
        "LayerNormalization",
        "RMSNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "GRU",
        "LSTM",
        "RNN",
    }
)
RUN_TIME_STATISTICS = frozenset(
    {"InstanceNormalization", "GroupNormalization", "LRN", "LpNormalization", "MeanVarianceNormalization"}
)


def _kept_float(view: View) -> Iterator[Hit]:
    for node in view.nodes:
        if node.op_type == "ConvTranspose" and len(node.input) > 1 and view.dequantizer(node.input[1]) is not None:
            yield Hit(
                node,
                "its weight is quantised, and a transposed convolution runs in float all the same, behind kernels "
                "that decode",
                "leave transposed convolutions in float (float_modules)",
                level="slow",
            )
        elif node.op_type in FLOAT_ONLY:
            encoded = [name for name in node.input if name and view.dequantizer(name) is not None]
            if encoded:
                yield Hit(
                    node,
                    f"{node.op_type} runs in float, and a pair in front of it rounds its input for nothing",
                    "remove that pair",
                )


def _fused(view: View) -> Iterator[Hit]:
    for node in view.nodes:
        if node.op_type in RUN_TIME_STATISTICS and from_int8_convolution(view, node.input[0], ACTIVATIONS):
            yield Hit(
                node,
                f"{node.op_type} behind an int8 convolution takes its statistics at run time: float kernels of its own",
                "use BatchNorm, which folds into the weights",
            )


def _float_beside_int8(view: View) -> Iterator[Hit]:
    if not any(product.quantised for product in view.products):
        return
    left = [
        product.node
        for product in view.products
        if not product.quantised and product.constant and view.type(product.data) == TensorProto.FLOAT
    ]
    if left:
        names = ", ".join(node.name for node in left[:3]) + (", ..." if len(left) > 3 else "")
        yield Hit(
            None,
            f"{len(left)} of {len(view.products)} products are float32 beside int8 ones: {names}",
            "measure it against float16, and cast what stays float to float16",
        )


RULES = (
    Rule(
        "P8",
        "Softmax, normalisations over run-time statistics, recurrent layers and transposed convolutions stay float",
        f"{BUILT}; NVIDIA/TensorRT#1699; ultralytics/ultralytics#26171",
        "note",
        TENSORRT,
        _kept_float,
    ),
    Rule(
        "P12",
        "What follows an int8 convolution joins its kernels: any pointwise activation does",
        f"{BUILT}: Relu, Clip, HardSwish, Sigmoid, Tanh, Erf, Softplus, HardSigmoid and ten others",
        "note",
        TENSORRT,
        _fused,
    ),
    Rule(
        "P15",
        "What stays float in an int8 graph is float16, not float32",
        "NVIDIA/TensorRT#3197, #993, #4554; ultralytics/ultralytics#26159",
        "note",
        TENSORRT,
        _float_beside_int8,
    ),
)
