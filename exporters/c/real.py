"""Lower operators outside the quantised part to float kernels."""

import numpy as np

from exporters.c.context import Context
from exporters.c.graph import Array, Node
from exporters.c.integer import reduced_axes
from exporters.c.program import Buffer, Index, QuantConst, Step, View, copy_code, literal, view_of
from exporters.c.windows import Window, whole, window
from exporters.errors import ExportError

_KERNEL = frozenset({"math", "real"})


def conv(context: Context, node: Node) -> None:
    """Float convolution, row-major."""
    view = context.view(node, 0)
    weight = context.constant(node, 1, "weights").astype(np.float32)
    shape = context.graph.shape(node.outputs[0], node)
    frame = window(node, view.shape, shape, weight.shape[2:])
    bias = np.zeros(shape[1], dtype=np.float32)
    if context.optional(node, 2) is not None:
        bias = context.constant(node, 2, "bias").astype(np.float32)
    source = _row_major(context, view, node)
    target = context.program.buffer("float", int(np.prod(shape)), label=node.name)
    groups = int(node.attributes.get("group", 1))
    weights, biases = context.program.constant(weight, "float"), context.program.constant(bias, "float")
    kernel = "model_real_pointwise" if _is_pointwise(frame) else "model_real_conv"
    code = (
        f"static const model_real_conv_t p = {{{frame.fields()}, .in_c = {view.shape[1]}, .out_c = {shape[1]}, "
        f".groups = {groups}, .weight = {weights}, .bias = {biases}}};\n"
        f"{kernel}(&p, {source.token}, {target.token});"
    )
    macs = int(np.prod(shape)) * int(np.prod(weight.shape[1:]))
    _place(context, node, code, source, target, macs, 4 * (weight.size + bias.size))
    context.values[node.outputs[0]] = view_of(target, shape)


def _is_pointwise(frame: Window) -> bool:
    """Whether every window is one place inside of the input."""
    inside = all(
        (out - 1) * step < size for out, step, size in zip(frame.size_out, frame.stride, frame.size_in, strict=True)
    )
    return frame.kernel == (1, 1) and frame.pad == (0, 0) and inside


def product(context: Context, node: Node) -> None:
    """Float Gemm or MatMul with constant weights on either side."""
    side = 0 if isinstance(context.value(node, 0), View) else 1
    if isinstance(context.value(node, 1 - side), View):
        raise ExportError(
            f"{node.describe()} multiplies two computed tensors; there is a kernel for constant weights only",
            fix="use a model without attention or other products of activations for this target",
        )
    view = context.view(node, side)
    weight = context.constant(node, 1 - side, "weights").astype(np.float32)
    index = view.index
    if weight.ndim != 2:
        if weight.size != int(np.prod(weight.shape[-2:])):
            raise ExportError(f"{node.describe()} has batched weights", fix="use one weight matrix")
        weight = weight.reshape(weight.shape[-2:])
    if node.op == "Gemm":
        if node.attributes.get("transA" if side == 0 else "transB", 0):
            index = index.T
        if node.attributes.get("transB" if side == 0 else "transA", 0):
            weight = weight.T
        weight = weight * np.float32(node.attributes.get("alpha", 1.0))
    shape = context.graph.shape(node.outputs[0], node)
    if side == 1:  # W x = (x^T W^T)^T
        index, weight = np.swapaxes(index, -1, -2), weight.T
    depth, columns = weight.shape
    bias = np.zeros(columns, dtype=np.float32)
    if node.op == "Gemm" and context.optional(node, 2) is not None:
        given = context.constant(node, 2, "bias").astype(np.float32) * np.float32(node.attributes.get("beta", 1.0))
        if side == 1 or given.size not in (1, columns):
            raise ExportError(f"{node.describe()} adds a matrix", fix="use a bias vector")
        bias = np.broadcast_to(given.reshape(-1), (columns,)).copy()
    plain = context.program.real(view, node.name)
    source = context.program.arrange(View(plain.buffer, index), index, node.name)
    rows = index.size // depth
    target = context.program.buffer("float", rows * columns, label=node.name)
    weights, biases = context.program.constant(weight.T, "float"), context.program.constant(bias, "float")
    code = f"model_real_product({source.token}, {weights}, {biases}, {target.token}, {rows}, {depth}, {columns});"
    _place(context, node, code, source, target, rows * depth * columns, 4 * (weight.size + columns))
    made = np.arange(target.size, dtype=np.int64).reshape((*index.shape[:-1], columns))
    context.values[node.outputs[0]] = View(target, (np.swapaxes(made, -1, -2) if side else made).reshape(shape))


