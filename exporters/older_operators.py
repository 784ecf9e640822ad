"""Operators written out in older ones, for runtimes that do not have them yet.

Each function takes a node and what is known of the graph and gives the nodes that compute the same; None where it
cannot. Formulas: ONNX operator schemas, section "function body" of each.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, helper, numpy_helper

from exporters import graph

Shapes = Mapping[str, Sequence[int | str]]
Written = list[NodeProto] | None


@dataclass(frozen=True)
class Known:
    """What a rule may look at besides its node.

    Attributes:
        values: constants by name.
        shapes: sizes by name, symbolic ones as text.
        asked: the opset to write in.
    """

    values: Mapping[str, TensorProto]
    shapes: Shapes
    asked: int


Rule = Callable[[NodeProto, Known], Written]


class Writer:
    """Nodes of one expansion, named after the node that they stand for."""

    def __init__(self, node: NodeProto) -> None:
        self.node = node
        self.nodes: list[NodeProto] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        made = output or f"{self.node.output[0]}/{operator}_{len(self.nodes)}"
        name = f"{self.node.name or self.node.output[0]}/{len(self.nodes)}"
        node = helper.make_node(operator, list(inputs), [made], name=name, **attributes)
        node.metadata_props.extend(self.node.metadata_props)
        self.nodes.append(node)
        return made

    def constant(self, value: float | NDArray[np.generic]) -> str:
        """Append a constant, float32 unless it is an array of another type."""
        array = np.asarray(value, np.float32) if isinstance(value, float) else np.asarray(value)
        return self.add("Constant", value=numpy_helper.from_array(array))


def layer_normalization(node: NodeProto, known: Known) -> Written:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias over the last axes; before opset 17."""
    shape = known.shapes.get(node.input[0])
    if shape is None or any(len(node.output) > place and node.output[place] for place in (1, 2)):
        return None
    axis = graph.attribute(node, "axis", -1) % len(shape)
    axes = list(range(axis, len(shape)))
    new = Writer(node)
    mean = new.add("ReduceMean", node.input[0], axes=axes, keepdims=1)
    centred = new.add("Sub", node.input[0], mean)
    square = new.add("Mul", centred, centred)
    variance = new.add("ReduceMean", square, axes=axes, keepdims=1)
    return _normalised(new, centred, variance, node)


def _normalised(new: Writer, centred: str, variance: str, node: NodeProto) -> list[NodeProto]:
    shifted = new.add("Add", variance, new.constant(float(_number(node, "epsilon", 1e-5))))
    root = new.add("Sqrt", shifted)
    bias = len(node.input) > 2 and bool(node.input[2])
    divided = new.add("Div", centred, root)
    scaled = new.add("Mul", divided, node.input[1], output="" if bias else node.output[0])
    if bias:
        new.add("Add", scaled, node.input[2], output=node.output[0])
    return new.nodes


def rms_normalization(node: NodeProto, known: Known) -> Written:
    """x / sqrt(mean(x^2) + epsilon) * scale over the last axes; before opset 23."""
    shape = known.shapes.get(node.input[0])
    if shape is None:
        return None
    axes = list(range(graph.attribute(node, "axis", -1) % len(shape), len(shape)))
    new = Writer(node)
    square = new.add("Mul", node.input[0], node.input[0])
    if known.asked >= 18:
        mean = new.add("ReduceMean", square, new.constant(np.asarray(axes, np.int64)), keepdims=1)
    else:
        mean = new.add("ReduceMean", square, axes=axes, keepdims=1)
    return _normalised(new, node.input[0], mean, node)


