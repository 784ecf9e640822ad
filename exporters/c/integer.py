"""Lower DequantizeLinear -> operator -> [Relu or Clip] -> QuantizeLinear to one integer kernel.

Each function returns True where it placed a kernel and False where the pattern is not there; then the operator runs
as a float kernel on decoded tensors.

Arithmetic: int32 sums of int8 products, the input's zero point folded into the bias, then code =
round_half_even(sum * (s_x * s_w / s_y)) + z_y in float32, which is what onnxruntime's integer kernels compute.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from exporters.c import cmsis_nn
from exporters.c.context import Context, Ending
from exporters.c.graph import Array, Node
from exporters.c.program import (
    Buffer,
    Index,
    Program,
    Quant,
    QuantConst,
    Step,
    View,
    channel_last,
    channel_last_order,
    copy_code,
    literal,
    view_of,
)
from exporters.c.windows import Window, whole, window
from exporters.errors import ExportError

LARGEST_BIAS = 2**30  # leaves as much again for the sum of products


@dataclass(frozen=True)
class _Linear:
    """Weights (output, filter...) with bias and multiplier for sums of integer products."""

    codes: Array  # int8
    bias: Array  # int32, the input's zero point folded in
    multiplier: Array  # float32
    offset: Array  # float32 real bias, where the result stays real


def conv(context: Context, node: Node) -> bool:
    """Convolution, any groups, 1-D or 2-D."""
    found = _operands(context, node, 0, 1)
    if found is None:
        return False
    view, quant, weight = found
    shape = context.graph.shape(node.outputs[0], node)
    codes = weight.codes if weight.codes.ndim == 4 else weight.codes[:, :, None, :]
    frame = window(node, view.shape, shape, weight.codes.shape[2:])
    bias = _bias(context, node, 2, shape[1])
    groups = int(node.attributes.get("group", 1))
    ending = context.ending(node.outputs[0])
    linear = _linear(quant, QuantConst(np.moveaxis(codes, 1, -1), weight.scale, weight.axis), bias, ending, node)
    source = context.program.arrange(view, channel_last_order(view), node.name)
    depthwise = groups > 1 and groups == view.shape[1] == shape[1] and ending is not None
    place = _depthwise if depthwise else _general
    size = shape[1] * int(np.prod(shape[2:]))
    target, result = _target(context, node, ending, size)
    place(context, node, linear, frame, groups, source, target, quant, ending)
    _finish(context, node, ending, channel_last(target, shape, ending.quant if ending else None), result)
    return True


def product(context: Context, node: Node) -> bool:
    """Gemm and MatMul with constant weights, and the Add of a constant bias after a MatMul."""
    found = _operands(context, node, 0, 1)
    if found is None:
        return False
    view, quant, weight = found
    if weight.codes.ndim != 2:
        return False
    if node.op == "Gemm":
        if node.attributes.get("alpha", 1.0) != 1.0 or node.attributes.get("transA", 0):
            return False
        if node.attributes.get("beta", 1.0) != 1.0 and context.optional(node, 2) is not None:
            return False
    if not (node.op == "Gemm" and node.attributes.get("transB", 0)):
        weight = QuantConst(weight.codes.T, weight.scale, None if weight.axis is None else 1 - weight.axis)
    if weight.axis not in (0, None):
        return False  # a scale per input channel cannot leave the sum
    outputs, depth = weight.codes.shape
    last = node
    if node.op == "Gemm":
        bias = _bias(context, node, 2, outputs)
    else:
        bias, last = _added_bias(context, node, outputs)
    shape = context.graph.shape(last.outputs[0], last)
    ending = context.ending(last.outputs[0])
    rows = view.index.size // depth
    order = view.index.reshape(rows, depth)
    codes = weight.codes
    if rows == 1 and view.covers:  # reorder the weights instead of the input
        codes = np.empty_like(weight.codes)
        codes[:, order[0]] = weight.codes
        order = np.arange(depth, dtype=np.int64)[None]
    source = context.program.arrange(view, order, node.name)
    linear = _linear(
        quant, QuantConst(codes.reshape(outputs, 1, 1, depth), weight.scale, weight.axis), bias, ending, node
    )
    frame = Window((1, 1), (1, 1), (1, 1), (0, 0), (1, rows), (1, rows))
    target, result = _target(context, last, ending, rows * outputs)
    _general(context, node, linear, frame, 1, source, target, quant, ending)
    if last is not node:
        context.done.add(last.name)
    _finish(context, last, ending, view_of(target, shape, ending.quant if ending else None), result)
    return True


def max_pool(context: Context, node: Node) -> bool:
    """MaxPool on codes: decoding is monotonic."""
    view = context.view(node, 0)
    if view.quant is None:
        return False
    shape = context.graph.shape(node.outputs[0], node)
    frame = window(node, view.shape, shape, tuple(node.attributes["kernel_shape"]))
    source = context.program.arrange(view, channel_last_order(view), node.name)
    target = context.program.buffer("int8_t", int(np.prod(shape)), label=node.name)
    code = (
        f"static const model_pool_t p = {{{frame.fields()}, .channels = {shape[1]}}};\n"
        f"model_max_pool(&p, {source.token}, {target.token});"
    )
    context.program.add(Step(node.name, (node.op,), code, (source,), (target,), kernels=frozenset({"pool"})))
    context.values[node.outputs[0]] = channel_last(target, shape, view.quant)
    return True


def average_pool(context: Context, node: Node) -> bool:
    """AveragePool, GlobalAveragePool, and ReduceMean over all spatial axes."""
    view = context.view(node, 0)
    ending = context.ending(node.outputs[0])
    if view.quant is None or ending is None or len(view.shape) not in (3, 4):
        return False
    shape = context.graph.shape(node.outputs[0], node)
    counted = 0
    if node.op == "AveragePool":
        frame = window(node, view.shape, shape, tuple(node.attributes["kernel_shape"]))
        counted = int(node.attributes.get("count_include_pad", 0))
        if node.attributes.get("ceil_mode", 0) and counted:
            return False
    else:
        if node.op == "ReduceMean" and reduced_axes(context, node, len(view.shape)) != tuple(range(2, len(view.shape))):
            return False
        frame = whole(view.shape)
    source = context.program.arrange(view, channel_last_order(view), node.name)
    target = context.program.buffer("int8_t", int(np.prod(shape)), label=node.name)
    sums = context.program.buffer("int32_t", view.shape[1], label=f"{node.name}_sums")
    # onnxruntime sums a whole input, without padding, as integers
    padded = any(node.attributes.get("pads", ())) or frame.size_out != (1, 1)
    in_floats = node.op == "AveragePool" and (frame.kernel != frame.size_in or padded)
    low, high = ending.limits
    code = (
        f"static const model_pool_t p = {{{frame.fields()}, .channels = {view.shape[1]}, "
        f".in_zero = {view.quant.zero}, .out_zero = {ending.quant.zero}, .low = {low}, .high = {high}, "
        f".count_padding = {counted}, .in_floats = {int(in_floats)}, "
        f".in_scale = {literal(view.quant.scale)}, .out_scale = {literal(ending.quant.scale)}}};\n"
        f"model_average_pool(&p, {source.token}, {target.token}, {sums.token});"
    )
    context.program.add(
        Step(node.name, (node.op, *ending.ops), code, (source,), (target,), (sums,), kernels=frozenset({"pool"}))
    )
    made = channel_last(target, (1, view.shape[1], *frame.size_out), ending.quant)
    context.finish(ending, View(target, made.index.reshape(shape), made.table, made.quant))
    return True


def concat(context: Context, node: Node) -> bool:
    """Concat of quantised tensors: each is translated to the result's codes while it is copied."""
    views = [context.value(node, position) for position in range(len(node.inputs))]
    ending = context.ending(node.outputs[0])
    if ending is None:
        return False
    parts = [view for view in views if isinstance(view, View) and view.table is not None]
    if len(parts) != len(views):
        return False
    shape = context.graph.shape(node.outputs[0], node)
    axis = int(node.attributes["axis"]) % len(shape)
    target = context.program.buffer("int8_t", int(np.prod(shape)), label=node.name)
    whole_view = channel_last(target, shape, ending.quant) if len(shape) > 2 else view_of(target, shape, ending.quant)
    at = 0
    pieces = []
    for part in parts:
        assert part.table is not None
        place = np.take(whole_view.index, range(at, at + part.shape[axis]), axis=axis)
        at += part.shape[axis]
        order = np.argsort(place.reshape(-1), kind="stable")
        codes = np.clip(ending.quant.encode(part.table), ending.low, ending.high).astype(np.int8)
        table = "" if np.array_equal(codes, np.arange(-128, 128)) else context.program.constant(codes, "int8_t")
        source_order, target_order = part.index.reshape(-1)[order], place.reshape(-1)[order]
        pieces.append(copy_code(context.program, target.token, target_order, part.buffer.token, source_order, table))
    context.program.add(
        Step(
            node.name,
            (node.op, *ending.ops),
            "\n".join(pieces),
            tuple(dict.fromkeys(part.buffer for part in parts)),
            (target,),
        )
    )
    context.finish(ending, whole_view)
    return True


