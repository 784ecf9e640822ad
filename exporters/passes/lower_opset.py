"""Write a model in an older opset.

Torch's exporter starts at 18, and onnx's own version converter fails on axes that are initializers. Most operators did
not change; those that did and that our networks use are rewritten or written out in older ones, the rest is refused by
name.

Requires: a model of opset 23 or older, asked opset 13 or later.
Ensures: the same outputs, bit for bit where an operator only states its arguments differently, within float rounding
where it is written out (LayerNormalization, GroupNormalization, Gelu, HardSwish, Mish, ...); every node's operator is
defined for the asked opset as it stands.

Raises ExportError naming the operators that the asked opset cannot express.
"""

import onnx
from onnx import ModelProto, NodeProto, helper

from exporters import graph, older_operators
from exporters.errors import ExportError
from exporters.older_operators import Known, Rule, Written, with_attributes, without
from exporters.passes import stft_to_matmul

LARGEST_CHANGE = 1e-5  # relative, of the outputs: operators written out add in another order
OLDEST = 13  # per-channel DequantizeLinear starts here
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
STFT_SINCE = 17


def apply(model: ModelProto, asked: int) -> ModelProto:
    """The same model in opset `asked`; unchanged where it is that old already."""
    if graph.opset(model) <= asked:
        return model
    if asked < OLDEST:
        raise ExportError(
            f"opset {asked} has no per-channel quantisation", fix=f"use a runtime with opset {OLDEST} or later"
        )
    model = graph.copy(stft_to_matmul.apply(model) if asked < STFT_SINCE else model)
    known = Known(graph.constants(model.graph), graph.shapes(model), asked)
    written = graph.opset(model)
    refused: set[str] = set()
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        made = _older(node, known, written)
        if made is None:
            refused.add(node.op_type)
        else:
            nodes += made
    if refused:
        raise ExportError(
            f"opset {asked} has no {' and no '.join(sorted(refused))} as this model uses it",
            fix=f"raise the target's opset towards {written}, or replace that part of the model",
        )
    graph.replace_nodes(model.graph, nodes)
    for entry in model.opset_import:
        if entry.domain in graph.STANDARD_DOMAINS:
            entry.version = asked
    return model


def _older(node: NodeProto, known: Known, written: int) -> Written:
    """What stands for a node in the asked opset; None where nothing does."""
    if node.domain not in graph.STANDARD_DOMAINS:
        return [node]
    since = _version(node.op_type, known.asked)
    if _version(node.op_type, written) <= known.asked and since > 0:
        return [node]
    rule = RULES.get(node.op_type)
    return None if rule is None else rule(node, known)


def _version(operator: str, opset: int) -> int:
    """The opset in which the definition of `operator` that `opset` uses appeared; 0 where it has none."""
    try:
        schema = onnx.defs.get_schema(operator, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return 0
    return 0 if schema.deprecated else int(schema.since_version)


def _reduction(node: NodeProto, known: Known) -> Written:
    """Axes were an attribute before opset 18 (ReduceSum: 13)."""
    if graph.attribute(node, "noop_with_empty_axes", 0):
        return None
    kept = [item for item in node.attribute if item.name != "noop_with_empty_axes"]
    if known.asked >= 18:
        return [node]
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in known.values:
            return None
        axes = [int(axis) for axis in graph.array(known.values[node.input[1]]).ravel()]
        kept.append(helper.make_attribute("axes", axes))
    return [with_attributes(node, node.input[:1], kept)]


def _pad(node: NodeProto, known: Known) -> Written:
    """The input `axes` came with 18, the mode wrap with 19."""
    if any(item.name == "mode" and item.s == b"wrap" for item in node.attribute):
        return None
    return [node] if known.asked >= 18 or len(node.input) <= 3 or not node.input[3] else None


def _split(node: NodeProto, known: Known) -> Written:
    """The attribute num_outputs came with 18; without it and without sizes the parts are equal."""
    if len(node.input) > 1 and node.input[1]:
        return [node]
    shape = known.shapes.get(node.input[0])
    size = shape[graph.attribute(node, "axis", 0)] if shape else ""
    if not isinstance(size, int) or size % len(node.output):
        return None
    return [with_attributes(node, node.input, [item for item in node.attribute if item.name != "num_outputs"])]


def _resize(node: NodeProto, known: Known) -> Written:
    """Antialiasing, axes and aspect ratios came with 18, half_pixel_symmetric with 19."""
    if any(
        item.name == "coordinate_transformation_mode" and item.s == b"half_pixel_symmetric" for item in node.attribute
    ):
        return None
    if known.asked >= 18:
        return [node]
    if any(item.name == "axes" for item in node.attribute):
        return None
    return without(node, antialias=0, keep_aspect_ratio_policy=b"stretch")


def _reshape(node: NodeProto, known: Known) -> Written:
    """allowzero came with 14; without a zero in the shape it changes nothing."""
    if known.asked >= 14:
        return [node]
    shape = known.values.get(node.input[1])
    if graph.attribute(node, "allowzero", 0) and (shape is None or (graph.array(shape) == 0).any()):
        return None
    return [with_attributes(node, node.input, [item for item in node.attribute if item.name != "allowzero"])]


def _quantizer(node: NodeProto, known: Known) -> Written:
    """float8 came with 19, blocks and four bits with 21, a type of its own for the scale with 23."""
    if known.asked >= 21:
        return without(node, precision=0, output_dtype=0) if known.asked < 23 else [node]
    if len(node.input) < 3:
        kinds = {"output_dtype": 0}
    else:
        zero = known.values.get(node.input[2])
        if zero is None or zero.data_type not in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8):
            return None
        kinds = {"output_dtype": graph.attribute(node, "output_dtype", 0)}  # the zero point says the same
    scale = known.values.get(node.input[1])
    if known.asked < 19 and scale is not None and scale.data_type != onnx.TensorProto.FLOAT:
        return None
    saturate = {} if known.asked >= 19 else {"saturate": 1}
    return without(node, precision=0, block_size=0, **kinds, **saturate)


