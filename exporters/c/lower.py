"""Walk the graph in order; every node becomes a view, a step, or part of a neighbour's step."""

from collections.abc import Callable

import numpy as np

from exporters.c import binary, front_end, integer, pointwise, real, recurrent, resize
from exporters.c.context import Context, quant_of
from exporters.c.graph import Array, Graph, Node
from exporters.c.program import Program, QuantConst, Step, View, copy_code, view_of
from exporters.errors import ExportError

_INTEGER: dict[str, Callable[[Context, Node], bool]] = {
    "Conv": integer.conv,
    "Gemm": integer.product,
    "MatMul": integer.product,
    "Add": binary.two,
    "Mul": binary.two,
    "MaxPool": integer.max_pool,
    "AveragePool": integer.average_pool,
    "GlobalAveragePool": integer.average_pool,
    "ReduceMean": integer.average_pool,
    "Concat": integer.concat,
}

_REAL: dict[str, Callable[[Context, Node], None]] = {
    "Conv": real.conv,
    "Gemm": real.product,
    "MatMul": real.product,
    "Softmax": real.softmax,
    "LogSoftmax": real.softmax,
    "ReduceSum": real.reduce,
    "ReduceMean": real.reduce,
    "ReduceMax": real.reduce,
    "ReduceMin": real.reduce,
    "ReduceL2": real.reduce,
    "GlobalAveragePool": real.reduce,
    "MaxPool": real.pool,
    "AveragePool": real.pool,
    "GlobalMaxPool": real.pool,
    "BatchNormalization": real.batch_norm,
    "Concat": real.concat,
    "Pad": real.pad,
    "STFT": front_end.stft,
    "GRU": recurrent.layer,
    "LSTM": recurrent.layer,
}