def group_normalization(node: NodeProto, known: Known) -> Written:
    """Instance normalisation of the groups laid side by side; before opset 21 (per-channel scale) or 18 (at all)."""
    shape = known.shapes.get(node.input[0])
    scale, bias = (known.values.get(name) for name in node.input[1:3])
    if (
        shape is None
        or len(shape) < 3
        or scale is None
        or bias is None
        or not all(isinstance(s, int) for s in shape[1:])
    ):
        return None
    groups = graph.attribute(node, "num_groups", 1)
    channels = int(shape[1])
    factor, shift = (graph.array(value).astype(np.float32) for value in (scale, bias))
    if factor.size == groups != channels:  # opset 18 had one factor per group
        factor, shift = (np.repeat(value, channels // groups) for value in (factor, shift))
    new = Writer(node)
    laid = new.add("Reshape", node.input[0], new.constant(np.asarray([0, groups, -1], np.int64)))
    ones, zeros = new.constant(np.ones(groups, np.float32)), new.constant(np.zeros(groups, np.float32))
    normal = new.add("InstanceNormalization", laid, ones, zeros, epsilon=_number(node, "epsilon", 1e-5))
    back = new.add("Reshape", normal, new.constant(np.asarray([0, *[int(size) for size in shape[1:]]], np.int64)))
    wide = [channels, *[1] * (len(shape) - 2)]
    scaled = new.add("Mul", back, new.constant(factor.reshape(wide)))
    new.add("Add", scaled, new.constant(shift.reshape(wide)), output=node.output[0])
    return new.nodes


def gelu(node: NodeProto, known: Known) -> Written:
    """x / 2 (1 + erf(x / sqrt 2)), or its tanh form; before opset 20."""
    new, x = Writer(node), node.input[0]
    if _text(node, "approximate", "none") == "tanh":
        cube = new.add("Mul", new.add("Mul", x, x), x)
        inner = new.add("Add", x, new.add("Mul", cube, new.constant(0.044715)))
        curve = new.add("Tanh", new.add("Mul", inner, new.constant(float(np.sqrt(2.0 / np.pi)))))
    else:
        curve = new.add("Erf", new.add("Div", x, new.constant(float(np.sqrt(2.0)))))
    half = new.add("Mul", x, new.constant(0.5))
    new.add("Mul", half, new.add("Add", curve, new.constant(1.0)), output=node.output[0])
    return new.nodes


def hard_swish(node: NodeProto, known: Known) -> Written:
    """x * hard sigmoid(x); before opset 14."""
    new = Writer(node)
    gate = new.add("HardSigmoid", node.input[0], alpha=1.0 / 6.0, beta=0.5)
    new.add("Mul", node.input[0], gate, output=node.output[0])
    return new.nodes


def mish(node: NodeProto, known: Known) -> Written:
    """x * tanh(softplus(x)); before opset 18."""
    new = Writer(node)
    new.add("Mul", node.input[0], new.add("Tanh", new.add("Softplus", node.input[0])), output=node.output[0])
    return new.nodes


def swish(node: NodeProto, known: Known) -> Written:
    """x * sigmoid(alpha x); before opset 24."""
    new, x = Writer(node), node.input[0]
    alpha = _number(node, "alpha", 1.0)
    inner = x if alpha == 1.0 else new.add("Mul", x, new.constant(float(alpha)))
    new.add("Mul", x, new.add("Sigmoid", inner), output=node.output[0])
    return new.nodes


def trilu(node: NodeProto, known: Known) -> Written:
    """A choice by a constant mask; before opset 14. The two last sizes must be known."""
    shape = known.shapes.get(node.input[0])
    offset = 0
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in known.values:
            return None
        offset = int(graph.array(known.values[node.input[1]]).item())
    if shape is None or not all(isinstance(size, int) for size in shape[-2:]):
        return None
    ones = np.ones([int(size) for size in shape[-2:]], bool)
    mask = np.triu(ones, offset) if graph.attribute(node, "upper", 1) else np.tril(ones, offset)
    new = Writer(node)
    new.add("Where", new.constant(mask), node.input[0], new.constant(0.0), output=node.output[0])
    return new.nodes


def shape_slice(node: NodeProto, known: Known) -> Written:
    """Shape of some axes alone; before opset 15."""
    new = Writer(node)
    start = _optional(node, "start")
    end = _optional(node, "end")
    if start is None and end is None:
        return [node]
    whole = new.add("Shape", node.input[0])
    bounds = [np.asarray([value], np.int64) for value in (start or 0, np.iinfo(np.int64).max if end is None else end)]
    new.add("Slice", whole, *[new.constant(bound) for bound in bounds], output=node.output[0])
    return new.nodes


def _optional(node: NodeProto, name: str) -> int | None:
    return next((int(item.i) for item in node.attribute if item.name == name), None)


def _number(node: NodeProto, name: str, default: float) -> float:
    return next((float(item.f) for item in node.attribute if item.name == name), default)


def _text(node: NodeProto, name: str, default: str) -> str:
    return next((item.s.decode() for item in node.attribute if item.name == name), default)


def without(node: NodeProto, **defaults: object) -> Written:
    """The node without attributes that the older operator lacks; None where one has another value than its default."""
    kept: list[AttributeProto] = []
    for item in node.attribute:
        if item.name not in defaults:
            kept.append(item)
        elif helper.get_attribute_value(item) != defaults[item.name]:
            return None
    return [with_attributes(node, list(node.input), kept)]


def with_attributes(node: NodeProto, inputs: Sequence[str], attributes: Sequence[AttributeProto]) -> NodeProto:
    """The node with other inputs and attributes."""
    twin = NodeProto()
    twin.CopyFrom(node)
    del twin.input[:]
    twin.input.extend(inputs)
    del twin.attribute[:]
    twin.attribute.extend(attributes)
    return twin