def _average_pool(node: NodeProto, known: Known) -> Written:
    """Dilations came with 19."""
    given = [list(item.ints) for item in node.attribute if item.name == "dilations"]
    if known.asked >= 19 or not given:
        return [node]
    return without(node, dilations=[1] * len(given[0]))


def _grid_sample(node: NodeProto, known: Known) -> Written:
    """Modes were named after two dimensions before opset 20, and volumes were not sampled."""
    if known.asked < 16 or len(known.shapes.get(node.input[0], ())) != 4:
        return None
    older = {b"linear": b"bilinear", b"cubic": b"bicubic", b"nearest": b"nearest"}
    kept = [item for item in node.attribute if item.name != "mode"]
    given = [item.s for item in node.attribute if item.name == "mode"] or [b"linear"]
    return [with_attributes(node, node.input, [*kept, helper.make_attribute("mode", older.get(given[0], given[0]))])]


def _without(**defaults: object) -> Rule:
    """A rule for operators that only gained attributes (and types)."""
    return lambda node, known: without(node, **defaults)


def _same(node: NodeProto, known: Known) -> Written:
    """Newer versions only add types."""
    return [node]


RULES: dict[str, Rule] = {
    **{f"Reduce{name}": _reduction for name in REDUCTIONS},
    **dict.fromkeys(("Abs", "Acos", "Add", "And", "Atan", "Ceil", "Constant", "ConstantOfShape", "Conv", "Cos"), _same),
    **dict.fromkeys(
        ("ConvTranspose", "CumSum", "DepthToSpace", "Div", "Equal", "Erf", "Exp", "Expand", "Flatten"), _same
    ),
    **dict.fromkeys(("Floor", "Gather", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "Greater", "HardSigmoid"), _same),
    **dict.fromkeys(("GreaterOrEqual", "Identity", "InstanceNormalization", "LeakyRelu", "Less", "LessOrEqual"), _same),
    **dict.fromkeys(("Log", "LpNormalization", "MatMul", "Max", "MaxPool", "Min", "Mul", "Neg", "Pow", "PRelu"), _same),
    **dict.fromkeys(("Reciprocal", "Relu", "Round", "Selu", "Elu", "Sigmoid", "Sign", "Sin", "Size", "Slice"), _same),
    **dict.fromkeys(
        ("Softplus", "Softsign", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh", "Tile", "Transpose"), _same
    ),
    **dict.fromkeys(("Unsqueeze", "Where", "Concat", "Clip", "Dropout", "Softmax", "ThresholdedRelu"), _same),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _without(layout=0)),
    **dict.fromkeys(("ScatterElements", "ScatterND"), _without(reduction=b"none")),
    **dict.fromkeys(("DequantizeLinear", "QuantizeLinear"), _quantizer),
    "AveragePool": _average_pool,
    "BatchNormalization": _without(training_mode=0),
    "Cast": _without(saturate=1, round_mode=b"up"),
    "Gelu": older_operators.gelu,
    "GridSample": _grid_sample,
    "GroupNormalization": older_operators.group_normalization,
    "HardSwish": older_operators.hard_swish,
    "LayerNormalization": older_operators.layer_normalization,
    "Mish": older_operators.mish,
    "Pad": _pad,
    "RMSNormalization": older_operators.rms_normalization,
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": older_operators.shape_slice,
    "Split": _split,
    "Swish": older_operators.swish,
    "Trilu": older_operators.trilu,
}