_ELEMENTWISE = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min"})
_RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
_SAME = frozenset({"Identity", "Dropout", "Cast"})
_UNARY = frozenset(
    {"Relu", "Clip", "Neg", "Abs", "Sqrt", "Reciprocal", "Floor", "Ceil", "Log", "Exp", "Sigmoid", "Tanh", "Softplus"}
) | {"Erf", "Gelu", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu"}
_VIEWS = frozenset({"Transpose", "Slice", "Gather", "Split", "Expand", "Resize", "DepthToSpace", "SpaceToDepth"})

SUPPORTED = tuple(
    sorted(
        {*_INTEGER, *_REAL, *_ELEMENTWISE, *_RESHAPES, *_SAME, *_UNARY, *_VIEWS, "QuantizeLinear", "DequantizeLinear"}
    )
)


def lower(graph: Graph, cmsis_nn: bool = False, fixed_point: bool = False) -> Context:
    """The graph as a program.

    Args:
        cmsis_nn: convolutions and products call the user's CMSIS-NN.
        fixed_point: a spectral front-end runs in integers.

    Raises:
        ExportError: an operator (named, with its node) has no kernel for how it is used.
    """
    context = Context(graph, cmsis_nn, fixed_point)
    context.values.update(graph.constants)
    for name in graph.inputs:
        shape = graph.shapes[name]
        context.values[name] = view_of(context.program.buffer("float", int(np.prod(shape)), "input", name), shape)
    for node in graph.nodes:
        if node.name not in context.done:
            _lower(context, node)
    for name in graph.outputs:
        _output(context, name)
    return context


def _lower(context: Context, node: Node) -> None:
    if node.op not in SUPPORTED:
        raise ExportError(
            f"{node.describe()} has no C kernel; there are {', '.join(SUPPORTED)}",
            fix="replace the operator in the model, or add a kernel under exporters/c",
        )
    if node.op == "QuantizeLinear":
        if isinstance(context.value(node, 0), View):
            quant = quant_of(node, context.graph.constants)
            context.values[node.outputs[0]] = pointwise.quantize(context, node, quant)
        else:
            raise ExportError(f"{node.describe()} quantises a constant at run time", fix="store int8 weights instead")
    elif node.op == "DequantizeLinear":
        _dequantize(context, node)
    elif node.op in _SAME:
        context.values[node.outputs[0]] = context.value(node, 0)
    elif node.op in _RESHAPES or node.op in _VIEWS:
        _view(context, node)
    elif _INTEGER.get(node.op, _never)(context, node):
        return
    elif pointwise.function_of(context, node) is not None:
        pointwise.unary(context, node)
    elif node.op in _ELEMENTWISE:
        _elementwise(context, node)
    elif node.op in _REAL:
        inputs = [context.values.get(name) for name in node.inputs]
        if any(isinstance(value, View) and value.table is not None for value in inputs):
            context.fallback.append(node.describe())
        _REAL[node.op](context, node)
    else:
        raise ExportError(
            f"{node.describe()} has no C kernel for what it computes here", fix="use constant bounds and operands"
        )


def _never(context: Context, node: Node) -> bool:
    return False


def _elementwise(context: Context, node: Node) -> None:
    views = [isinstance(context.value(node, position), View) for position in range(len(node.inputs))]
    if all(views) and len(views) == 2:
        a, b = context.view(node, 0), context.view(node, 1)
        if a.table is not None and b.table is not None and a.buffer is not b.buffer:
            context.fallback.append(node.describe())
        pointwise.two_views(context, node)
    elif len(views) != 2 or not pointwise.with_constant(context, node):
        raise ExportError(f"{node.describe()} has {len(views)} operands; there are kernels for 2", fix="chain them")


def _dequantize(context: Context, node: Node) -> None:
    value = context.value(node, 0)
    if isinstance(value, View):
        quant = quant_of(node, context.graph.constants)
        if value.quant is None or value.quant.scale != quant.scale or value.quant.zero != quant.zero:
            value = View(value.buffer, value.index, quant.table(), quant)
        context.values[node.outputs[0]] = value
        return
    if isinstance(value, QuantConst):
        raise ExportError(f"{node.describe()} decodes a tensor that is decoded already", fix="export the model again")
    context.values[node.outputs[0]] = _weights(context, node, value)


def _weights(context: Context, node: Node, codes: Array) -> QuantConst | Array:
    scale = context.constant(node, 1, "scale").astype(np.float32)
    wide = codes.astype(np.int64)
    axis = None if scale.size == 1 else int(node.attributes.get("axis", 1)) % codes.ndim
    if context.optional(node, 2) is not None:
        zero = context.constant(node, 2, "zero point").astype(np.int64)
        wide = wide - (zero.reshape(()) if axis is None or zero.size == 1 else _along(zero, axis, codes.ndim))
    if node.attributes.get("block_size", 0):
        raise ExportError(f"{node.describe()} has scales per block", fix="quantise weights per output channel")
    fits = codes.dtype != np.int32 and wide.size and wide.min() >= -128 and wide.max() <= 127
    narrow = np.int8 if fits else np.int32  # only int8 codes reach the integer kernels
    return QuantConst(wide.astype(narrow), scale.reshape(-1) if axis is not None else scale.reshape(()), axis)


def _along(values: Array, axis: int, rank: int) -> Array:
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def _view(context: Context, node: Node) -> None:
    value = context.value(node, 0)
    if isinstance(value, QuantConst):
        context.values[node.outputs[0]] = _reshaped_weights(context, node, value)
        return
    if not isinstance(value, View):  # folded already, unless an index is computed
        raise ExportError(f"{node.describe()} picks from a constant at run time", fix="use constant indices")
    indices = _moved(context, node, value)
    for name, index in zip(node.outputs, indices, strict=True):
        context.values[name] = View(value.buffer, index, value.table, value.quant, value.expression, value.kernels)


def _moved(context: Context, node: Node, value: View) -> list[Array]:
    index = value.index
    if node.op in _RESHAPES:
        return [index.reshape(context.graph.shape(node.outputs[0], node))]
    if node.op == "Transpose":
        return [index.transpose(node.attributes.get("perm", tuple(reversed(range(index.ndim)))))]
    if node.op == "Expand":
        return [np.broadcast_to(index, context.graph.shape(node.outputs[0], node))]
    if node.op == "Gather":
        axis = int(node.attributes.get("axis", 0)) % index.ndim
        return [np.take(index, context.constant(node, 1, "indices").astype(np.int64), axis=axis)]
    if node.op == "Split":
        axis = int(node.attributes.get("axis", 0)) % index.ndim
        sizes = [context.graph.shape(name, node)[axis] for name in node.outputs]
        return list(np.split(index, np.cumsum(sizes)[:-1], axis=axis))
    if node.op == "Resize":
        return [resize.nearest(context, node, index)]
    if node.op in ("DepthToSpace", "SpaceToDepth"):
        return [resize.blocks(context, node, index)]
    starts, ends = (context.constant(node, at, "bounds").astype(np.int64).reshape(-1) for at in (1, 2))
    axes = np.arange(starts.size)
    if context.optional(node, 3) is not None:
        axes = context.constant(node, 3, "axes").reshape(-1)
    steps = np.ones(starts.size, dtype=np.int64)
    if context.optional(node, 4) is not None:
        steps = context.constant(node, 4, "steps").reshape(-1)
    cuts = [slice(None)] * index.ndim
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes.tolist(), steps.tolist(), strict=True):
        size = index.shape[axis]
        low = max(-size, min(start, size))
        high = None if step < 0 and end < -size else max(-size - 1, min(end, size))
        cuts[axis % index.ndim] = slice(low, high, step)
    return [index[tuple(cuts)]]


def _reshaped_weights(context: Context, node: Node, value: QuantConst) -> QuantConst | Array:
    if node.op == "Transpose":
        perm = node.attributes.get("perm", tuple(reversed(range(value.codes.ndim))))
        axis = None if value.axis is None else list(perm).index(value.axis)
        return QuantConst(value.codes.transpose(perm), value.scale, axis)
    if node.op in _RESHAPES:
        shape = context.graph.shape(node.outputs[0], node)
        if value.axis is None or (value.axis == 0 and shape[0] == value.codes.shape[0]):
            return QuantConst(value.codes.reshape(shape), value.scale, value.axis)
    raise ExportError(f"{node.describe()} rearranges quantised weights", fix="fold it before quantising")


def _output(context: Context, name: str) -> None:
    value = context.values[name]
    if not isinstance(value, View):
        raise ExportError(f"graph output {name!r} is constant", fix="export outputs that depend on the input")
    program: Program = context.program
    target = program.buffer("float", value.index.size, "output", name)
    if value.covers and np.array_equal(value.index.reshape(-1), np.arange(value.index.size)):
        program.map(
            f"output_{name}",
            ("DequantizeLinear",) if value.table is not None else (),
            value,
            "float",
            "x",
            target=target,
        )
        return
    plain = program.real(value, name)
    code = copy_code(program, target.token, np.arange(target.size), plain.buffer.token, plain.index)
    program.add(Step(f"output_{name}", ("Transpose",), code, (plain.buffer,), (target,), integer=False))
