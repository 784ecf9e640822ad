"""Add and Mul of two quantised tensors: one integer kernel each, with onnxruntime's roundings on ties."""

import numpy as np

from exporters.c.context import Context
from exporters.c.graph import Node
from exporters.c.integer import repetition
from exporters.c.program import Quant, Step, View, channel_last_order, literal


def two(context: Context, node: Node) -> bool:
    """Add and Mul of two quantised tensors of equal shape, or with one that repeats along axes."""
    a, b = context.value(node, 0), context.value(node, 1)
    if not (isinstance(a, View) and isinstance(b, View)) or a.quant is None or b.quant is None:
        return False
    ending = context.ending(node.outputs[0])
    if ending is None:
        return False
    shape = context.graph.shape(node.outputs[0], node)
    a_first = False
    if a.shape != shape:
        a_first = not _repeats_inside(a.shape, shape)
        a, b = b, a
    if a.shape != shape or a.quant is None or b.quant is None:
        return False
    order = a.index if a.covers else channel_last_order(a) if len(shape) > 2 else a.index
    first = context.program.arrange(a, np.arange(a.buffer.size) if a.covers else order, node.name)
    inverse = np.empty(a.index.size, dtype=np.int64)
    places = a.index.reshape(-1) if a.covers else None
    if places is None:
        flat = np.arange(a.index.size).reshape(shape)
        inverse = (np.moveaxis(flat[0], 0, -1) if len(shape) > 2 else flat).reshape(-1)
    else:
        inverse[places] = np.arange(a.index.size)
    wanted = np.broadcast_to(b.index, shape).reshape(-1)[inverse]
    inner, period = repetition(wanted)
    second = context.program.arrange(b, wanted[: inner * period : inner], node.name)
    target = context.program.buffer("int8_t", a.index.size, label=node.name)
    low, high = ending.limits
    if node.op == "Mul":
        function = "model_multiply"
        scales = f".a_scale = {literal(a.quant.scale * b.quant.scale / ending.quant.scale)}"
    elif (ending.low, ending.high) == (-128, 127):
        function, scales = "model_add", _sum_scales(a.quant, b.quant, ending.quant, a_first)
    else:
        function, scales = "model_add_decoded", _decoded_scales(a.quant, b.quant, ending.quant)
    code = (
        f"static const model_binary_t p = {{.size = {target.size}, .inner = {inner}, .b_size = {period}, "
        f".a_zero = {a.quant.zero}, .b_zero = {b.quant.zero}, .out_zero = {ending.quant.zero}, .low = {low}, "
        f".high = {high}, {scales}}};\n"
        f"{function}(&p, {first.token}, {second.token}, {target.token});"
    )
    context.program.add(
        Step(
            node.name,
            (node.op, *ending.ops),
            code,
            tuple(dict.fromkeys((first, second))),
            (target,),
            inplace=first if first.size == target.size and (second is not first or period == target.size) else None,
            kernels=frozenset({"binary"}),
        )
    )
    index = np.empty(a.index.size, dtype=np.int64)
    index[inverse] = np.arange(a.index.size)
    context.finish(ending, View(target, index.reshape(shape), ending.quant.table(), ending.quant))
    return True


def _repeats_inside(part: tuple[int, ...], whole_shape: tuple[int, ...]) -> bool:
    """Whether a tensor has one value along the last axis longer than one: onnxruntime then swaps a sum's operands."""
    wide = (1,) * (len(whole_shape) - len(part)) + part
    return next((own == 1 for own, size in zip(wide[::-1], whole_shape[::-1], strict=True) if size > 1), True)


def _sum_scales(a: Quant, b: Quant, result: Quant, a_first: bool) -> str:
    """Fields of `model_add`. Source: onnxruntime's MlasQLinearAdd on AVX2, which folds the zero points into one number.

    Its compiler fuses the first of the two products of that number into the addition: one rounding less.
    """
    ratios = (np.float32(a.scale / result.scale), np.float32(b.scale / result.scale))
    first, second = ((b, ratios[1]), (a, ratios[0])) if a_first else ((a, ratios[0]), (b, ratios[1]))
    product = np.float32(second[1] * np.float32(second[0].zero))
    folded = np.float32(np.float64(first[1]) * first[0].zero + np.float64(product))
    offset = np.float32(np.float32(result.zero) - folded)
    fixed = [int(np.rint(np.float64(value) * 2**20)) for value in (*ratios, offset)]
    if 128 * (abs(fixed[0]) + abs(fixed[1])) + abs(fixed[2]) >= 2**31 - 2**20:
        fixed = [0, 0, 2**19]
    return (
        f".a_scale = {literal(ratios[0])}, .b_scale = {literal(ratios[1])}, .offset = {literal(offset)}, "
        f".a_fixed = {fixed[0]}, .b_fixed = {fixed[1]}, .offset_fixed = {fixed[2]}, .a_first = {int(a_first)}"
    )


def _decoded_scales(a: Quant, b: Quant, result: Quant) -> str:
    return (
        f".a_scale = {literal(a.scale / result.scale)}, .b_scale = {literal(b.scale / result.scale)}, "
        f".a_step = {literal(a.scale)}, .b_step = {literal(b.scale)}, .out_step = {literal(result.scale)}"
    )