def reduced_axes(context: Context, node: Node, rank: int) -> tuple[int, ...]:
    """Sorted axes of a Reduce operator."""
    axes = node.attributes.get("axes")
    if axes is None and context.optional(node, 1) is not None:
        axes = context.constant(node, 1, "axes").reshape(-1).tolist()
    return tuple(sorted(int(axis) % rank for axis in axes)) if axes else tuple(range(rank))


def repetition(values: Index) -> tuple[int, int]:
    """(inner, period) with values[i] = values[inner * ((i / inner) % period)], the smallest there are."""
    changes = np.flatnonzero(np.diff(values))
    if changes.size == 0:
        return 1, 1
    inner = int(np.gcd.reduce(np.append(changes + 1, values.size)))
    short = values[::inner]
    for period in range(1, short.size + 1):
        if short.size % period == 0 and np.array_equal(short, np.tile(short[:period], short.size // period)):
            return inner, period
    return inner, short.size


def _operands(context: Context, node: Node, data: int, weight: int) -> tuple[View, Quant, QuantConst] | None:
    value, weights = context.value(node, data), context.value(node, weight)
    if not isinstance(value, View) or value.quant is None or not isinstance(weights, QuantConst):
        return None
    if weights.codes.dtype != np.int8 or weights.axis not in (0, 1, None):
        return None
    if node.op == "Conv" and weights.axis == 1:
        return None
    return value, value.quant, weights


def _bias(context: Context, node: Node, position: int, size: int) -> Array:
    if context.optional(node, position) is None:
        return np.zeros(size, dtype=np.float32)
    return np.broadcast_to(context.constant(node, position, "bias").astype(np.float32).reshape(-1), (size,))


def _added_bias(context: Context, node: Node, size: int) -> tuple[Array, Node]:
    name = node.outputs[0]
    consumers = context.graph.consumers.get(name, [])
    if name not in context.graph.outputs and len(consumers) == 1 and consumers[0].op == "Add":
        add = consumers[0]
        other = context.values.get(add.inputs[1] if add.inputs[0] == name else add.inputs[0])
        real = other.real() if isinstance(other, QuantConst) else other
        if isinstance(real, np.ndarray) and real.size in (1, size) and (real.size == 1 or real.shape[-1] == size):
            return np.broadcast_to(real.astype(np.float32).reshape(-1), (size,)), add
    return np.zeros(size, dtype=np.float32), node


def _linear(quant: Quant, weight: QuantConst, bias: Array, ending: Ending | None, node: Node) -> _Linear:
    """Integer bias at scale s_x * s_w. A channel whose bias would not fit keeps its bias and coarser weights.

    Such a channel is nearly constant: with weights halved n times until the bias fits 2^30, the error stays below
    filter length * 2^(6 - 30) of the bias.
    """
    outputs = weight.codes.shape[0]
    codes = weight.codes.astype(np.int64).reshape(outputs, -1)
    scale = np.broadcast_to(weight.scale.astype(np.float32).reshape(-1), (outputs,)).astype(np.float32).copy()
    if not (np.isfinite(scale).all() and np.isfinite(bias).all() and (scale > 0).all()):
        raise ExportError(f"weights of {node.describe()} have a scale or bias that is no number", fix="train again")
    step = quant.scale * scale
    for channel in range(outputs):
        while abs(float(bias[channel])) > LARGEST_BIAS * float(step[channel]):
            step[channel] *= np.float32(2)
            codes[channel] = np.rint(codes[channel] / 2)
    if codes.shape[1] * 128 * 255 > 2**31 - 1 - LARGEST_BIAS:
        raise ExportError(
            f"{node.describe()} sums {codes.shape[1]} products, too many for int32", fix="split the layer"
        )
    correction = -quant.zero * codes.sum(axis=1)
    real = ending is None
    whole_bias = np.zeros(outputs) if real else np.rint(bias.astype(np.float32) / step).astype(np.float64)
    multiplier = step if ending is None else step / ending.quant.scale
    return _Linear(
        codes.astype(np.int8).reshape(weight.codes.shape),
        (whole_bias.astype(np.int64) + correction).astype(np.int32),
        multiplier.astype(np.float32),
        bias.astype(np.float32),
    )


def _target(context: Context, node: Node, ending: Ending | None, size: int) -> tuple[Buffer, str]:
    if ending is not None:
        return context.program.buffer("int8_t", size, label=node.name), ""
    return context.program.buffer("float", size, label=node.name), node.outputs[0]


def _finish(context: Context, node: Node, ending: Ending | None, view: View, result: str) -> None:
    if ending is not None:
        context.finish(ending, view)
    else:
        context.values[result or node.outputs[0]] = view


def _general(
    context: Context,
    node: Node,
    linear: _Linear,
    frame: Window,
    groups: int,
    source: Buffer,
    target: Buffer,
    quant: Quant,
    ending: Ending | None,
) -> None:
    program = context.program
    if context.cmsis_nn and groups == 1 and ending is not None:
        _cmsis_nn(context, node, linear, frame, source, target, quant, ending, cmsis_nn.convolution)
        return
    outputs, kh, kw, count = linear.codes.shape
    length = kh * kw * count
    depth = (length + 3) // 4 * 4
    made = outputs // groups
    pairs = (made + 1) // 2
    rows = np.zeros((groups, pairs * 2, depth), dtype=np.int8)
    rows[:, :made, :length] = linear.codes.reshape(groups, made, length)
    weight = rows.reshape(groups, pairs, 2, depth // 4, 4).transpose(0, 1, 3, 2, 4)
    inside = all(
        (out - 1) * step < size for out, step, size in zip(frame.size_out, frame.stride, frame.size_in, strict=True)
    )
    in_place = frame.kernel == (1, 1) and frame.pad == (0, 0)
    single = in_place and inside and frame.size_out == (1, 1)
    scratch = () if single else (program.buffer("int32_t", max(depth, 32) + depth // 2, label=f"{node.name}_columns"),)
    columns = scratch[0].token if scratch else "0"
    in_c = count * groups
    zero, (low, high) = (0, (0, 0)) if ending is None else (ending.quant.zero, ending.limits)
    multiplier, bias = program.constant(linear.multiplier, "float"), program.constant(linear.bias, "int32_t")
    code = (
        f"static const model_conv_t p = {{{frame.fields()}, .in_c = {in_c}, .out_c = {outputs}, "
        f".groups = {groups}, .depth = {depth}, .in_place = {int(in_place)}, "
        f".in_zero = {quant.zero}, .out_zero = {zero}, .low = {low}, "
        f".high = {high}, .weight = {program.constant(weight, 'int8_t')}, .bias = {bias}, "
        f".multiplier = {multiplier}}};\n"
    )
    if ending is None:
        offset = program.constant(linear.offset, "float")
        code += f"model_conv(&p, {source.token}, 0, {target.token}, {offset}, {columns});"
    else:
        code += f"model_conv(&p, {source.token}, {target.token}, 0, 0, {columns});"
    program.add(
        Step(
            node.name,
            (node.op, *(ending.ops if ending else ())),
            code,
            (source,),
            (target,),
            scratch,
            kernels=frozenset({"conv"}),
            macs=frame.size_out[0] * frame.size_out[1] * outputs * length,
            weight_bytes=weight.size + 8 * outputs,
            params=linear.codes.size + outputs,
        )
    )


def _depthwise(
    context: Context,
    node: Node,
    linear: _Linear,
    frame: Window,
    groups: int,
    source: Buffer,
    target: Buffer,
    quant: Quant,
    ending: Ending | None,
) -> None:
    assert ending is not None
    program = context.program
    if context.cmsis_nn:
        _cmsis_nn(context, node, linear, frame, source, target, quant, ending, cmsis_nn.depthwise)
        return
    kh, kw = frame.kernel
    padded = (groups + 3) // 4 * 4
    weight = np.zeros((kh * kw, padded), dtype=np.int16)
    weight[:, :groups] = linear.codes.reshape(groups, kh * kw).T
    eights = (groups + 7) // 8 * 8  # vector cores load eight
    bias = np.zeros(eights, dtype=np.int32)
    bias[:groups] = linear.bias
    multiplier = np.zeros(eights, dtype=np.float32)
    multiplier[:groups] = linear.multiplier
    zeros = program.buffer("int8_t", groups + 4, label=f"{node.name}_zeros")
    taps = program.buffer("int32_t", 2 * kh * kw, label=f"{node.name}_taps")  # pointers: 8 bytes on a 64-bit host
    low, high = ending.limits
    code = (
        f"static const model_depthwise_t p = {{{frame.fields()}, .channels = {groups}, .in_zero = {quant.zero}, "
        f".out_zero = {ending.quant.zero}, .low = {low}, .high = {high}, "
        f".weight = {program.constant(weight, 'int16_t')}, .bias = {program.constant(bias, 'int32_t')}, "
        f".multiplier = {program.constant(multiplier, 'float')}}};\n"
        f"model_depthwise(&p, {source.token}, {target.token}, {zeros.token}, (const int8_t **)(void *){taps.token});"
    )
    program.add(
        Step(
            node.name,
            (node.op, *ending.ops),
            code,
            (source,),
            (target,),
            (zeros, taps),
            kernels=frozenset({"depthwise"}),
            macs=frame.size_out[0] * frame.size_out[1] * groups * kh * kw,
            weight_bytes=weight.nbytes + 8 * eights,
            params=linear.codes.size + groups,
        )
    )


def _cmsis_nn(
    context: Context,
    node: Node,
    linear: _Linear,
    frame: Window,
    source: Buffer,
    target: Buffer,
    quant: Quant,
    ending: Ending,
    place: Callable[[Program, cmsis_nn.Layer, Buffer, Buffer, str], tuple[str, Buffer]],
) -> None:
    outputs = linear.codes.shape[0]
    sums = linear.codes.astype(np.int64).reshape(outputs, -1).sum(axis=1)
    bias = (linear.bias.astype(np.int64) + quant.zero * sums).astype(np.int32)
    layer = cmsis_nn.Layer(linear.codes, bias, linear.multiplier, frame, quant, ending)
    code, scratch = place(context.program, layer, source, target, node.name)
    context.program.add(
        Step(
            node.name,
            (node.op, *ending.ops),
            code,
            (source,),
            (target,),
            (scratch,),
            kernels=frozenset({"cmsis_nn"}),
            macs=frame.size_out[0] * frame.size_out[1] * linear.codes.size,
            weight_bytes=linear.codes.size + 12 * outputs,
            params=linear.codes.size + outputs,
        )
    )
