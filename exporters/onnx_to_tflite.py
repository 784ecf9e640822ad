"""The quantised part of an ONNX graph with Q/DQ pairs as an int8 TensorFlow Lite file of the same scales.

What estimators and compilers of microcontroller NPUs read (Arm's Vela for the Ethos-U). No TensorFlow, and nothing is
quantised again: a scale of the graph is the scale of the file. Tensors are channel-last. What stands before the first
QuantizeLinear or behind the last DequantizeLinear (a spectral front-end, a softmax) runs in floats on the core beside
an NPU and is not in the file; the artifact names those operators.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from exporters.artifact import Artifact
from exporters.builder import BuildOptions
from exporters.c import graph as graphs
from exporters.c.context import Context, Ending, quant_of
from exporters.c.graph import Array, Graph, Node
from exporters.c.program import Quant
from exporters.c.windows import Window, window
from exporters.errors import ExportError
from exporters.tflite.file import Operator, Tensor, to_bytes
from profiles.atomic import write_bytes
from profiles.target import Target

SAME, VALID = 0, 1
NONE, RELU, RELU_N1_TO_1, RELU6 = 0, 1, 2, 3
SUPPORTED = (
    *("Conv", "Gemm", "MatMul", "Add", "Mul", "MaxPool", "AveragePool", "GlobalAveragePool", "ReduceMean", "Concat"),
    *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Relu", "Clip", "Identity", "QuantizeLinear", "DequantizeLinear"),
)


def can_run(target: Target, *, remote: str | None = None) -> str | None:
    """Why no file can be written here; None where it can."""
    if remote is not None:
        return "TensorFlow Lite files are written on this machine, and estimated here; leave the remote one out"
    return None


@dataclass(frozen=True)
class _Weights:
    """int8 codes with one scale per slice of `axis` (or one in all)."""

    codes: Array
    scales: Array
    axis: int | None


@dataclass
class _State:
    """`codes`: ONNX tensor (quantised or decoded) -> int8 tensor of the file. `order`: flattened tensors -> for each
    element in the file's order, its place in ONNX's order."""

    context: Context
    codes: dict[str, Tensor] = field(default_factory=dict)
    order: dict[int, Array] = field(default_factory=dict)
    weights: dict[str, _Weights] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[Tensor] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    @property
    def graph(self) -> Graph:
        return self.context.graph


def convert(model: Path, target: Target | None, out: Path, *, options: BuildOptions | None = None) -> Artifact:
    """Write `<name>.tflite` below `out`.

    Args:
        model: ONNX with float32 inputs, int8 or uint8 activations with one scale, int8 weights. Batch 1.
        target: not used; every exporter takes one.

    Returns:
        The file, kind "tflite". Its facts: operators (kind -> times), outside (operators that are not in the file),
        weight_bytes.

    Raises:
        ExportError: the graph cannot be read, has nothing quantised, or an operator inside its quantised part has no
            counterpart (the message names it).
    """
    lowered = lower(Path(model))
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{(options.name if options else None) or Path(model).stem}.tflite"
    write_bytes(path, to_bytes(lowered.operators, lowered.inputs, lowered.outputs))
    kinds: dict[str, int] = {}
    for op in lowered.operators:
        kinds[op.kind] = kinds.get(op.kind, 0) + 1
    stored = {id(t): t.data.nbytes for op in lowered.operators for t in op.inputs if t.data is not None}
    facts = {"operators": kinds, "outside": list(lowered.outside), "weight_bytes": sum(stored.values())}
    note = f"runs in floats beside it: {', '.join(lowered.outside)}" if lowered.outside else ""
    return Artifact(path, "tflite", options.purpose if options else "artifact", note, facts)


@dataclass(frozen=True)
class Lowered:
    """The quantised part of a graph. `outside`: operators that are not in it."""

    operators: tuple[Operator, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    outside: tuple[str, ...]


def lower(model: Path) -> Lowered:
    """The operators of the file, in order.

    Raises:
        ExportError: as `convert`.
    """
    state = _State(Context(graphs.read(model)))
    for node in state.graph.nodes:
        if node.name not in state.context.done:
            _lower(state, node)
    ends = _ends(state)
    if not state.operators or not ends:
        raise ExportError(
            f"{model} has no quantised layers", fix="quantise it first: int8 Q/DQ pairs around every layer"
        )
    return Lowered(tuple(state.operators), tuple(state.inputs), tuple(ends), tuple(state.outside))


def _ends(state: _State) -> list[Tensor]:
    read = {id(t) for op in state.operators for t in op.inputs}
    made = {id(t): t for op in state.operators for t in op.outputs}
    return [tensor for key, tensor in made.items() if key not in read]


def _lower(state: _State, node: Node) -> None:
    decoded = [name for name in node.inputs if name in state.codes]
    if node.op == "DequantizeLinear":
        _dequantize(state, node)
    elif node.op == "QuantizeLinear":
        _quantize(state, node)
    elif not decoded:
        state.outside.append(node.describe())
    elif node.op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"):
        _reshape(state, node)
    else:
        passed = _in_place(state, node)
        ending = state.context.ending((passed or [node])[-1].outputs[0])
        if ending is not None and _operator(state, node, ending):
            state.context.done.update(one.name for one in passed)
        else:
            if _only_floats_follow(state, node):
                state.outside.append(node.describe())
                return
            raise ExportError(
                f"{node.describe()} has no int8 counterpart in TensorFlow Lite as it is used here; there are "
                f"{', '.join(SUPPORTED)}, each followed by QuantizeLinear",
                fix="replace the operator in the model, or leave the NPU out",
            )


def _in_place(state: _State, node: Node) -> list[Node]:
    """Reshapes between the node and its QuantizeLinear that leave a channel-last tensor as it is.

    torch averages (B, C, L) as (B, C, 1, L), and takes the axis away before it quantises.
    """
    passed: list[Node] = []
    while True:
        name = (passed or [node])[-1].outputs[0]
        users = state.graph.consumers.get(name, [])
        if name in state.graph.outputs or len(users) != 1 or users[0].op not in ("Reshape", "Squeeze", "Unsqueeze"):
            return passed
        wide, shape = (state.graph.shape(one, users[0]) for one in (name, users[0].outputs[0]))
        if not {len(wide), len(shape)} <= {3, 4} or _last(wide) != _last(shape):
            return passed
        passed.append(users[0])


def _only_floats_follow(state: _State, node: Node) -> bool:
    """Whether nothing behind the node is quantised again: a tail in floats."""
    seen, todo = set[str](), [node]
    while todo:
        for name in todo.pop().outputs:
            for user in state.graph.consumers.get(name, []):
                if user.op == "QuantizeLinear":
                    return False
                if user.name not in seen:
                    seen.add(user.name)
                    todo.append(user)
    return True


def _dequantize(state: _State, node: Node) -> None:
    source = node.inputs[0]
    if source in state.codes:
        state.codes[node.outputs[0]] = state.codes[source]
        return
    if source not in state.graph.constants:
        return
    codes = state.graph.constants[source]
    scales = state.graph.constants[node.inputs[1]].astype(np.float32)
    if len(node.inputs) > 2 and node.inputs[2] and np.any(state.graph.constants[node.inputs[2]]):
        raise ExportError(
            f"{node.describe()} has weights with a zero point; TensorFlow Lite's int8 weights have none",
            fix="quantise weights symmetrically",
        )
    axis = None if scales.size == 1 else int(node.attributes.get("axis", 1)) % codes.ndim
    state.weights[node.outputs[0]] = _Weights(codes, scales.reshape(-1), axis)


def _quantize(state: _State, node: Node) -> None:
    name = node.inputs[0]
    quant = quant_of(node, state.graph.constants)
    if name in state.codes:
        before = state.codes[name]
        if _same(before, quant):
            state.codes[node.outputs[0]] = before
            return
        after = Tensor(node.outputs[0], before.shape, "int8", (float(quant.scale),), quant.zero)
        state.operators.append(Operator("QUANTIZE", (before,), (after,), {}))
        _keep_order(state, before, after)
        state.codes[node.outputs[0]] = after
        return
    shape = _last(state.graph.shape(name, node))
    tensor = Tensor(node.outputs[0], shape, "int8", (float(quant.scale),), quant.zero)
    state.inputs.append(tensor)
    state.codes[node.outputs[0]] = tensor


def _same(tensor: Tensor, quant: Quant) -> bool:
    return tensor.scales == (float(quant.scale),) and tensor.zero == quant.zero


def _keep_order(state: _State, before: Tensor, after: Tensor) -> None:
    if id(before) in state.order:
        state.order[id(after)] = state.order[id(before)]


def _last(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(1, C, W) and (1, C, H, W) channel-last with two axes; other ranks as they are."""
    if len(shape) == 4:
        return (shape[0], shape[2], shape[3], shape[1])
    return (shape[0], 1, shape[2], shape[1]) if len(shape) == 3 else shape


