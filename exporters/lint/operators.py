"""Q12 to Q14: opset, operators and dynamic sizes."""

from collections.abc import Iterator

from onnx import TensorProto

from exporters import graph
from exporters.lint.codes import code_type
from exporters.lint.finding import ALL, BUILT, TENSORRT, Hit, Rule
from exporters.lint.view import View, ordinary

# OnnxParser.supports_operator of TensorRT-RTX 1.7.1 is False for these operators of the ONNX standard.
NOT_PARSED = frozenset(
    {
        *("AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
        *("CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "CumProd", "DFT", "DeformConv"),
        *("Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool"),
        *("MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement"),
        *("OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct"),
        *("SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap"),
        *("SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU"),
        *("TfIdfVectorizer", "Unique"),
    }
)
INTEGER_OPERATORS = frozenset({"DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger"})
PARSED = 23  # opset that TensorRT-RTX 1.7.1 parses, whose parser is that of TensorRT 10 and 11
ONNXRUNTIME_DOMAINS = frozenset({"com.microsoft", "com.ms.internal.nhwc"})
_EIGHT_BIT_FLOATS = frozenset({TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2})
_FOUR_BITS = frozenset({TensorProto.INT4, TensorProto.UINT4})


def _opset(view: View) -> Iterator[Hit]:
    opset = graph.opset(view.model)
    for node in view.quantizers():
        kind = code_type(view, node)
        scale = view.shape(node.input[1])
        needs = 10
        why = "Q/DQ"
        if scale is not None and len(scale) == 1 and scale != (1,):
            needs, why = 13, "scales per channel"
        if kind in _EIGHT_BIT_FLOATS:
            needs, why = 19, "fp8"
        if kind in _FOUR_BITS or graph.attribute(node, "block_size", 0):
            needs, why = 21, "int4 and scales per block"
        if opset < needs:
            yield Hit(node, f"the file is opset {opset}, and {why} need {needs}", f"export with opset {needs} or later")
    known = view.device.opset
    if view.device.runtime == "tensorrt" and known and not view.device.version.startswith("8."):
        known = max(known, PARSED)
    if known and opset > known:
        yield Hit(
            None,
            f"the file is opset {opset}; the runtime of {view.device.name} is known to read up to {known}",
            f"export with opset {known}",
            level="note",
        )


def _operators(view: View) -> Iterator[Hit]:
    tensorrt = view.device.runtime == "tensorrt"
    for node in view.nodes:
        if tensorrt and ordinary(node) and node.op_type in INTEGER_OPERATORS:
            yield Hit(
                node,
                f"{node.op_type} is an integer operator, which TensorRT does not have",
                "quantise with QuantizeLinear/DequantizeLinear pairs (the quantizer 'tensorrt')",
            )
        elif tensorrt and ordinary(node) and node.op_type in NOT_PARSED:
            yield Hit(node, f"TensorRT's parser has no {node.op_type}", "write that part with other operators")
        elif not ordinary(node) and (tensorrt or view.device.runtime == "c" or node.domain not in ONNXRUNTIME_DOMAINS):
            yield Hit(
                node,
                f"{node.domain}::{node.op_type} is not an operator of the ONNX standard: without a plugin the parser "
                "refuses it",
                "export with standard operators; quantisation as QuantizeLinear/DequantizeLinear",
            )


def _dynamic(view: View) -> Iterator[Hit]:
    for name in view.inputs:
        shape = view.shape(name)
        if shape is None or not any(isinstance(size, str) for size in shape[1:]):
            continue
        yield Hit(
            None,
            f"input {name!r} has dynamic sizes besides the batch: {list(shape)}",
            "give the build its shape (BuildOptions.shapes), which becomes an optimisation profile",
        )


RULES = (
    Rule(
        "Q12",
        "The opset has what the quantisation needs: 13 for scales per channel, 19 for fp8, 21 for int4",
        f"{BUILT}: opsets 10, 13, 17, 21 and 23 parse; NVIDIA/Model-Optimizer, modelopt/onnx/quantization",
        "refused",
        ALL,
        _opset,
    ),
    Rule(
        "Q13",
        "Standard operators only, and those that the runtime has",
        "OnnxParser.supports_operator of TensorRT-RTX 1.7.1",
        "refused",
        ALL,
        _operators,
    ),
    Rule("Q14", "Sizes are static but for the batch, or have a profile", BUILT, "note", TENSORRT, _dynamic),
)
