"""Put a precision into the graph: half where the plan says so, float32 elsewhere, Casts between.

TensorRT 11 has no switch for fp16 or bf16: each layer computes in the type of its inputs ("Strongly Typed Networks").
So weights are stored in half precision, and a Cast stands wherever a tensor goes from one precision to the other, once
per tensor.

Requires: float32 arithmetic, with int8 Q/DQ pairs or without; a plan made for this very model (exporters.half.plan).
Ensures: the same inputs and outputs, in float32 unless the plan gives them away; nodes that the plan colours half read
and write half precision alone; every Cast changes the type, and no tensor is cast twice to one type. Constants that
only half nodes read are stored in half precision. Scales of Q/DQ beside half data are half too (Q and DQ of one tensor
keep equal values); codes stay, except in channels whose scale falls below the format's normal range, where they are
rounded again on the new scale. Outputs differ by half-precision rounding.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from exporters import graph, large
from exporters.half.formats import HalfFormat
from exporters.half.plan import Plan, follows
from exporters.passes import drop_unused

LARGEST_CHANGE = 2.0**-6  # relative, of the outputs: half-precision rounding, layer upon layer

_NUMPY = {TensorProto.INT8: np.int8, TensorProto.UINT8: np.uint8}


def apply(model: ModelProto, plan: Plan) -> ModelProto:
    """The model in the precisions of the plan."""
    writer = _Writer(graph.copy(model), plan)
    writer.rewrite()
    return drop_unused.apply(_with_shapes(writer.model))


class _Writer:
    """One rewrite in progress: the nodes written so far, and which tensor exists in which precision."""

    def __init__(self, model: ModelProto, plan: Plan) -> None:
        self.model = model
        self.plan = plan
        self.half: HalfFormat = plan.half
        self.main = model.graph
        self.opset = graph.opset(model)
        self.constants = graph.constants(self.main)
        self.makers = graph.producers(self.main)
        self.inferred = large.infer_shapes(model)
        self.floats = {name for name, tensor in self.constants.items() if tensor.data_type == TensorProto.FLOAT}
        values = (*self.inferred.graph.input, *self.inferred.graph.output, *self.inferred.graph.value_info)
        self.floats |= {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}
        self.taken = {name for node in self.main.node for name in (*node.input, *node.output)}
        self.taken |= {value.name for value in values} | set(self.constants)
        self.halves: set[str] = set()  # tensors that are now in half precision
        self.twin: dict[tuple[str, bool], str] = {}  # (tensor, half?) -> its name in that precision
        self.written: list[NodeProto] = []
        self.scale_of: dict[str, str] = {}

    def rewrite(self) -> None:
        """Write every node again, in order."""
        outputs = {value.name for value in self.main.output}
        for value in self.main.input:
            if value.name in self.floats and not self.plan.keeps_inputs and value.name not in self.constants:
                value.type.tensor_type.elem_type = self.half.onnx_type
                self.halves.add(value.name)
        for index, node in enumerate(list(self.main.node)):
            if node.op_type == "QuantizeLinear":
                self._quantize(node)
            elif node.op_type == "DequantizeLinear":
                self.written.append(node)
            elif index in self.plan.colours:
                self._compute(node, self.plan.colours[index], outputs)
            else:
                self.written.append(node)
        for value in self.main.output:
            self._output(value.name)
        graph.replace_nodes(self.main, self.written)

    def _compute(self, node: NodeProto, half: bool, outputs: set[str]) -> None:
        for position, name in enumerate(node.input):
            if name in self.floats:
                wanted = half and follows(node, position, self.opset, self.half)
                node.input[position] = self._in(name, wanted, node)
        if half:
            _retype(node, self.half)
            for position, name in enumerate(node.output):
                if name in self.floats and follows(node, position, self.opset, self.half, output=True):
                    if name in outputs and self.plan.keeps_outputs:
                        inner = self._fresh(f"{name}_{self.half.name}")
                        node.output[position] = inner
                        self.twin[name, True] = inner
                    self.halves.add(name)
        self.written.append(node)

    def _output(self, name: str) -> None:
        """The graph's own output, in the precision that callers expect."""
        value = next(value for value in self.main.output if value.name == name)
        if name not in self.halves:
            return
        if not self.plan.keeps_outputs:
            value.type.tensor_type.elem_type = self.half.onnx_type
            return
        source = self.twin[name, True]
        made = self.twin.get((name, False))
        if made is None:
            self.written.append(self._cast(source, name, TensorProto.FLOAT, self.makers[name]))
            return
        for node in self.written:  # readers inside have cast it already: that Cast is the output
            for names in (node.input, node.output):
                for position, found in enumerate(names):
                    if found == made:
                        names[position] = name

    def _in(self, name: str, half: bool, reader: NodeProto) -> str:
        """The tensor in the wanted precision; written before its reader where it is not there yet."""
        if name in self.constants:
            return self._constant(name) if half else name
        maker = self.makers.get(name)
        if maker is not None and maker.op_type == "DequantizeLinear":
            return self._dequantized(maker) if half else name
        if half == (name in self.halves):
            return self.twin.get((name, half), name)
        if (name, half) not in self.twin:
            kind = self.half.onnx_type if half else TensorProto.FLOAT
            made = self._fresh(f"{name}_{self.half.name if half else 'fp32'}")
            source = self.twin.get((name, not half), name)
            self.written.append(self._cast(source, made, kind, maker or reader))
            self.twin[name, half] = made
        return self.twin[name, half]

    def _cast(self, source: str, made: str, kind: int, beside: NodeProto) -> NodeProto:
        node = helper.make_node("Cast", [source], [made], name=f"{made}/cast", to=kind)
        node.metadata_props.extend(beside.metadata_props)
        return node

    def _constant(self, name: str) -> str:
        if (name, True) not in self.twin:
            made = self._fresh(f"{name}_{self.half.name}")
            rounded = self.half.round(graph.array(self.constants[name]))
            self.main.initializer.append(self._tensor(rounded, made))
            self.twin[name, True] = made
        return self.twin[name, True]

    def _tensor(self, values: NDArray[np.generic], name: str) -> TensorProto:
        return helper.make_tensor(
            name, self.half.onnx_type, values.shape, np.ascontiguousarray(values).tobytes(), raw=True
        )

    def _quantize(self, node: NodeProto) -> None:
        """QuantizeLinear takes its data as it comes; its scale follows the data's type."""
        name = node.input[0]
        half = name in self.halves
        maker = self.makers.get(name)
        node.input[0] = self.twin.get((name, half), name)
        if maker is not None and maker.op_type == "DequantizeLinear" and name not in self.constants:
            node.input[0] = name
        node.input[1] = self._scale(node.input[1], half)
        self.written.append(node)

    def _scale(self, name: str, half: bool) -> str:
        """A per-tensor scale that half precision holds exactly, in either type: Q and DQ must agree on its value."""
        key = (f"scale:{name}", half)
        if key not in self.twin:
            rounded = self.half.round(graph.array(self.constants[name]))
            if not _normal(rounded, self.half):
                return name  # stays float32 on both sides; `_dequantized` casts behind it
            made = self._fresh(f"{name}_{self.half.name if half else 'rounded'}")
            values = rounded if half else rounded.astype(np.float32)
            tensor = self._tensor(values, made) if half else numpy_helper.from_array(values, made)
            self.main.initializer.append(tensor)
            self.twin[key] = made
        return self.twin[key]

    def _dequantized(self, node: NodeProto) -> str:
        """The same codes dequantised to half precision."""
        name = node.output[0]
        if (name, True) in self.twin:
            return self.twin[name, True]
        codes, scale = node.input[0], node.input[1]
        made = self._fresh(f"{name}_{self.half.name}")
        self.twin[name, True] = made
        if codes in self.constants:
            codes, scale = self._weight(node)
        else:
            scale = self._scale(scale, True)
            if scale == node.input[1]:  # below the format's normal range
                self.written.append(self._cast(name, made, self.half.onnx_type, node))
                return made
        twin = NodeProto()
        twin.CopyFrom(node)
        twin.name = f"{node.name or name}/{self.half.name}"
        twin.input[0], twin.input[1], twin.output[0] = codes, scale, made
        self.written.append(twin)
        return made

    def _weight(self, node: NodeProto) -> tuple[str, str]:
        """Codes and scales of a stored tensor; a channel whose scale is no normal number here is rounded again."""
        exact = graph.array(self.constants[node.input[1]]).astype(np.float32)
        rounded = self.half.round(exact)
        scale = self._fresh(f"{node.input[1]}_{self.half.name}")
        stored = self.constants[node.input[0]]
        codes = node.input[0]
        least = float(np.finfo(np.float16).tiny) if self.half.name == "fp16" else float(np.finfo(np.float32).tiny)
        small = exact < least
        if small.any() and stored.data_type in _NUMPY:
            # Up to the next number that the format has, so that no code leaves the grid.
            step = float(np.finfo(np.float16).smallest_subnormal) if self.half.name == "fp16" else least
            raised = np.where(small, np.maximum(np.ceil(exact / step) * step, step), rounded.astype(np.float32))
            rounded = self.half.round(raised)
            shape = [1] * len(stored.dims)
            if exact.size > 1:
                shape[graph.attribute(node, "axis", 1)] = -1
            ratio = (exact / rounded.astype(np.float32)).reshape(shape)
            values = graph.array(stored)
            again = np.rint(values.astype(np.float32) * ratio).astype(values.dtype)
            codes = self._fresh(f"{codes}_{self.half.name}")
            kept = np.where(np.broadcast_to(small.reshape(shape), values.shape), again, values)
            self.main.initializer.append(numpy_helper.from_array(np.ascontiguousarray(kept), codes))
        self.main.initializer.append(self._tensor(rounded, scale))
        return codes, scale

    def _fresh(self, wish: str) -> str:
        name, number = wish, 1
        while name in self.taken:
            name, number = f"{wish}_{number}", number + 1
        self.taken.add(name)
        return name


