"""One model as the rules look at it: who makes a tensor, what is constant, what is quantised. Built once, then read.

Only the main graph is looked at; bodies of If, Loop and Scan are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper

from exporters import graph
from exporters.lint.infer import constant_of, infer
from profiles.target import Target

Array = NDArray[np.generic]

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
# Operators that only move values: codes and scale stay as they are, so Q/DQ may stand on either side of them.
MOVES = frozenset(
    {
        "MaxPool",
        "Reshape",
        "Transpose",
        "Slice",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Split",
        "Identity",
        "DepthToSpace",
        "SpaceToDepth",
        "Expand",
        "Gather",
    }
)
CLAMPS = frozenset({"Relu", "Clip"})
CURVES = frozenset(
    {
        "HardSwish",
        "HardSigmoid",
        "Sigmoid",
        "Tanh",
        "Erf",
        "Gelu",
        "Softplus",
        "LeakyRelu",
        "Elu",
        "Celu",
        "Selu",
        "Mish",
        "PRelu",
        "Softsign",
        "ThresholdedRelu",
        "Swish",
    }
)
ACTIVATIONS = CLAMPS | CURVES
PER_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}
INTEGER = frozenset({TensorProto.INT8, TensorProto.UINT8})


@dataclass(frozen=True)
class Device:
    """What rules ask about the target."""

    runtime: str  # tensorrt, onnxruntime, c
    capability: str = ""  # compute capability, such as "8.7"
    width_multiple: int = 1
    version: str = ""  # of the runtime
    opset: int = 0  # that the runtime is known to read; 0 is unknown
    quantizer: str = ""
    has_int8: bool = True
    dla_tops: float = 0.0
    name: str = ""


def device(target: Target) -> Device:
    """The part of a target that rules ask about."""
    return Device(
        runtime="c" if target.family in ("cortex-m", "ethos-u", "riscv-cluster") else target.runtime,
        capability=target.compute_capability,
        width_multiple=target.width_multiple,
        version=target.runtime_version,
        opset=target.opset,
        quantizer=target.quantizer,
        has_int8=not target.hardware.tops or "int8" in target.hardware.tops,
        dla_tops=target.hardware.dla_tops,
        name=target.name,
    )


@dataclass(frozen=True, eq=False)
class Product:
    """A node that multiplies: Conv, ConvTranspose, Gemm, MatMul, with at least one computed input.

    Attributes:
        data: name of the computed input.
        weight: name of the other one; of a product of two computed tensors, the second.
        constant: whether the weight does not depend on the graph's inputs.
        data_dq, weight_dq: the DequantizeLinear that it comes from, where values are only moved in between.
    """

    node: NodeProto
    data: str
    weight: str
    constant: bool
    data_dq: NodeProto | None
    weight_dq: NodeProto | None

    @property
    def quantised(self) -> bool:
        """Whether both come from DequantizeLinear, so that an integer kernel may compute it."""
        return self.data_dq is not None and self.weight_dq is not None


@dataclass(frozen=True, eq=False)
class View:
    """A model and the device that it is for."""

    model: ModelProto
    device: Device

    @cached_property
    def nodes(self) -> tuple[NodeProto, ...]:
        """In graph order."""
        return tuple(self.model.graph.node)

    @cached_property
    def makers(self) -> dict[str, NodeProto]:
        """Tensor -> node."""
        return graph.producers(self.model.graph)

    @cached_property
    def readers(self) -> dict[str, list[NodeProto]]:
        """Tensor -> nodes."""
        return graph.consumers(self.model.graph)

    @cached_property
    def outputs(self) -> frozenset[str]:
        """Names of the graph's outputs."""
        return frozenset(value.name for value in self.model.graph.output)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs, without those that have a value."""
        given = {tensor.name for tensor in self.model.graph.initializer}
        return tuple(value.name for value in self.model.graph.input if value.name not in given)

    @cached_property
    def tensors(self) -> dict[str, TensorProto]:
        """Initializers and Constant nodes by name."""
        found = graph.constants(self.model.graph)
        for node in self.nodes:
            if node.op_type == "Constant" and node.output[0] not in found:
                value = constant_of(node)
                if value is not None:
                    found[node.output[0]] = value
        return found

    @cached_property
    def fixed(self) -> frozenset[str]:
        """Tensors that do not depend on the graph's inputs."""
        known = {*self.tensors, *(tensor.values.name for tensor in self.model.graph.sparse_initializer)}
        for node in self.nodes:
            used = [name for name in node.input if name]
            if (used and all(name in known for name in used)) or node.op_type == "Constant":
                known.update(node.output)
        return frozenset(known)

    @cached_property
    def _inferred(self) -> tuple[dict[str, tuple[int | str, ...]], dict[str, int]]:
        return infer(self.model)

    def shape(self, name: str) -> tuple[int | str, ...] | None:
        """Shape where it is known; a symbolic size is its name, an unknown one ''."""
        if name in self.tensors:
            return tuple(int(size) for size in self.tensors[name].dims)
        return self._inferred[0].get(name)

    def type(self, name: str) -> int:
        """TensorProto.DataType; 0 where it is unknown."""
        if name in self.tensors:
            return int(self.tensors[name].data_type)
        return self._inferred[1].get(name, 0)

    def value(self, name: str) -> Array | None:
        """The constant, looked at through Cast and Identity; None where it is computed or cannot be read."""
        for _ in range(8):
            if name in self.tensors:
                try:
                    return graph.array(self.tensors[name])
                except (ValueError, TypeError):
                    return None
            maker = self.makers.get(name)
            if maker is None or maker.op_type not in ("Cast", "Identity"):
                return None
            name = maker.input[0]
        return None

    def origin(self, name: str) -> tuple[str, list[NodeProto]]:
        """The tensor that `name` holds values of, followed back through MOVES, and the nodes on the way."""
        way: list[NodeProto] = []
        while (maker := self.makers.get(name)) is not None and moves(maker) and maker.input:
            way.append(maker)
            name = maker.input[0]
        return name, way

    def dequantizer(self, name: str) -> NodeProto | None:
        """The DequantizeLinear that `name` comes from, values only moved in between; None where there is none."""
        maker = self.makers.get(self.origin(name)[0])
        return maker if maker is not None and maker.op_type == "DequantizeLinear" else None

    @cached_property
    def products(self) -> tuple[Product, ...]:
        """Every node that multiplies, in graph order."""
        found = []
        for node in self.nodes:
            if node.op_type not in graph.WEIGHTED or len(node.input) < 2:
                continue
            left, right = node.input[0], node.input[1]
            if left in self.fixed and right in self.fixed:
                continue  # folded before anything runs
            data, weight = (right, left) if left in self.fixed else (left, right)
            found.append(
                Product(node, data, weight, weight in self.fixed, self.dequantizer(data), self.dequantizer(weight))
            )
        return tuple(found)

    @cached_property
    def quantised(self) -> frozenset[str]:
        """Names of the outputs of int8 products: both inputs quantised, to 8-bit integers."""
        return frozenset(product.node.output[0] for product in self.products if self.in_int8(product))

    def in_int8(self, product: Product) -> bool:
        """Whether both inputs are quantised, to 8-bit integers and not to fp8."""
        return (
            product.data_dq is not None
            and product.weight_dq is not None
            and self.type(product.data_dq.input[0]) in INTEGER | {TensorProto.UNDEFINED}
        )

    def after(self, tensor: str, kinds: frozenset[str]) -> tuple[str, list[NodeProto]]:
        """Follow the only reader of `tensor` while it is one of `kinds`; the last tensor and the nodes on the way."""
        way: list[NodeProto] = []
        while tensor not in self.outputs:
            readers = self.readers.get(tensor, [])
            if len(readers) != 1 or readers[0].op_type not in kinds or readers[0].input[0] != tensor:
                break
            way.append(readers[0])
            tensor = readers[0].output[0]
        return tensor, way

    def before(self, tensor: str, kinds: frozenset[str]) -> str:
        """Follow `tensor` back through nodes of `kinds`, by their first input."""
        while (maker := self.makers.get(tensor)) is not None and maker.op_type in kinds and maker.input:
            tensor = maker.input[0]
        return tensor

    def quantizers(self) -> Iterator[NodeProto]:
        """QuantizeLinear and DequantizeLinear nodes, in graph order."""
        return (node for node in self.nodes if node.op_type in QUANTIZERS)


