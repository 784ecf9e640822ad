"""The shapes of what ONNX operators make, from the shapes of what they take.

Rules follow the operators' specification (https://onnx.ai/onnx/operators/) from opset 7 to 28: where an argument moved
from an attribute to an input, whichever is there is taken. Nothing is computed or allocated here. onnx's own inference
does the same in C++; it is not used because a damaged file can end the process in it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil, floor, prod

from profiles.graph import operators
from profiles.onnx_kinds import POINTWISE
from profiles.onnx_nodes import MICROSOFT, STANDARD, Contradiction, Node, Shape, Value

Inputs = Sequence[Value | None]
Shapes = Sequence[Shape | None]
Rule = Callable[[Node, Inputs], Shapes]

# Operators whose output's size depends on values: the shape here is the largest that it can be.
BOUNDED = frozenset({"Compress", "NonMaxSuppression", "NonZero", "Unique"})


def shapes(node: Node, ins: Inputs) -> Shapes | None:
    """The shape of each output as far as it is known; None where nothing is known about the operator.

    Raises:
        Contradiction: the inputs do not fit each other, or the attributes.
    """
    if node.domain in MICROSOFT:
        rule = _MICROSOFT.get(node.operator) or _STANDARD.get(node.operator)
    else:
        rule = _STANDARD.get(node.operator) if node.domain in STANDARD else None
    if rule is None:
        return None
    needed, function = rule
    if len(ins) < needed or any(item is None for item in ins[:needed]):
        raise Contradiction(f"has {sum(item is not None for item in ins)} inputs and needs {needed}")
    if any(item is not None and item.shape is None for item in ins[:needed]):
        return [None] * len(node.outputs)
    return function(node, ins)


def at(ins: Inputs, index: int) -> Value | None:
    """An optional input."""
    return ins[index] if index < len(ins) else None


def shape_at(ins: Inputs, index: int) -> Shape | None:
    """The shape of an optional input; None where it is absent or unknown."""
    item = ins[index] if index < len(ins) else None
    return None if item is None else item.shape


def numbers(ins: Inputs, index: int) -> list[int] | None:
    """An input's integers; None where it is absent or its values are not known."""
    item = ins[index] if index < len(ins) else None
    if item is None or item.data is None:
        return None
    return [int(value) for value in item.data.reshape(-1)]


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < max(rank, 1):
        raise Contradiction(f"axis {axis} of a tensor with {rank} axes")
    return axis + rank if axis < 0 else axis


def broadcast(shapes_given: Iterable[Shape]) -> Shape:
    """The common shape of operands, as numpy has it."""
    result: Shape = ()
    for shape in shapes_given:
        if shape == result or not shape:
            continue
        if not result:
            result = shape
            continue
        long, short = (result, shape) if len(result) >= len(shape) else (shape, result)
        merged = list(long)
        for index in range(1, len(short) + 1):
            a, b = long[-index], short[-index]
            if a != b:
                if a != 1 and b != 1:
                    raise Contradiction(f"shapes {result} and {shape} do not broadcast")
                merged[-index] = b if a == 1 else a
        result = tuple(merged)
    return result


def _first(node: Node, ins: Inputs) -> Shapes:
    return [_s(ins, 0)] * len(node.outputs)


def _s(ins: Inputs, index: int) -> Shape:
    item = ins[index] if index < len(ins) else None
    if item is None or item.shape is None:
        raise Contradiction(f"input {index} is missing")
    return item.shape


def _known(ins: Inputs, *indices: int) -> list[Shape] | None:
    found = [shape_at(ins, index) for index in indices]
    return None if any(item is None for item in found) else [item for item in found if item is not None]


def _broadcast(node: Node, ins: Inputs) -> Shapes:
    if "axis" in node.attributes and node.integer("broadcast", 0):  # before opset 7
        return [_s(ins, 0)]
    given = [item.shape for item in ins if item is not None]
    if any(item is None for item in given):
        return [None]
    return [broadcast(item for item in given if item is not None)]


def _qlinear_binary(node: Node, ins: Inputs) -> Shapes:
    return [broadcast((_s(ins, 0), _s(ins, 3)))]