def _normal(values: NDArray[np.generic], half: HalfFormat) -> bool:
    """Whether every scale is a normal, finite number of the format."""
    found = values.astype(np.float32)
    least = np.finfo(np.float16).tiny if half.name == "fp16" else np.finfo(np.float32).tiny
    return bool(np.isfinite(found).all() and (found >= least).all())


def _retype(node: NodeProto, half: HalfFormat) -> None:
    """Types that a node states in an attribute."""
    for item in node.attribute:
        if node.op_type == "Cast" and item.name == "to" and item.i == TensorProto.FLOAT:
            item.i = half.onnx_type
        if node.op_type == "ConstantOfShape" and item.name == "value" and item.t.data_type == TensorProto.FLOAT:
            rounded = half.round(numpy_helper.to_array(item.t))
            item.t.CopyFrom(helper.make_tensor(item.t.name, half.onnx_type, rounded.shape, rounded.tobytes(), raw=True))


def _with_shapes(model: ModelProto) -> ModelProto:
    """Types of tensors in between, found again; in order of their names."""
    del model.graph.value_info[:]
    inferred = large.infer_shapes(model, check_type=True)
    values: Mapping[str, object] = {value.name: value for value in inferred.graph.value_info}
    model.graph.value_info.extend(values[name] for name in sorted(values))
    return model