def softmax(context: Context, node: Node) -> None:
    """Softmax and LogSoftmax over one axis."""
    view = context.view(node, 0)
    axis = int(node.attributes.get("axis", -1)) % len(view.shape)
    source, target, rows, size, index = _rows(context, view, node, (axis,), view.index.size)
    logarithm = int(node.op == "LogSoftmax")
    code = f"model_softmax({source.token}, {target.token}, {rows}, {size}, {logarithm});"
    _place(context, node, code, source, target, inplace=source)
    context.values[node.outputs[0]] = View(target, index)


def reduce(context: Context, node: Node) -> None:
    """Sums, means, extremes and norms over any axes."""
    view = context.view(node, 0)
    axes = reduced_axes(context, node, len(view.shape))
    kind = {"ReduceSum": 0, "ReduceMean": 1, "ReduceMax": 2, "ReduceMin": 3, "ReduceL2": 4, "GlobalAveragePool": 1}
    if node.op == "GlobalAveragePool":
        axes = tuple(range(2, len(view.shape)))
    kept = view.index.size // int(np.prod([view.shape[axis] for axis in axes]))
    source, target, rows, size, _ = _rows(context, view, node, axes, kept)
    code = f"model_reduce({source.token}, {target.token}, {rows}, {size}, {kind[node.op]});"
    _place(context, node, code, source, target)
    context.values[node.outputs[0]] = view_of(target, context.graph.shape(node.outputs[0], node))


def pool(context: Context, node: Node) -> None:
    """MaxPool, AveragePool and GlobalMaxPool on floats."""
    view = context.view(node, 0)
    shape = context.graph.shape(node.outputs[0], node)
    if node.op == "GlobalMaxPool":
        frame = whole(view.shape)
    else:
        frame = window(node, view.shape, shape, tuple(node.attributes["kernel_shape"]))
    source = _row_major(context, view, node)
    target = context.program.buffer("float", int(np.prod(shape)), label=node.name)
    code = (
        f"static const model_real_pool_t p = {{{frame.fields()}, .channels = {shape[1]}, "
        f".maximum = {int(node.op != 'AveragePool')}, "
        f".count_padding = {int(node.attributes.get('count_include_pad', 0))}}};\n"
        f"model_real_pool(&p, {source.token}, {target.token});"
    )
    _place(context, node, code, source, target)
    context.values[node.outputs[0]] = view_of(target, shape)


def batch_norm(context: Context, node: Node) -> None:
    """BatchNormalization that no convolution took in."""
    view = context.view(node, 0)
    scale, shift, mean, variance = (
        context.constant(node, position, "statistics").astype(np.float64) for position in range(1, 5)
    )
    factor = scale / np.sqrt(variance + float(node.attributes.get("epsilon", 1e-5)))
    plain = context.program.real(view, node.name)
    source = context.program.arrange(plain, plain.index, node.name)
    inner = int(np.prod(view.shape[2:]))
    factors = context.program.constant(factor, "float")
    shifts = context.program.constant(shift - mean * factor, "float")
    place = "i" if inner == 1 else f"i / {inner}"
    index = np.arange(source.size, dtype=np.int64).reshape(view.shape)
    context.values[node.outputs[0]] = View(source, index, expression=f"(v * {factors}[{place}] + {shifts}[{place}])")


def concat(context: Context, node: Node) -> None:
    """Float Concat; constants may be among its inputs."""
    shape = context.graph.shape(node.outputs[0], node)
    axis = int(node.attributes["axis"]) % len(shape)
    program = context.program
    target = program.buffer("float", int(np.prod(shape)), label=node.name)
    places = np.arange(target.size, dtype=np.int64).reshape(shape)
    at, pieces, sources = 0, [], []
    for position in range(len(node.inputs)):
        value = context.value(node, position)
        if isinstance(value, QuantConst):
            value = value.real()
        order = np.take(places, range(at, at + value.shape[axis]), axis=axis)
        at += value.shape[axis]
        if isinstance(value, View):
            plain = program.real(value, node.name)
            sources.append(plain.buffer)
            pieces.append(copy_code(program, target.token, order, plain.buffer.token, plain.index))
        else:
            name = program.constant(value, "float")
            pieces.append(copy_code(program, target.token, order, name, np.arange(value.size)))
    program.add(Step(node.name, (node.op,), "\n".join(pieces), tuple(dict.fromkeys(sources)), (target,), integer=False))
    context.values[node.outputs[0]] = view_of(target, shape)