def _windows(
    node: Node, source: Shape, kernel: Sequence[int], ceil_mode: bool = False, strides: Sequence[int] | None = None
) -> Shape:
    """Spatial sizes behind a convolution or a pool."""
    axes = len(kernel)
    strides = strides or _per_axis(node, "strides", axes, 1)
    dilations = _per_axis(node, "dilations", axes, 1)
    pads = node.integers("pads") or (0,) * (2 * axes)
    same = node.text("auto_pad", "NOTSET")
    if len(source) != axes + 2 or len(pads) != 2 * axes or min(strides, default=1) < 1 or min(dilations, default=1) < 1:
        raise Contradiction(f"a window {tuple(kernel)} with strides {tuple(strides)} on a tensor of {source}")
    sizes = []
    for axis in range(axes):
        size, stride = source[axis + 2], strides[axis]
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        if same in ("SAME_UPPER", "SAME_LOWER"):
            sizes.append(-(-size // stride))
            continue
        begin, end = (0, 0) if same == "VALID" else (pads[axis], pads[axis + axes])
        room = size + begin + end - reach
        if room < 0:
            raise Contradiction(f"a window of {reach} on {size} elements with padding {begin} and {end}")
        count = -(-room // stride) + 1 if ceil_mode else room // stride + 1
        if ceil_mode and (count - 1) * stride >= size + begin:
            count -= 1  # a window has to begin inside
        sizes.append(count)
    return tuple(sizes)


def _per_axis(node: Node, name: str, axes: int, default: int) -> tuple[int, ...]:
    given = node.integers(name)
    if given is None:
        return (default,) * axes
    if len(given) != axes:
        raise Contradiction(f"attribute {name} has {len(given)} entries for {axes} axes")
    return given


def conv_operands(node: Node) -> tuple[int, int]:
    """Which inputs of a convolution or product are its two operands."""
    return (0, 3) if node.operator in ("QLinearConv", "QLinearMatMul", "QGemm") else (0, 1)


def _conv(node: Node, ins: Inputs) -> Shapes:
    left, right = conv_operands(node)
    source, weight = _s(ins, left), _s(ins, right)
    groups = node.integer("group", 1)
    if len(weight) != len(source) or len(source) < 3 or groups < 1:
        raise Contradiction(f"a convolution of {source} with weights of {weight}")
    if source[1] != weight[1] * groups or weight[0] % groups:
        raise Contradiction(f"a convolution of {source} with weights of {weight} in {groups} groups")
    return [(source[0], weight[0], *_windows(node, source, weight[2:]))]


def _conv_transpose(node: Node, ins: Inputs) -> Shapes:
    source, weight = _s(ins, 0), _s(ins, 1)
    groups = node.integer("group", 1)
    if len(weight) != len(source) or len(source) < 3 or source[1] != weight[0]:
        raise Contradiction(f"a transposed convolution of {source} with weights of {weight}")
    axes = len(source) - 2
    asked = node.integers("output_shape")
    if asked is not None:
        if len(asked) < axes:
            raise Contradiction(f"output_shape {asked} for {axes} axes")
        return [(source[0], weight[1] * groups, *asked[-axes:])]
    strides = _per_axis(node, "strides", axes, 1)
    dilations, extra = _per_axis(node, "dilations", axes, 1), _per_axis(node, "output_padding", axes, 0)
    pads = node.integers("pads") or (0,) * (2 * axes)
    if len(pads) != 2 * axes:
        raise Contradiction(f"attribute pads has {len(pads)} entries for {axes} axes")
    same = node.text("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    sizes = []
    for axis in range(axes):
        size, stride = source[axis + 2], strides[axis]
        reach = dilations[axis] * (weight[axis + 2] - 1) + 1
        full = stride * (size - 1) + extra[axis] + reach - pads[axis] - pads[axis + axes]
        sizes.append(size * stride if same else full)
    return [(source[0], weight[1] * groups, *sizes)]


def _pool(node: Node, ins: Inputs) -> Shapes:
    kernel = node.integers("kernel_shape")
    if kernel is None:
        raise Contradiction("attribute kernel_shape is missing")
    source = _s(ins, 0)
    sizes = _windows(node, source, kernel, bool(node.integer("ceil_mode", 0)))
    return [(*source[:2], *sizes)] * len(node.outputs)


def _global_pool(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    if node.operator.startswith("QLinear") and node.integer("channels_last", 0):
        return [(source[0], *(1 for _ in source[2:]), source[-1])]
    return [(*source[:2], *(1 for _ in source[2:]))]


def _max_unpool(node: Node, ins: Inputs) -> Shapes:
    asked = numbers(ins, 2)
    if asked is not None:
        return [tuple(asked)]
    source, kernel = _s(ins, 0), node.integers("kernel_shape") or ()
    strides = _per_axis(node, "strides", len(kernel), 1)
    pads = node.integers("pads") or (0,) * (2 * len(kernel))
    sizes = [(source[2 + i] - 1) * strides[i] + kernel[i] - pads[i] - pads[i + len(kernel)] for i in range(len(kernel))]
    return [(*source[:2], *sizes)]


def _max_roi_pool(node: Node, ins: Inputs) -> Shapes:
    return [(_s(ins, 1)[0], _s(ins, 0)[1], *(node.integers("pooled_shape") or ()))]


def _roi_align(node: Node, ins: Inputs) -> Shapes:
    size = (node.integer("output_height", 1), node.integer("output_width", 1))
    return [(_s(ins, 1)[0], _s(ins, 0)[1], *size)]


def matmul_shape(left: Shape, right: Shape) -> tuple[Shape, int]:
    """The shape of a matrix product and its depth K."""
    if not left or not right:
        raise Contradiction(f"a product of {left} and {right}")
    a = (1, *left) if len(left) == 1 else left
    b = (*right, 1) if len(right) == 1 else right
    if a[-1] != b[-2]:
        raise Contradiction(f"a product of {left} and {right}")
    result = (*broadcast((a[:-2], b[:-2])), a[-2], b[-1])
    if len(left) == 1:
        result = (*result[:-2], result[-1])
    if len(right) == 1:
        result = result[:-1]
    return result, a[-1]


def _matmul(node: Node, ins: Inputs) -> Shapes:
    left, right = conv_operands(node)
    return [matmul_shape(_s(ins, left), _s(ins, right))[0]]


def flipped(shape: Shape, transposed: int, batch_transposed: int = 0) -> Shape:
    """A product's operand as its attributes say it is read (FusedMatMul, Gemm)."""
    if len(shape) < 2:
        return shape
    if batch_transposed:  # the first axis moves behind the other batch axes
        shape = (*shape[1:-1], shape[0], shape[-1])
    return (*shape[:-2], shape[-1], shape[-2]) if transposed else shape


def product_operands(node: Node, ins: Inputs) -> tuple[Shape, Shape]:
    """Both operands of a matrix product as they are multiplied."""
    left, right = conv_operands(node)
    a = flipped(_s(ins, left), node.integer("transA", 0), node.integer("transBatchA", 0))
    b = flipped(_s(ins, right), node.integer("transB", 0), node.integer("transBatchB", 0))
    return a, b


def _gemm(node: Node, ins: Inputs) -> Shapes:
    a, b = product_operands(node, ins)
    if len(b) != 2 or len(a) < 2:
        raise Contradiction(f"a product of {a} and {b}")
    if len(a) > 2 and a[-1] != b[0]:  # opset 7 and earlier flatten nothing, exporters did
        a = (a[0], prod(a[1:]))
    return [matmul_shape(a, b)[0]]


def _fused_matmul(node: Node, ins: Inputs) -> Shapes:
    return [matmul_shape(*product_operands(node, ins))[0]]


def _matmul_nbits(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    if not source or source[-1] != node.integer("K", -1):
        raise Contradiction(f"K is {node.integer('K', -1)} and the input {source}")
    return [(*source[:-1], node.integer("N", 0))]


def einsum_sizes(node: Node, ins: Inputs) -> tuple[list[str], str, dict[str, int]]:
    """Labels of the operands, labels of the result, sizes of the labels.

    An ellipsis becomes labels of its own, counted from the right, which broadcast.
    """
    equation = node.text("equation", "").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if len(terms) != len(ins):
        raise Contradiction(f"equation {equation!r} with {len(ins)} inputs")
    sizes: dict[str, int] = {}
    expanded: list[str] = []
    widest = 0
    for index, term in enumerate(terms):
        shape = _s(ins, index)
        plain = term.replace("...", "")
        dots = len(shape) - len(plain)
        if dots < 0 or (dots and "..." not in term) or not all(label.isalpha() for label in plain):
            raise Contradiction(f"equation {equation!r} with an operand of {shape}")
        widest = max(widest, dots)
        labels = "".join(chr(0xE000 + dots - 1 - i) for i in range(dots))  # private use: no letter of an equation
        full = term.replace("...", labels)
        for label, size in zip(full, shape, strict=True):
            known = sizes.get(label, 1)
            if size not in (known, 1) and known != 1:
                raise Contradiction(f"equation {equation!r}: {size} and {known} for one index")
            sizes[label] = max(known, size) if size and known else 0
        expanded.append(full)
    ellipsis = "".join(chr(0xE000 + widest - 1 - i) for i in range(widest))
    if arrow:
        result = right.replace("...", ellipsis)
    else:
        every = "".join(terms).replace("...", "")
        result = ellipsis + "".join(sorted(label for label in set(every) if every.count(label) == 1))
    if any(label not in sizes for label in result):
        raise Contradiction(f"equation {equation!r} makes an index out of nothing")
    return expanded, result, sizes


def _einsum(node: Node, ins: Inputs) -> Shapes:
    if any(item is None or item.shape is None for item in ins):
        return [None]
    _, result, sizes = einsum_sizes(node, ins)
    return [tuple(sizes[label] for label in result)]


def _axes(node: Node, ins: Inputs, index: int) -> tuple[int, ...] | None:
    """Axes from the attribute or the input; None where neither is there. Raises _Open where they are not known."""
    given = node.integers("axes")
    if given is not None:
        return given
    if at(ins, index) is None:
        return None
    found = numbers(ins, index)
    if found is None:
        raise _OpenError
    return tuple(found)


class _OpenError(Exception):
    """An argument's value is not known, and with it the shape."""


def _closed(rule: Rule) -> Rule:
    """The rule with unknown arguments turned into an unknown shape."""

    def wrapped(node: Node, ins: Inputs) -> Shapes:
        try:
            return rule(node, ins)
        except _OpenError:
            return [None] * len(node.outputs)

    return wrapped


def _reduce(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    axes = _axes(node, ins, 1)
    if not axes:
        if node.integer("noop_with_empty_axes", 0):
            return [source]
        axes = tuple(range(len(source)))
    return [_without(source, axes, node.integer("keepdims", 1))]


def _arg(node: Node, ins: Inputs) -> Shapes:
    return [_without(_s(ins, 0), (node.integer("axis", 0),), node.integer("keepdims", 1))]


def _without(source: Shape, axes: Sequence[int], keep: int) -> Shape:
    gone = {axis_of(axis, len(source)) for axis in axes}
    if keep:
        return tuple(1 if index in gone else size for index, size in enumerate(source))
    return tuple(size for index, size in enumerate(source) if index not in gone)


def _reshape(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    asked = node.integers("shape")
    target = list(asked) if asked is not None else numbers(ins, 1)
    if target is None:
        return [None]
    if not node.integer("allowzero", 0):
        if any(size == 0 and index >= len(source) for index, size in enumerate(target)):
            raise Contradiction(f"shape {target} copies an axis that {source} does not have")
        target = [source[index] if size == 0 else size for index, size in enumerate(target)]
    open_axes = [index for index, size in enumerate(target) if size == -1]
    if len(open_axes) > 1 or any(size < -1 for size in target):
        raise Contradiction(f"shape {target}")
    elements = prod(source)
    if open_axes:
        rest = prod(size for size in target if size != -1)
        if rest == 0 or elements % rest:
            raise _other_batch(source, target)
        target[open_axes[0]] = elements // rest
    elif prod(target) != elements:
        raise _other_batch(source, target)
    return [tuple(target)]


def _other_batch(source: Shape, target: Sequence[int]) -> Contradiction:
    return Contradiction(f"turns {source} into {tuple(target)}: the model is made for another batch size")


def _flatten(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    axis = node.integer("axis", 1)
    if not -len(source) <= axis <= len(source):
        raise Contradiction(f"axis {axis} of a tensor with {len(source)} axes")
    axis = axis + len(source) if axis < 0 else axis
    return [(prod(source[:axis]), prod(source[axis:]))]


def _squeeze(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    axes = _axes(node, ins, 1)
    if axes is None:
        return [tuple(size for size in source if size != 1)]
    gone = {axis_of(axis, len(source)) for axis in axes}
    if any(source[axis] != 1 for axis in gone):
        raise Contradiction(f"axes {axes} of {source} are not all of size 1")
    return [tuple(size for index, size in enumerate(source) if index not in gone)]


def _unsqueeze(node: Node, ins: Inputs) -> Shapes:
    source = list(_s(ins, 0))
    axes = _axes(node, ins, 1)
    if axes is None:
        raise Contradiction("has no axes")
    rank = len(source) + len(axes)
    for axis in sorted(axis_of(axis, rank) for axis in axes):
        source.insert(axis, 1)
    return [tuple(source)]


def _transpose(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    order = node.integers("perm")
    if order is None:
        return [source[::-1]]
    order = tuple(axis_of(axis, len(source)) for axis in order)
    if sorted(order) != list(range(len(source))):
        raise Contradiction(f"order {order} for a tensor of {source}")
    return [tuple(source[axis] for axis in order)]


def _concat_shapes(given: Sequence[Shape], axis: int) -> Shape:
    first = given[0]
    axis = axis_of(axis, len(first))
    for other in given[1:]:
        if len(other) != len(first) or any(
            a != b for i, (a, b) in enumerate(zip(other, first, strict=True)) if i != axis
        ):
            raise Contradiction(f"shapes {first} and {other} one behind the other on axis {axis}")
    return (*first[:axis], sum(item[axis] for item in given), *first[axis + 1 :])


def _concat(node: Node, ins: Inputs) -> Shapes:
    given = _known(ins, *range(len(ins)))
    return [None] if given is None else [_concat_shapes(given, node.integer("axis", 1))]


def _qlinear_concat(node: Node, ins: Inputs) -> Shapes:
    given = _known(ins, *range(2, len(ins), 3))
    return [None] if not given else [_concat_shapes(given, node.integer("axis", 1))]


def _split(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    axis = axis_of(node.integer("axis", 0), len(source))
    parts = node.integers("split")
    if parts is None:
        if at(ins, 1) is not None:
            given = numbers(ins, 1)
            if given is None:
                return [None] * len(node.outputs)
            parts = tuple(given)
        else:
            count = node.integer("num_outputs", len(node.outputs))
            if count < 1:
                raise Contradiction(f"{count} parts")
            each = -(-source[axis] // count)
            parts = tuple(min(each, max(0, source[axis] - each * i)) for i in range(min(count, len(node.outputs))))
            if count <= len(node.outputs) and sum(parts) != source[axis]:
                raise Contradiction(f"{count} parts of {source[axis]}")
            return [(*source[:axis], part, *source[axis + 1 :]) for part in parts]
    if len(parts) < len(node.outputs) or sum(parts) != source[axis] or min(parts, default=0) < 0:
        raise Contradiction(f"parts {parts} of {source} on axis {axis}")
    return [(*source[:axis], part, *source[axis + 1 :]) for part in parts]


def slice_ranges(node: Node, ins: Inputs, source: Shape) -> list[tuple[int, int, int, int]] | None:
    """(axis, start, stop, step) of a slice as numpy would take them; None where they are not known."""
    starts = node.integers("starts")
    ends, axes, steps = node.integers("ends"), node.integers("axes"), None
    if starts is None or ends is None:
        first, last = numbers(ins, 1), numbers(ins, 2)
        if first is None or last is None:
            return None
        starts, ends = tuple(first), tuple(last)
        for index in (3, 4):
            if at(ins, index) is not None and numbers(ins, index) is None:
                return None
        axes, steps = _maybe(numbers(ins, 3)), _maybe(numbers(ins, 4))
    axes = axes or tuple(range(len(starts)))
    steps = steps or (1,) * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        raise Contradiction(f"starts {starts}, ends {ends}, axes {axes}, steps {steps}")
    found = []
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = axis_of(axis, len(source))
        found.append((place, *slice(start, end, step).indices(source[place])))
    return found


def _maybe(values: list[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)


def _slice(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    ranges = slice_ranges(node, ins, source)
    if ranges is None:
        return [None]
    result = list(source)
    for axis, start, stop, step in ranges:
        result[axis] = len(range(start, stop, step))
    return [tuple(result)]


def _gather(node: Node, ins: Inputs) -> Shapes:
    source, index = _s(ins, 0), _s(ins, 1)
    axis = axis_of(node.integer("axis", 0), len(source))
    return [(*source[:axis], *index, *source[axis + 1 :])]


def _gather_nd(node: Node, ins: Inputs) -> Shapes:
    source, index = _s(ins, 0), _s(ins, 1)
    batch = node.integer("batch_dims", 0)
    if not index or batch + index[-1] > len(source) or not 0 <= batch < len(index):
        raise Contradiction(f"indices of {index} into {source}")
    return [(*index[:-1], *source[batch + index[-1] :])]


def _second(node: Node, ins: Inputs) -> Shapes:
    return [_s(ins, 1)]


def _expand(node: Node, ins: Inputs) -> Shapes:
    target = numbers(ins, 1)
    if target is None:
        return [None]
    if min(target, default=0) < 0:
        raise Contradiction(f"shape {target}")
    return [broadcast((_s(ins, 0), tuple(target)))]


def _tile(node: Node, ins: Inputs) -> Shapes:
    source, times = _s(ins, 0), numbers(ins, 1)
    if times is None:
        return [None]
    if len(times) != len(source) or min(times, default=0) < 0:
        raise Contradiction(f"repeats {times} of {source}")
    return [tuple(size * count for size, count in zip(source, times, strict=True))]


def _pad(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    given = node.integers("pads") or node.integers("paddings") or _maybe(numbers(ins, 1))
    if given is None:
        return [None]
    chosen = numbers(ins, 3)
    if chosen is None and at(ins, 3) is not None:
        return [None]
    axes = list(range(len(source))) if chosen is None else [axis_of(axis, len(source)) for axis in chosen]
    if len(given) != 2 * len(axes):
        raise Contradiction(f"{len(given)} pads for {len(axes)} axes")
    result = list(source)
    for index, axis in enumerate(axes):
        result[axis] += given[index] + given[index + len(axes)]
    if min(result, default=0) < 0:
        raise Contradiction(f"pads {given} of {source}")
    return [tuple(result)]


def _resize(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    sizes, scales = at(ins, 3), at(ins, 2)
    if node.operator == "Upsample" or len(ins) == 2:
        sizes, scales = None, at(ins, 1)
    attribute = node.floats("scales")
    axes = node.integers("axes") or tuple(range(len(source)))
    axes = tuple(axis_of(axis, len(source)) for axis in axes)
    result = list(source)
    if sizes is not None and sizes.shape != (0,):
        if sizes.data is None:
            return [None]
        asked = [int(size) for size in sizes.data.reshape(-1)]
        if len(asked) != len(axes):
            raise Contradiction(f"sizes {asked} for {len(axes)} axes")
        policy = node.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch" and all(source[axis] for axis in axes):
            ratios = [size / source[axis] for size, axis in zip(asked, axes, strict=True)]
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            asked = [floor(source[axis] * ratio + 0.5) for axis in axes]
        for axis, size in zip(axes, asked, strict=True):
            result[axis] = size
        return [tuple(result)]
    if attribute is None:
        if scales is None or scales.data is None:
            return [None]
        attribute = tuple(float(item) for item in scales.data.reshape(-1))
    if len(attribute) != len(axes):
        raise Contradiction(f"scales {attribute} for {len(axes)} axes")
    for axis, scale in zip(axes, attribute, strict=True):
        # float32 scales such as 2.2 lie a little beside their value.
        result[axis] = floor(source[axis] * scale + 1e-5 * min(1.0, scale))
    return [tuple(result)]


def _grid_sample(node: Node, ins: Inputs) -> Shapes:
    return [(*_s(ins, 0)[:2], *_s(ins, 1)[1:-1])]


def _affine_grid(node: Node, ins: Inputs) -> Shapes:
    size = numbers(ins, 1)
    return [None] if size is None else [(size[0], *size[2:], len(size) - 2)]


def _one_hot(node: Node, ins: Inputs) -> Shapes:
    index, depth = _s(ins, 0), numbers(ins, 1)
    if not depth:
        return [None]
    axis = node.integer("axis", -1)
    place = axis_of(axis, len(index) + 1)
    return [(*index[:place], depth[0], *index[place:])]


def _top_k(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    axis = axis_of(node.integer("axis", -1), len(source))
    given = numbers(ins, 1)
    count = node.integer("k", given[0] if given else -1)
    if count < 0:
        return [None, None]
    if count > source[axis]:
        raise Contradiction(f"the largest {count} of {source[axis]}")
    return [(*source[:axis], count, *source[axis + 1 :])] * 2


def _shape(node: Node, ins: Inputs) -> Shapes:
    rank = len(_s(ins, 0))
    return [(len(range(*slice(node.integer("start", 0), node.integer("end", rank)).indices(rank))),)]


def _scalar(node: Node, ins: Inputs) -> Shapes:
    return [()] * len(node.outputs)


def _constant_of_shape(node: Node, ins: Inputs) -> Shapes:
    target = numbers(ins, 0)
    if target is None:
        return [None]
    if min(target, default=0) < 0:
        raise Contradiction(f"shape {target}")
    return [tuple(target)]


def _range(node: Node, ins: Inputs) -> Shapes:
    given = [item.data for item in ins[:3] if item is not None and item.data is not None and item.data.size == 1]
    if len(given) != 3:
        return [None]
    start, limit, delta = (item.reshape(()).item() for item in given)
    if delta == 0 or not all(abs(item) < 1e300 for item in (start, limit, delta)):
        raise Contradiction(f"a range from {start} to {limit} by {delta}")
    return [(max(0, ceil((limit - start) / delta)),)]


def _non_zero(node: Node, ins: Inputs) -> Shapes:
    source = ins[0]
    assert source is not None
    shape = _s(ins, 0)
    count = prod(shape) if source.data is None else int((source.data != 0).sum())
    return [(len(shape), count)]


def _compress(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    chosen = numbers(ins, 1)
    if "axis" not in node.attributes:
        size = prod(source) if chosen is None else sum(map(bool, chosen))
        return [(size,)]
    axis = axis_of(node.integer("axis", 0), len(source))
    size = source[axis] if chosen is None else sum(map(bool, chosen))
    return [(*source[:axis], size, *source[axis + 1 :])]


def _unique(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    if "axis" not in node.attributes:
        size = prod(source)
        return [(size,)] * len(node.outputs)
    axis = axis_of(node.integer("axis", 0), len(source))
    return [source, *([(source[axis],)] * (len(node.outputs) - 1))]


def _nms(node: Node, ins: Inputs) -> Shapes:
    boxes, scores = _s(ins, 0), _s(ins, 1)
    if len(boxes) != 3 or len(scores) != 3:
        raise Contradiction(f"boxes of {boxes} and scores of {scores}")
    most = numbers(ins, 2)
    per_class = min(most[0], boxes[1]) if most else (boxes[1] if at(ins, 2) is not None else 0)
    return [(scores[0] * scores[1] * max(per_class, 0), 3)]


def _recurrent(node: Node, ins: Inputs) -> Shapes:
    source, weight, state = _s(ins, 0), _s(ins, 1), _s(ins, 2)
    if len(source) != 3 or len(weight) != 3 or len(state) != 3 or source[2] != weight[2]:
        raise Contradiction(f"a recurrent layer on {source} with weights of {weight} and {state}")
    directions, hidden = weight[0], state[2]
    if node.integer("layout", 0):
        rows, steps = source[:2]
        return [(rows, steps, directions, hidden), *[(rows, directions, hidden)] * 2][: len(node.outputs)]
    steps, rows = source[:2]
    return [(steps, directions, rows, hidden), *[(directions, rows, hidden)] * 2][: len(node.outputs)]


def _stft(node: Node, ins: Inputs) -> Shapes:
    signal, step = _s(ins, 0), numbers(ins, 1)
    length = stft_length(ins)
    if not step or length is None or step[0] < 1 or length < 1 or len(signal) < 2 or signal[1] < length:
        return [None]
    frames = (signal[1] - length) // step[0] + 1
    return [(signal[0], frames, length // 2 + 1 if node.integer("onesided", 1) else length, 2)]


def stft_length(ins: Inputs) -> int | None:
    """Points of one transform: the frame length, or the window's."""
    given = numbers(ins, 3)
    if given:
        return given[0]
    window = shape_at(ins, 2)
    return window[0] if window else None


def dft_axis(node: Node, ins: Inputs) -> int | None:
    """The transformed axis: an attribute up to opset 19, an input from 20 whose default is the last but one."""
    source = _s(ins, 0)
    if "axis" in node.attributes:
        return axis_of(node.integer("axis", 1), len(source))
    if at(ins, 2) is not None:
        given = numbers(ins, 2)
        return axis_of(given[0], len(source)) if given else None
    return 1 if len(source) == 3 else axis_of(-2, len(source))


def _dft(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    if len(source) < 2:
        raise Contradiction(f"a transform of {source}")
    axis = dft_axis(node, ins)
    asked = numbers(ins, 1)
    if axis is None or (asked is None and at(ins, 1) is not None):
        return [None]
    onesided, inverse = node.integer("onesided", 0), node.integer("inverse", 0)
    length = asked[0] if asked else (source[axis] - 1) * 2 if onesided and inverse else source[axis]
    result = list(source)
    result[axis] = length // 2 + 1 if onesided and not inverse else length
    result[-1] = 1 if onesided and inverse else 2
    return [tuple(result)]


def attention_sizes(node: Node, ins: Inputs) -> tuple[int, int, int, int, int, int, int] | None:
    """Batch, query heads, key heads, queries, keys (past ones included), head size, value size.

    Returns:
        None where a shape is missing.
    """
    given = _known(ins, 0, 1, 2)
    if given is None:
        return None
    query, key, value = given
    if len(query) == 4 and len(key) == 4 and len(value) == 4:
        batch, heads, queries, size = query
        kv_heads, keys, value_size = key[1], key[2], value[3]
    elif len(query) == 3 and len(key) == 3 and len(value) == 3:
        heads = node.integer("q_num_heads", node.integer("num_heads", 0))
        kv_heads = node.integer("kv_num_heads", heads)
        if heads < 1 or kv_heads < 1 or query[2] % heads or value[2] % kv_heads:
            raise Contradiction(f"{heads} and {kv_heads} heads of {query} and {value}")
        batch, queries, size = query[0], query[1], query[2] // heads
        keys, value_size = key[1], value[2] // kv_heads
    else:
        raise Contradiction(f"attention of {query}, {key} and {value}")
    past = shape_at(ins, 4)
    if past is not None and len(past) == 4:
        keys += past[2]
    return batch, heads, kv_heads, queries, keys, size, value_size


def _attention(node: Node, ins: Inputs) -> Shapes:
    sizes = attention_sizes(node, ins)
    if sizes is None:
        return [None] * len(node.outputs)
    batch, heads, kv_heads, queries, keys, size, value_size = sizes
    out = (batch, heads, queries, value_size) if len(_s(ins, 0)) == 4 else (batch, queries, heads * value_size)
    past = ((batch, kv_heads, keys, size), (batch, kv_heads, keys, value_size))
    return [out, *past, (batch, heads, queries, keys)][: len(node.outputs)]


def _ms_attention(node: Node, ins: Inputs) -> Shapes:
    source, weight = _s(ins, 0), _s(ins, 1)
    heads = node.integer("num_heads", 0)
    if len(source) != 3 or len(weight) != 2 or heads < 1 or source[2] != weight[0]:
        raise Contradiction(f"attention of {source} with weights of {weight} and {heads} heads")
    split = node.integers("qkv_hidden_sizes") or (weight[1] // 3,) * 3
    past = shape_at(ins, 4)
    keys = source[1] + (past[3] if past is not None and len(past) == 5 else 0)
    return [(*source[:2], split[2]), (2, source[0], heads, keys, split[0] // heads)][: len(node.outputs)]


def ms_multi_head_sizes(node: Node, ins: Inputs) -> tuple[int, int, int, int, int, int] | None:
    """Batch, heads, queries, keys, head size, value size of com.microsoft's MultiHeadAttention and relatives."""
    query, key, value = _s(ins, 0), shape_at(ins, 1), shape_at(ins, 2)
    heads = node.integer("num_heads", 0)
    if heads < 1 or len(query) not in (3, 5):
        raise Contradiction(f"attention of {query} with {heads} heads")
    if len(query) == 5:  # packed: (batch, sequence, heads, 3, head size)
        return query[0], heads, query[1], query[1], query[4], query[4]
    if node.operator == "GroupQueryAttention":
        kv_heads = node.integer("kv_num_heads", heads)
        packed = key is None
        size = query[2] // (heads + 2 * kv_heads) if packed else query[2] // heads
        past = shape_at(ins, 3)
        keys = query[1] if key is None else key[1]
        keys += past[2] if past is not None and len(past) == 4 else 0
        return query[0], heads, query[1], keys, size, size
    size = query[2] // heads
    if key is None:
        return None
    if len(key) == 5:  # packed keys and values: (batch, sequence, heads, 2, head size)
        return query[0], heads, query[1], key[1], size, key[4]
    keys = key[2] if len(key) == 4 else key[1]
    if value is None:
        return query[0], heads, query[1], keys, size, size
    past = shape_at(ins, 6)
    keys += past[2] if past is not None and len(past) == 4 else 0
    return query[0], heads, query[1], keys, size, value[3] if len(value) == 4 else value[2] // heads


def _ms_multi_head(node: Node, ins: Inputs) -> Shapes:
    sizes = ms_multi_head_sizes(node, ins)
    if sizes is None:
        return [None] * len(node.outputs)
    batch, heads, queries, keys, size, value_size = sizes
    kv_heads = node.integer("kv_num_heads", heads)
    past = ((batch, kv_heads, keys, size), (batch, kv_heads, keys, value_size))
    return [(batch, queries, heads * value_size), *past][: len(node.outputs)]


def _layer_norm(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    axis = axis_of(node.integer("axis", -1), len(source))
    statistics = (*source[:axis], *(1 for _ in source[axis:]))
    return [source, *[statistics] * 2][: len(node.outputs)]


def _skip_norm(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    statistics = (*source[:-1], 1)
    return [source, statistics, statistics, source][: len(node.outputs)]


def _batch_norm(node: Node, ins: Inputs) -> Shapes:
    source = _s(ins, 0)
    channels = (source[1],) if len(source) > 1 else (1,)
    return [source, *[channels] * (len(node.outputs) - 1)]


def _depth_to_space(node: Node, ins: Inputs) -> Shapes:
    n, c, h, w = _four(_s(ins, 0))
    block = node.integer("blocksize", 0)
    if block < 1 or c % (block * block):
        raise Contradiction(f"blocks of {block} of {c} channels")
    return [(n, c // block**2, h * block, w * block)]


def _space_to_depth(node: Node, ins: Inputs) -> Shapes:
    n, c, h, w = _four(_s(ins, 0))
    block = node.integer("blocksize", 0)
    if block < 1 or h % block or w % block:
        raise Contradiction(f"blocks of {block} of {h} x {w}")
    return [(n, c * block**2, h // block, w // block)]


def _four(shape: Shape) -> tuple[int, int, int, int]:
    if len(shape) != 4:
        raise Contradiction(f"a tensor of {shape} where four axes are needed")
    return shape[0], shape[1], shape[2], shape[3]


def _col2im(node: Node, ins: Inputs) -> Shapes:
    source, image, block = _s(ins, 0), numbers(ins, 1), numbers(ins, 2)
    if image is None or not block or len(source) != 3:
        return [None]
    return [(source[0], source[1] // max(prod(block), 1), *image)]


def _center_crop_pad(node: Node, ins: Inputs) -> Shapes:
    source, target = _s(ins, 0), numbers(ins, 1)
    if target is None:
        return [None]
    axes = node.integers("axes") or tuple(range(len(source)))
    if len(axes) != len(target):
        raise Contradiction(f"shape {target} for axes {axes}")
    result = list(source)
    for axis, size in zip(axes, target, strict=True):
        result[axis_of(axis, len(source))] = size
    return [tuple(result)]


def _det(node: Node, ins: Inputs) -> Shapes:
    return [_s(ins, 0)[:-2]]


def _random(node: Node, ins: Inputs) -> Shapes:
    return [node.integers("shape")]


def _multinomial(node: Node, ins: Inputs) -> Shapes:
    return [(_s(ins, 0)[0], node.integer("sample_size", 1))]


def _window(node: Node, ins: Inputs) -> Shapes:
    size = numbers(ins, 0)
    return [(size[0],)] if size else [None]


def _mel(node: Node, ins: Inputs) -> Shapes:
    bins, length = numbers(ins, 0), numbers(ins, 1)
    return [(length[0] // 2 + 1, bins[0])] if bins and length else [None]


def _loss(node: Node, ins: Inputs) -> Shapes:
    out = _s(ins, 1) if node.text("reduction", "mean") == "none" else ()
    return [out, _s(ins, 0)][: len(node.outputs)]


def _dynamic_quantize(node: Node, ins: Inputs) -> Shapes:
    return [_s(ins, 0), (), ()]


def _linear_attention(node: Node, ins: Inputs) -> Shapes:
    query, key, value = _s(ins, 0), _s(ins, 1), _s(ins, 2)
    heads, kv_heads = node.integer("q_num_heads", 1), node.integer("kv_num_heads", 1)
    if heads < 1 or kv_heads < 1:
        raise Contradiction(f"{heads} and {kv_heads} heads")
    per_key, per_value = key[2] // kv_heads, value[2] // kv_heads
    state = (query[0], kv_heads, per_key, per_value)
    return [(query[0], query[1], heads * per_value), state][: len(node.outputs)]


def _causal_conv(node: Node, ins: Inputs) -> Shapes:
    source, weight = _s(ins, 0), _s(ins, 1)
    if len(source) != 3 or len(weight) != 3 or source[1] != weight[0]:
        raise Contradiction(f"a causal convolution of {source} with weights of {weight}")
    return [source, (*source[:2], weight[2] - 1)][: len(node.outputs)]


def _embed_norm(node: Node, ins: Inputs) -> Shapes:
    ids, table = _s(ins, 0), shape_at(ins, 2)
    return [None] * len(node.outputs) if not table else [(*ids, table[-1]), ids[:1], (*ids, table[-1])]


_FIRST = """BatchNormalization BitCast Bernoulli Cast CastLike Clip CumProd CumSum DequantizeLinear Dropout EyeLike
    GroupNormalization Hardmax Identity InstanceNormalization IsInf IsNaN LRN LogSoftmax LpNormalization
    MeanVarianceNormalization PRelu QuantizeLinear RandomNormalLike RandomUniformLike ReverseSequence
    RMSNormalization RotaryEmbedding Scatter ScatterElements ScatterND Softmax TensorScatter Trilu"""
_VARIADIC = "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max \
    Mean Min Mod Mul Or Pow Sub Sum SwiGLU Where Xor"
_REDUCE = "L1 L2 LogSum LogSumExp Max Mean Min Prod Sum SumSquare"

_STANDARD: Mapping[str, tuple[int, Rule]] = {
    **{name: (1, _first) for name in POINTWISE},
    **{name: (1, _first) for name in _FIRST.split()},
    **{name: (1, _broadcast) for name in _VARIADIC.split()},
    **{f"Reduce{name}": (1, _closed(_reduce)) for name in _REDUCE.split()},
    "AffineGrid": (2, _affine_grid),
    "ArgMax": (1, _arg),
    "ArgMin": (1, _arg),
    "Attention": (3, _attention),
    "AveragePool": (1, _pool),
    "BatchNormalization": (1, _batch_norm),
    "BlackmanWindow": (1, _window),
    "CausalConvWithState": (2, _causal_conv),
    "CenterCropPad": (2, _center_crop_pad),
    "Col2Im": (3, _col2im),
    "Compress": (2, _compress),
    "Concat": (1, _concat),
    "ConstantOfShape": (1, _constant_of_shape),
    "Conv": (2, _conv),
    "ConvInteger": (2, _conv),
    "ConvTranspose": (2, _conv_transpose),
    "DFT": (1, _dft),
    "DeformConv": (3, _conv),
    "DepthToSpace": (1, _depth_to_space),
    "Det": (1, _det),
    "DynamicQuantizeLinear": (1, _dynamic_quantize),
    "Einsum": (1, _einsum),
    "Expand": (2, _expand),
    "Flatten": (1, _flatten),
    "GRU": (3, _recurrent),
    "Gather": (2, _gather),
    "GatherElements": (2, _second),
    "GatherND": (2, _gather_nd),
    "Gemm": (2, _gemm),
    "GlobalAveragePool": (1, _global_pool),
    "GlobalLpPool": (1, _global_pool),
    "GlobalMaxPool": (1, _global_pool),
    "GridSample": (2, _grid_sample),
    "HammingWindow": (1, _window),
    "HannWindow": (1, _window),
    "LSTM": (3, _recurrent),
    "LayerNormalization": (1, _layer_norm),
    "LinearAttention": (3, _linear_attention),
    "LpPool": (1, _pool),
    "MatMul": (2, _matmul),
    "MatMulInteger": (2, _matmul),
    "MaxPool": (1, _pool),
    "MaxRoiPool": (2, _max_roi_pool),
    "MaxUnpool": (2, _max_unpool),
    "MelWeightMatrix": (5, _mel),
    "Multinomial": (1, _multinomial),
    "NegativeLogLikelihoodLoss": (2, _loss),
    "NonMaxSuppression": (2, _nms),
    "NonZero": (1, _non_zero),
    "OneHot": (3, _one_hot),
    "Pad": (1, _pad),
    "QLinearConv": (8, _conv),
    "QLinearMatMul": (8, _matmul),
    "RNN": (3, _recurrent),
    "RandomNormal": (0, _random),
    "RandomUniform": (0, _random),
    "Range": (3, _range),
    "Reshape": (1, _reshape),
    "Resize": (1, _resize),
    "RoiAlign": (3, _roi_align),
    "STFT": (2, _stft),
    "Shape": (1, _shape),
    "Size": (1, _scalar),
    "Slice": (1, _slice),
    "SoftmaxCrossEntropyLoss": (2, _loss),
    "SpaceToDepth": (1, _space_to_depth),
    "Split": (1, _split),
    "Squeeze": (1, _closed(_squeeze)),
    "Tile": (2, _tile),
    "TopK": (1, _top_k),
    "Transpose": (1, _transpose),
    "Unique": (1, _unique),
    "Unsqueeze": (1, _closed(_unsqueeze)),
    "Upsample": (1, _resize),
}

_MICROSOFT: Mapping[str, tuple[int, Rule]] = {
    "Attention": (2, _ms_attention),
    "BiasAdd": (3, _first),
    "BiasGelu": (1, _first),
    "DecoderMaskedMultiHeadAttention": (1, _ms_multi_head),
    "DynamicQuantizeMatMul": (2, _matmul),
    "EmbedLayerNormalization": (1, _embed_norm),
    "FastGelu": (1, _first),
    "FusedConv": (2, _conv),
    "FusedGemm": (2, _gemm),
    "FusedMatMul": (2, _fused_matmul),
    "FusedMatMulActivation": (2, _fused_matmul),
    "GemmFastGelu": (2, _matmul),
    "GroupNorm": (1, _first),
    "GroupQueryAttention": (1, _ms_multi_head),
    "MatMulBnb4": (2, _matmul_nbits),
    "MatMulIntegerToFloat": (2, _matmul),
    "MatMulNBits": (2, _matmul_nbits),
    "MultiHeadAttention": (1, _ms_multi_head),
    "QAttention": (2, _ms_attention),
    "QGemm": (6, _gemm),
    "QLinearAdd": (4, _qlinear_binary),
    "QLinearAveragePool": (1, _pool),
    "QLinearConcat": (3, _qlinear_concat),
    "QLinearGlobalAveragePool": (1, _global_pool),
    "QLinearLeakyRelu": (1, _first),
    "QLinearMul": (4, _qlinear_binary),
    "QLinearReduceMean": (1, _closed(_reduce)),
    "QLinearSigmoid": (1, _first),
    "QLinearSoftmax": (1, _first),
    "QuickGelu": (1, _first),
    "SimplifiedLayerNormalization": (1, _layer_norm),
    "SkipLayerNormalization": (2, _skip_norm),
    "SkipSimplifiedLayerNormalization": (2, _skip_norm),
}


def dtype(node: Node, ins: Inputs, index: int) -> str | None:
    """The number type of an output; None takes the first input's."""
    fixed = _FIXED.get(node.operator)
    if fixed is not None:
        return fixed
    chosen = _CHOSEN.get(node.operator)
    if chosen is not None:
        return chosen(node, ins, index)
    return None


def _input_dtype(place: int) -> Callable[[Node, Inputs, int], str | None]:
    def chosen(node: Node, ins: Inputs, index: int) -> str | None:
        item = at(ins, place)
        return None if item is None else item.dtype

    return chosen


def _attribute_dtype(name: str, default: int) -> Callable[[Node, Inputs, int], str | None]:
    def chosen(node: Node, ins: Inputs, index: int) -> str | None:
        from profiles.onnx_nodes import dtype_of

        number = node.integer(name, default)
        return dtype_of(number) if number else None

    return chosen


def _quantized_dtype(node: Node, ins: Inputs, index: int) -> str | None:
    from profiles.onnx_nodes import dtype_of

    number = node.integer("output_dtype", 0)
    zero = at(ins, 2)
    return dtype_of(number) if number else "uint8" if zero is None else zero.dtype


def _second_is_index(node: Node, ins: Inputs, index: int) -> str | None:
    return "int64" if index else None


def _second_is_mask(node: Node, ins: Inputs, index: int) -> str | None:
    return "bool" if index else None


def _filled_dtype(node: Node, ins: Inputs, index: int) -> str | None:
    from profiles.onnx_nodes import dtype_of

    value = node.tensor("value")
    return "float32" if value is None else dtype_of(value.data_type)


def _dynamic_dtype(node: Node, ins: Inputs, index: int) -> str | None:
    return "float32" if index == 1 else "uint8"


_FIXED: Mapping[str, str] = {
    **dict.fromkeys(operators("And Equal Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Not Or Xor"), "bool"),
    **dict.fromkeys(operators("ArgMax ArgMin NonMaxSuppression NonZero Shape Size"), "int64"),
    **dict.fromkeys(("ConvInteger", "MatMulInteger"), "int32"),
    **dict.fromkeys(("MatMulIntegerToFloat", "EmbedLayerNormalization"), "float32"),
}
_Chosen = Callable[[Node, Inputs, int], "str | None"]
_CHOSEN: Mapping[str, _Chosen] = {
    "BitCast": _attribute_dtype("to", 1),
    "Bernoulli": _attribute_dtype("dtype", 0),
    "BlackmanWindow": _attribute_dtype("output_datatype", 1),
    "Cast": _attribute_dtype("to", 1),
    "CastLike": _input_dtype(1),
    "ConstantOfShape": _filled_dtype,
    "DequantizeLinear": _input_dtype(1),
    "Dropout": _second_is_mask,
    "DynamicQuantizeLinear": _dynamic_dtype,
    "EyeLike": _attribute_dtype("dtype", 0),
    "HammingWindow": _attribute_dtype("output_datatype", 1),
    "HannWindow": _attribute_dtype("output_datatype", 1),
    "MaxPool": _second_is_index,
    "MelWeightMatrix": _attribute_dtype("output_datatype", 1),
    "Multinomial": _attribute_dtype("dtype", 6),
    "OneHot": _input_dtype(2),
    "QGemm": _input_dtype(8),
    "QLinearConcat": _input_dtype(1),
    "QLinearConv": _input_dtype(7),
    "QLinearMatMul": _input_dtype(7),
    "QuantizeLinear": _quantized_dtype,
    "RandomNormal": _attribute_dtype("dtype", 1),
    "RandomNormalLike": _attribute_dtype("dtype", 0),
    "RandomUniform": _attribute_dtype("dtype", 1),
    "RandomUniformLike": _attribute_dtype("dtype", 0),
    "TopK": _second_is_index,
    "Unique": _second_is_index,
    "Where": _input_dtype(1),
}