def view(model: ModelProto, of: Device) -> View:
    """The model, with a name for each node so that findings can say where they are."""
    if all(node.name for node in model.graph.node):
        return View(model, of)
    model = graph.copy(model)
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{index}"
    return View(model, of)


def moves(node: NodeProto) -> bool:
    """Whether the node hands on values of its first input as they are."""
    if node.op_type == "Resize":
        return any(item.name == "mode" and item.s == b"nearest" for item in node.attribute) or not any(
            item.name == "mode" for item in node.attribute
        )
    return node.op_type in MOVES


def attribute(node: NodeProto, name: str) -> object | None:
    """An attribute's value; None where the node has none."""
    for item in node.attribute:
        if item.name == name:
            found: object = helper.get_attribute_value(item)
            return found
    return None


def numbers(node: NodeProto, name: str, default: list[int]) -> list[int]:
    """A list of integers, or `default` where the node has no such attribute."""
    found = attribute(node, name)
    return [int(value) for value in found] if isinstance(found, list) else default


def ordinary(node: NodeProto) -> bool:
    """Whether it is an operator of the ONNX standard."""
    return node.domain in graph.STANDARD_DOMAINS


def groups(view: View, node: NodeProto) -> tuple[int, int, int] | None:
    """Groups, input channels and output channels of a Conv or ConvTranspose; None where its weight has no shape."""
    shape = view.shape(node.input[1])
    if shape is None or len(shape) < 3 or not isinstance(shape[0], int) or not isinstance(shape[1], int):
        return None
    count = graph.attribute(node, "group", 1)
    if node.op_type == "ConvTranspose":
        return count, shape[0], shape[1] * count
    return count, shape[1] * count, shape[0]


def depthwise(view: View, node: NodeProto) -> bool:
    """Whether a Conv has a group for each of its several input channels."""
    found = groups(view, node) if node.op_type == "Conv" else None
    return found is not None and found[0] > 1 and found[0] == found[1]


def type_name(kind: int) -> str:
    """A TensorProto.DataType in words: int8, float16, ..."""
    known = {value: name for name, value in TensorProto.DataType.items()}
    return str(known.get(kind, f"type {kind}")).lower()
