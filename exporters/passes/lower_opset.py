"""Write a model of opset 18 in an older opset.

Torch's exporter starts at 18, and onnx's own version converter fails on axes that are initializers. Most operators did
not change; those that did and that our networks use are rewritten, the rest is refused by name.

Requires: a model of opset 18 (what torch's exporter writes at least), asked opset 13 or later.
Ensures: the same outputs, bit for bit; every node's operator is defined for the asked opset as it stands.

Raises ExportError naming the operators that the asked opset cannot express.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from exporters import graph
from exporters.errors import ExportError

OLDEST = 13  # per-channel DequantizeLinear starts here
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

Shapes = Mapping[str, list[int | str]]


@dataclass(frozen=True)
class Known:
    """What a rule may look at besides its node."""

    values: Mapping[str, TensorProto]
    shapes: Shapes


def apply(model: ModelProto, asked: int) -> ModelProto:
    """The same model in opset `asked`; unchanged where it is that old already."""
    if graph.opset(model) <= asked:
        return model
    if asked < OLDEST:
        raise ExportError(
            f"opset {asked} has no per-channel quantisation", fix=f"use a runtime with opset {OLDEST} or later"
        )
    model = graph.copy(model)
    known = Known(graph.constants(model.graph), graph.shapes(model))
    written = graph.opset(model)
    refused: set[str] = set()
    for node in model.graph.node:
        if node.domain not in graph.STANDARD_DOMAINS:
            continue
        if _version(node.op_type, written) <= asked and _version(node.op_type, asked) > 0:
            continue
        rule = RULES.get(node.op_type)
        if rule is None or not rule(node, known):
            refused.add(node.op_type)
    if refused:
        raise ExportError(
            f"opset {asked} has no {' and no '.join(sorted(refused))} as this model uses it",
            fix=f"raise the target's opset towards {written}, or replace that part of the model",
        )
    for entry in model.opset_import:
        if entry.domain in graph.STANDARD_DOMAINS:
            entry.version = asked
    return model


def _version(operator: str, opset: int) -> int:
    """The opset in which the definition of `operator` that `opset` uses appeared; 0 where it has none."""
    try:
        return int(onnx.defs.get_schema(operator, max_inclusive_version=opset).since_version)
    except onnx.defs.SchemaError:
        return 0


def _reduction(node: NodeProto, known: Known) -> bool:
    """Axes were an attribute before opset 18."""
    if graph.attribute(node, "noop_with_empty_axes", 0):
        return False
    kept = [item for item in node.attribute if item.name != "noop_with_empty_axes"]
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in known.values:
            return False
        axes = [int(axis) for axis in graph.array(known.values[node.input[1]]).ravel()]
        kept.append(helper.make_attribute("axes", axes))
    _set(node, node.input[:1], kept)
    return True


def _pad(node: NodeProto, known: Known) -> bool:
    """The input `axes` came with 18."""
    return len(node.input) <= 3 or not node.input[3]


def _split(node: NodeProto, known: Known) -> bool:
    """The attribute num_outputs came with 18; without it and without sizes the parts are equal."""
    if len(node.input) > 1 and node.input[1]:
        return True
    shape = known.shapes.get(node.input[0])
    size = shape[graph.attribute(node, "axis", 0)] if shape else ""
    if not isinstance(size, int) or size % len(node.output):
        return False
    _set(node, node.input, [item for item in node.attribute if item.name != "num_outputs"])
    return True


def _resize(node: NodeProto, known: Known) -> bool:
    """Antialiasing, axes and aspect ratios came with 18."""
    new = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"}
    for item in node.attribute:
        if item.name == "axes" or (item.name in new and (item.i or item.s) not in (0, b"", new[item.name])):
            return False
    _set(node, node.input, [item for item in node.attribute if item.name not in new])
    return True


def _reshape(node: NodeProto, known: Known) -> bool:
    """allowzero came with 14; without a zero in the shape it changes nothing."""
    if len(node.input) < 2 or node.input[1] not in known.values:
        return False
    if graph.attribute(node, "allowzero", 0) and (graph.array(known.values[node.input[1]]) == 0).any():
        return False
    _set(node, node.input, [item for item in node.attribute if item.name != "allowzero"])
    return True


def _same(node: NodeProto, known: Known) -> bool:
    """Newer versions only add types."""
    return True


def _set(node: NodeProto, inputs: Iterable[str], attributes: Iterable[AttributeProto]) -> None:
    names, items = list(inputs), []
    for item in attributes:
        twin = AttributeProto()
        twin.CopyFrom(item)
        items.append(twin)
    del node.input[:]
    node.input.extend(names)
    del node.attribute[:]
    node.attribute.extend(items)


RULES: dict[str, Callable[[NodeProto, Known], bool]] = {
    **{f"Reduce{name}": _reduction for name in REDUCTIONS},
    **dict.fromkeys(("Add", "Div", "Identity", "LeakyRelu", "Mul", "Pow", "PRelu", "Relu", "Sub", "Where"), _same),
    "Pad": _pad,
    "Reshape": _reshape,
    "Resize": _resize,
    "Split": _split,
}