def pad(context: Context, node: Node) -> None:
    """Pad: constant, reflect, edge. int8 tensors stay int8 where the constant is one of their values."""
    view = context.view(node, 0)
    pads = context.constant(node, 1, "widths").astype(int).reshape(-1)
    rank = len(view.shape)
    axes = list(range(rank))
    if context.optional(node, 3) is not None:
        axes = [int(axis) % rank for axis in context.constant(node, 3, "axes").reshape(-1)]
    widths = [(0, 0)] * rank
    for at, axis in enumerate(axes):
        widths[axis] = (int(pads[at]), int(pads[at + len(axes)]))
    if any(width < 0 for pair in widths for width in pair):
        raise ExportError(f"{node.describe()} has negative widths", fix="use Slice to crop")
    mode = node.attributes.get("mode", b"constant").decode()
    if mode in ("reflect", "edge", "wrap"):
        index = np.pad(view.index, widths, mode=mode)
        context.values[node.outputs[0]] = View(
            view.buffer, index, view.table, view.quant, view.expression, view.kernels
        )
        return
    given = context.optional(node, 2)
    fill = np.float32(0 if given is None else context.constant(node, 2, "value").reshape(()))
    text = literal(fill)
    if view.quant is not None and float(view.quant.table()[int(view.quant.encode(np.array(fill))) + 128]) == fill:
        text = str(int(view.quant.encode(np.array(fill))))
    else:
        view = context.program.real(view, node.name)
    whole_index = np.pad(np.arange(view.index.size).reshape(view.shape), widths, constant_values=-1)
    inside = np.flatnonzero(whole_index.reshape(-1) >= 0)
    target = context.program.buffer(view.buffer.ctype, whole_index.size, label=node.name)
    code = f"for (int32_t i = 0; i < {target.size}; i++) {{\n    {target.token}[i] = {text};\n}}\n" + copy_code(
        context.program, target.token, inside, view.buffer.token, view.index
    )
    context.program.add(Step(node.name, (node.op,), code, (view.buffer,), (target,), integer=view.table is not None))
    index = np.arange(target.size, dtype=np.int64).reshape(whole_index.shape)
    context.values[node.outputs[0]] = View(target, index, view.table, view.quant)


def _row_major(context: Context, view: View, node: Node) -> Buffer:
    plain = context.program.real(view, node.name)
    return context.program.arrange(plain, plain.index, node.name)


def _rows(
    context: Context, view: View, node: Node, axes: tuple[int, ...], size_out: int
) -> tuple[Buffer, Buffer, int, int, Index]:
    """Bring `axes` to the end: (source, target, rows, row length, index of a result of the same shape)."""
    plain = context.program.real(view, node.name)
    kept = [axis for axis in range(len(view.shape)) if axis not in axes]
    order = plain.index.transpose((*kept, *axes))
    source = context.program.arrange(plain, order, node.name)
    target = context.program.buffer("float", size_out, label=node.name)
    size = int(np.prod([view.shape[axis] for axis in axes]))
    index = np.arange(source.size, dtype=np.int64).reshape(order.shape).transpose(np.argsort((*kept, *axes)))
    return source, target, source.size // size, size, index


def _place(
    context: Context,
    node: Node,
    code: str,
    source: Buffer,
    target: Buffer,
    macs: int = 0,
    weight_bytes: int = 0,
    inplace: Buffer | None = None,
) -> None:
    context.program.add(
        Step(
            node.name,
            (node.op,),
            code,
            (source,),
            (target,),
            inplace=inplace,
            kernels=_KERNEL,
            macs=macs,
            weight_bytes=weight_bytes,
            params=weight_bytes // 4,
            integer=False,
        )
    )


def decoded(value: QuantConst | Array) -> Array:
    """A constant as floats."""
    return value.real() if isinstance(value, QuantConst) else value