def _reshape(state: _State, node: Node) -> None:
    before = state.codes[node.inputs[0]]
    shape = state.graph.shape(node.outputs[0], node)
    wide = state.graph.shape(node.inputs[0], node)
    if shape == wide:
        state.codes[node.outputs[0]] = before
        return
    if len(shape) in (3, 4) and len(wide) in (3, 4) and shape[:2] == wide[:2]:  # positions alone: their order stays
        state.codes[node.outputs[0]] = _of_shape(state, node, before, _last(shape))
        return
    flat = len(shape) == 2 and shape[0] == 1
    plain = len(wide) in (3, 4) and int(np.prod(wide[2:])) == 1  # no spatial size: the order does not change
    back = len(shape) in (3, 4) and int(np.prod(shape[2:])) == 1
    if not (flat or back) or (back and len(wide) > 2 and not plain):
        raise ExportError(
            f"{node.describe()} mixes channels with positions, which channel-last tensors cannot follow",
            fix="flatten only in front of the classifier",
        )
    after = _of_shape(state, node, before, shape if flat else _last(shape))
    if flat and len(wide) in (3, 4) and not plain:
        places = np.arange(int(np.prod(wide))).reshape(wide)
        state.order[id(after)] = np.moveaxis(places[0], 0, -1).reshape(-1)
    else:
        _keep_order(state, before, after)
    state.codes[node.outputs[0]] = after


