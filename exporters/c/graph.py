"""Read an ONNX graph at batch 1, with every shape known and everything constant folded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.errors import ExportError

Array = NDArray[Any]

_KEPT = frozenset({"DequantizeLinear", "QuantizeLinear"})  # folding them would turn int8 weights into floats


@dataclass(frozen=True)
class Node:
    """One operator. Empty input names are optional inputs that are absent."""

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def describe(self) -> str:
        """Operator and name, as an error names them."""
        return f"{self.op} node {self.name!r}"


@dataclass
class Graph:
    """Nodes in order, with constants by name and the shape of every tensor at batch 1."""

    nodes: list[Node]
    constants: dict[str, Array]
    shapes: dict[str, tuple[int, ...]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    consumers: dict[str, list[Node]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                self.consumers.setdefault(name, []).append(node)

    def shape(self, name: str, node: Node) -> tuple[int, ...]:
        """The shape of a tensor of `node`; ExportError where shape inference left it open."""
        if name not in self.shapes:
            raise ExportError(
                f"the shape of tensor {name!r} at {node.describe()} depends on data",
                fix="export with fixed sizes in every dimension but the batch",
            )
        return self.shapes[name]


def read(path: Path, sizes: Mapping[str, int] | None = None) -> Graph:
    """Read `path`; every dynamic first dimension becomes 1, and others what `sizes` says of their names.

    Raises:
        ExportError: the file is no ONNX model, an input is not float32 or has a dynamic dimension other than the first.
    """
    try:
        model = onnx.load(str(path))
    except Exception as error:  # onnx raises what protobuf and the file system raise
        raise ExportError(f"{path} cannot be read as an ONNX model: {error}", fix="pass an ONNX file") from error
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise ExportError(
                f"operator {node.domain}::{node.op_type} (node {node.name!r}) is not standard ONNX",
                fix="export with standard Q/DQ pairs and no runtime-specific operators",
            )
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    inputs = _fix_batch(model, constants, sizes or {})
    nodes = list(model.graph.node)
    shapes: dict[str, tuple[int, ...]] = {}
    while True:
        shapes = _infer(model, nodes, constants)
        left = [node for node in nodes if not _fold(node, constants, shapes)]
        if len(left) == len(nodes):
            break
        nodes = left
    return Graph(
        nodes=_live([_node(position, node) for position, node in enumerate(nodes)], model.graph),
        constants=constants,
        shapes=shapes | {name: tuple(value.shape) for name, value in constants.items()},
        inputs=inputs,
        outputs=tuple(value.name for value in model.graph.output),
    )


def evaluate(nodes: list[Node], feeds: Mapping[str, Array], constants: Mapping[str, Array], wanted: str) -> Array:
    """The value of `wanted` from `feeds`, by the ONNX reference implementation in numpy."""
    values: dict[str, Array] = dict(feeds)
    for node in nodes:
        proto = onnx.helper.make_node(node.op, node.inputs, node.outputs, name=node.name, **node.attributes)
        values.update(_run(proto, {**{n: constants[n] for n in node.inputs if n in constants}, **values}))
    return values[wanted]


def _fix_batch(model: onnx.ModelProto, constants: Mapping[str, Array], sizes: Mapping[str, int]) -> tuple[str, ...]:
    names = []
    for value in model.graph.input:
        if value.name in constants:
            continue
        tensor = value.type.tensor_type
        if tensor.elem_type != onnx.TensorProto.FLOAT:
            found = onnx.TensorProto.DataType.Name(tensor.elem_type)
            raise ExportError(f"graph input {value.name!r} is {found}", fix="export a graph with float32 inputs")
        for axis, dimension in enumerate(tensor.shape.dim):
            if not dimension.HasField("dim_value") and dimension.dim_param in sizes:
                dimension.dim_value = sizes[dimension.dim_param]
            if not dimension.HasField("dim_value") or dimension.dim_value <= 0:
                if axis:
                    raise ExportError(
                        f"dimension {axis} of graph input {value.name!r} is not fixed",
                        fix="export with fixed sizes in every dimension but the batch, or name the size: "
                        f"convert(..., sizes={{{dimension.dim_param or 'name'!r}: 100}})",
                    )
                dimension.Clear()
                dimension.dim_value = 1
            elif axis == 0 and dimension.dim_value != 1 and len(tensor.shape.dim) > 1:
                raise ExportError(
                    f"graph input {value.name!r} has the fixed batch {dimension.dim_value}; C code is for batch 1",
                    fix="export with a dynamic batch dimension, or batch 1",
                )
        names.append(value.name)
    del model.graph.value_info[:]
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    return tuple(names)


def _infer(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], constants: Mapping[str, Array]
) -> dict[str, tuple[int, ...]]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True)
    shapes = {}
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dimension.HasField("dim_value") for dimension in tensor.shape.dim):
            shapes[value.name] = tuple(dimension.dim_value for dimension in tensor.shape.dim)
    return shapes


def _fold(node: onnx.NodeProto, constants: dict[str, Array], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    if node.op_type == "Shape" and node.input[0] in shapes:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        whole = np.array(shapes[node.input[0]], dtype=np.int64)
        constants[node.output[0]] = whole[attributes.get("start", 0) : attributes.get("end", len(whole))]
        return True
    if node.op_type in _KEPT or not all(name in constants for name in node.input if name):
        return False
    if node.op_type in ("Transpose", "Reshape") and node.input[0] not in constants:
        return False
    constants.update(_run(node, {name: constants[name] for name in node.input if name}))
    return True


def _run(node: onnx.NodeProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    inputs = {name: value for name, value in feeds.items() if name in node.input}
    try:
        results = ReferenceEvaluator(node).run(None, inputs)
    except Exception as error:  # whatever numpy raises inside the reference implementation
        raise ExportError(
            f"{node.op_type} node {node.name!r} has constant inputs but cannot be evaluated: {error}",
            fix="simplify the graph before converting it",
        ) from error
    return {name: np.asarray(value) for name, value in zip(node.output, results, strict=False) if name}


def _node(position: int, node: onnx.NodeProto) -> Node:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    name = node.name or f"{node.op_type}_{position}"
    return Node(name, node.op_type, tuple(node.input), tuple(node.output), attributes)


def _live(nodes: list[Node], graph: onnx.GraphProto) -> list[Node]:
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]