def _of_shape(state: _State, node: Node, before: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same codes in another shape, behind a RESHAPE where it is another."""
    if shape == before.shape:
        return before
    after = Tensor(node.outputs[0], shape, "int8", before.scales, before.zero)
    dimensions = Tensor(f"{node.outputs[0]}_shape", (len(shape),), "int32", data=np.array(shape, np.int32))
    state.operators.append(Operator("RESHAPE", (before, dimensions), (after,), {}))
    return after


def _operator(state: _State, node: Node, ending: Ending) -> bool:
    activation = _activation(ending, node)
    if node.op == "Conv":
        made = _conv(state, node, ending, activation)
    elif node.op in ("Gemm", "MatMul"):
        made = _product(state, node, ending, activation)
    elif node.op in ("Add", "Mul"):
        made = _binary(state, node, ending, activation)
    elif node.op in ("MaxPool", "AveragePool"):
        made = _pool(state, node, ending, activation)
    elif node.op in ("GlobalAveragePool", "ReduceMean"):
        made = _mean(state, node, ending)
    elif node.op == "Concat":
        made = _concat(state, node, ending, activation)
    else:
        made = None
    if made is None:
        return False
    for name in ending.outputs:
        state.codes[name] = made
    state.context.done.update(one.name for one in ending.nodes)
    return True


def _activation(ending: Ending, node: Node) -> int:
    """The fused activation that clamps codes as the graph does."""
    zero, low, high = ending.quant.zero, ending.low, ending.high
    if (low, high) == (-128, 127):
        return NONE
    if low == max(-128, zero) and high == 127:
        return RELU
    six = int(ending.quant.encode(np.array(6.0)))
    if low == max(-128, zero) and high == six:
        return RELU6
    raise ExportError(
        f"what follows {node.describe()} clamps to other bounds than Relu and Clip(0, 6) do",
        fix="use Relu or Relu6",
    )


def _result(node: Node, shape: tuple[int, ...], quant: Quant) -> Tensor:
    return Tensor(node.outputs[0], shape, "int8", (float(quant.scale),), quant.zero)


def _constant(name: str, values: Array, weights: _Weights, axis: int) -> Tensor:
    one = weights.scales.size == 1
    scales = tuple(float(scale) for scale in weights.scales)
    return Tensor(name, values.shape, "int8", scales, 0, 0 if one else axis, np.ascontiguousarray(values))


def _bias(state: _State, node: Node, position: int, source: Tensor, weights: _Weights, size: int) -> Tensor:
    """int32 at scale of input times scale of weights."""
    values = np.zeros(size, np.float64)
    if position < len(node.inputs) and node.inputs[position]:
        name = node.inputs[position]
        if name in state.weights:
            given = state.weights[name]
            values = np.broadcast_to(given.codes.astype(np.float64) * given.scales, (size,))
        elif name in state.graph.constants:
            values = np.broadcast_to(state.graph.constants[name].astype(np.float64).reshape(-1), (size,))
        else:
            raise ExportError(f"the bias of {node.describe()} is no constant", fix="export the model with a constant")
    scales = np.broadcast_to(weights.scales.astype(np.float64) * source.scales[0], (size,))
    codes = np.clip(np.rint(values / scales), -(2**31), 2**31 - 1).astype(np.int32)
    kept = tuple(float(scale) for scale in (scales if weights.scales.size > 1 else scales[:1]))
    return Tensor(f"{node.outputs[0]}_bias", (size,), "int32", kept, data=codes)


def _padded(state: _State, node: Node, source: Tensor, frame: Window) -> tuple[Tensor, int]:
    """The input with its padding (as an operator of its own where TensorFlow has no name for it), and the padding."""
    missing = [
        (out - 1) * step + (size - 1) * dilation + 1 - side
        for out, step, size, dilation, side in zip(
            frame.size_out, frame.stride, frame.kernel, frame.dilation, frame.size_in, strict=True
        )
    ]
    after = [max(0, whole - before) for whole, before in zip(missing, frame.pad, strict=True)]
    if not any(frame.pad) and not any(after):
        return source, VALID
    rounded_up = all(
        out == -(-side // step) for out, side, step in zip(frame.size_out, frame.size_in, frame.stride, strict=True)
    )
    if rounded_up and all(before == max(0, whole) // 2 for before, whole in zip(frame.pad, missing, strict=True)):
        return source, SAME
    widths = np.array([[0, 0], [frame.pad[0], after[0]], [frame.pad[1], after[1]], [0, 0]], np.int32)
    shape = tuple(int(size + sum(pair)) for size, pair in zip(source.shape, widths, strict=True))
    made = Tensor(f"{node.outputs[0]}_padded", shape, "int8", source.scales, source.zero)
    sizes = Tensor(f"{node.outputs[0]}_widths", (4, 2), "int32", data=widths)
    state.operators.append(Operator("PAD", (source, sizes), (made,), {}))
    return made, VALID


def _conv(state: _State, node: Node, ending: Ending, activation: int) -> Tensor | None:
    source, weights = state.codes.get(node.inputs[0]), state.weights.get(node.inputs[1])
    if source is None or weights is None or weights.codes.dtype != np.int8 or weights.axis not in (0, None):
        return None
    wide, shape = state.graph.shape(node.inputs[0], node), state.graph.shape(node.outputs[0], node)
    groups = int(node.attributes.get("group", 1))
    codes = weights.codes if weights.codes.ndim == 4 else weights.codes[:, :, None, :]
    frame = window(node, wide, shape, weights.codes.shape[2:])
    depthwise = groups > 1 and groups == wide[1]
    if groups > 1 and not depthwise:
        return None
    bias = _bias(state, node, 2, source, weights, shape[1])
    source, padding = _padded(state, node, source, frame)
    options = {
        "padding": padding,
        "stride_w": frame.stride[1],
        "stride_h": frame.stride[0],
        "activation": activation,
        "dilation_w": frame.dilation[1],
        "dilation_h": frame.dilation[0],
    }
    made = _result(node, _last(shape), ending.quant)
    name = f"{node.outputs[0]}_weights"
    if depthwise:
        values = np.moveaxis(codes[:, 0], 0, -1)[None]  # (1, H, W, C)
        kind, held = "DEPTHWISE_CONV_2D", _constant(name, values, weights, 3)
        options["depth_multiplier"] = shape[1] // wide[1]
    else:
        kind, held = "CONV_2D", _constant(name, np.moveaxis(codes, 1, -1), weights, 0)  # (O, H, W, I)
    state.operators.append(Operator(kind, (source, held, bias), (made,), options))
    return made


def _product(state: _State, node: Node, ending: Ending, activation: int) -> Tensor | None:
    source, weights = state.codes.get(node.inputs[0]), state.weights.get(node.inputs[1])
    if source is None or weights is None or weights.codes.ndim != 2 or weights.codes.dtype != np.int8:
        return None
    turned = node.op == "Gemm" and node.attributes.get("transB", 0)
    plain = node.attributes.get("alpha", 1.0) == node.attributes.get("beta", 1.0) == 1.0
    if node.attributes.get("transA", 0) or not plain or weights.axis not in (None, 0 if turned else 1):
        return None
    codes = weights.codes if turned else weights.codes.T  # (outputs, inputs)
    order = state.order.get(id(source))
    if order is not None:
        codes = codes[:, order]
    bias = _bias(state, node, 2, source, weights, codes.shape[0])
    made = _result(node, state.graph.shape(node.outputs[0], node), ending.quant)
    held = _constant(f"{node.outputs[0]}_weights", codes, weights, 0)
    state.operators.append(Operator("FULLY_CONNECTED", (source, held, bias), (made,), {"activation": activation}))
    return made


def _binary(state: _State, node: Node, ending: Ending, activation: int) -> Tensor | None:
    a, b = (state.codes.get(name) for name in node.inputs)
    if a is None or b is None:
        return None
    made = _result(node, _last(state.graph.shape(node.outputs[0], node)), ending.quant)
    state.operators.append(Operator(node.op.upper(), (a, b), (made,), {"activation": activation}))
    return made


def _pool(state: _State, node: Node, ending: Ending, activation: int) -> Tensor | None:
    source = state.codes[node.inputs[0]]
    wide, shape = state.graph.shape(node.inputs[0], node), state.graph.shape(node.outputs[0], node)
    frame = window(node, wide, shape, tuple(node.attributes["kernel_shape"]))
    if any(size != 1 for size in frame.dilation) or node.attributes.get("ceil_mode", 0):
        return None
    if any(frame.pad):
        return None  # neither operator pads as ONNX does with explicit widths
    kind = "MAX_POOL_2D" if node.op == "MaxPool" else "AVERAGE_POOL_2D"
    options = {
        "padding": VALID,
        "stride_w": frame.stride[1],
        "stride_h": frame.stride[0],
        "filter_w": frame.kernel[1],
        "filter_h": frame.kernel[0],
        "activation": activation,
    }
    pooled = Tensor(node.outputs[0], _last(shape), "int8", source.scales, source.zero)  # pools keep the scale
    state.operators.append(Operator(kind, (source,), (pooled,), options))
    if _same(source, ending.quant):
        return pooled
    made = Tensor(ending.outputs[0], pooled.shape, "int8", (float(ending.quant.scale),), ending.quant.zero)
    state.operators.append(Operator("QUANTIZE", (pooled,), (made,), {}))
    return made


def _mean(state: _State, node: Node, ending: Ending) -> Tensor | None:
    source = state.codes[node.inputs[0]]
    wide, shape = state.graph.shape(node.inputs[0], node), state.graph.shape(node.outputs[0], node)
    if len(wide) not in (3, 4):
        return None
    if node.op == "ReduceMean":
        given = node.attributes.get("axes")
        if given is None and len(node.inputs) > 1:
            given = state.graph.constants[node.inputs[1]].reshape(-1).tolist()
        if given is None or sorted(int(axis) % len(wide) for axis in given) != list(range(2, len(wide))):
            return None
    kept = len(shape) > 2
    made = _result(node, _last(shape) if kept else shape, ending.quant)
    axes = Tensor(f"{node.outputs[0]}_axes", (2,), "int32", data=np.array([1, 2], np.int32))
    state.operators.append(Operator("MEAN", (source, axes), (made,), {"keep_dims": int(kept)}))
    return made


def _concat(state: _State, node: Node, ending: Ending, activation: int) -> Tensor | None:
    shape = state.graph.shape(node.outputs[0], node)
    parts = [state.codes.get(name) for name in node.inputs]
    axis = int(node.attributes["axis"]) % len(shape)
    if len(shape) not in (3, 4):
        return None
    moved = 3 if axis == 1 else axis - 1 + (len(shape) == 3)
    whole = []
    for part in parts:
        if part is None:
            return None
        if not _same(part, ending.quant):  # the operator wants one scale
            again = Tensor(f"{part.name}_again", part.shape, "int8", (float(ending.quant.scale),), ending.quant.zero)
            state.operators.append(Operator("QUANTIZE", (part,), (again,), {}))
            part = again
        whole.append(part)
    made = _result(node, _last(shape), ending.quant)
    state.operators.append(Operator("CONCATENATION", tuple(whole), (made,), {"axis": moved, "activation": activation}))
    return made
