"""The numbers in short tensors that shapes are made of: what an exporter writes to compute a shape is computed here.

Only tensors of at most `FEW` elements are followed, so a damaged file cannot ask for memory. Arithmetic is int64's, as
in a runtime: it wraps, and division by zero gives zero.
"""

from collections.abc import Callable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from profiles.onnx_nodes import FEW, STANDARD, Node, Shape, Value
from profiles.onnx_shapes import Inputs, at, axis_of, numbers, slice_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from onnx import TensorProto

    Numbers = NDArray[Any]
    Rule = Callable[[Node, list[Numbers], Inputs, Shape], "Numbers | list[Numbers] | None"]

_NUMPY: Mapping[str, str] = {
    "bool": "?", "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1", "uint64": "u8", "uint32": "u4",
    "uint16": "u2", "uint8": "u1", "float64": "f8", "float32": "f4", "float16": "f2",
}  # fmt: skip


def stored(tensor: "TensorProto", dtype: str) -> "Numbers | None":
    """The numbers of a short stored tensor; None where it is long, external, or of a type without arithmetic here."""
    import numpy as np

    code = _NUMPY.get(dtype)
    elements = prod(tensor.dims)
    if code is None or elements > FEW or tensor.data_location == 1:
        return None
    found: NDArray[Any]
    if tensor.raw_data:
        found = np.frombuffer(tensor.raw_data, "<" + code)
    elif dtype == "int64":
        found = np.array(tensor.int64_data, np.int64)
    elif dtype in ("uint32", "uint64"):
        found = np.array(tensor.uint64_data, np.uint64)
    elif dtype == "float32":
        found = np.array(tensor.float_data, np.float32)
    elif dtype == "float64":
        found = np.array(tensor.double_data, np.float64)
    elif dtype == "float16":
        found = np.array(tensor.int32_data, np.uint16).view(np.float16)
    else:
        found = np.array(tensor.int32_data, np.int64).astype(code)
    return found.reshape(tuple(tensor.dims)) if found.size == elements else None


def constant(node: Node) -> "Numbers | None":
    """The value of a Constant operator that is not given as a tensor."""
    import numpy as np

    for name, item in node.attributes.items():
        if name == "value_int":
            return np.array(item.i, np.int64)
        if name == "value_float":
            return np.array(item.f, np.float32)
        if name == "value_ints":
            return np.array(item.ints, np.int64)
        if name == "value_floats":
            return np.array(item.floats, np.float32)
    return None


def evaluate(node: Node, ins: Inputs, made: "list[Value]") -> None:
    """Fill in the numbers of an operator's results where they are few and follow from known ones."""
    import numpy as np

    first = made[0]
    if first.shape is None or prod(first.shape) > FEW or node.domain not in STANDARD:
        return
    if node.operator == "Shape":
        source = ins[0]
        if source is not None and source.shape is not None:
            rank = len(source.shape)
            asked = slice(node.integer("start", 0), node.integer("end", rank))
            first.data = np.array(source.shape[asked], np.int64)
        return
    if node.operator == "Size":
        source = ins[0]
        if source is not None and source.shape is not None:
            first.data = np.array(prod(source.shape), np.int64)
        return
    rule = _RULES.get(node.operator)
    if rule is None:
        return
    given = []
    for item in ins:
        if item is not None:
            if item.data is None:
                return
            given.append(item.data)
    with np.errstate(all="ignore"):
        result = rule(node, given, ins, first.shape)
    if result is None:
        return
    for value, data in zip(made, result if isinstance(result, list) else [result], strict=False):
        if value.shape is not None and data.shape == value.shape:
            code = _NUMPY.get(value.dtype)
            value.data = data.astype(code) if code is not None and data.dtype != np.dtype(code) else data


def _binary(name: str) -> "Rule":
    def rule(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
        import numpy as np

        function: Callable[[Any, Any], Any] = getattr(np, name)
        result = given[0]
        for other in given[1:]:
            result = np.asarray(function(result, other))
        return result

    return rule


def _unary(name: str) -> "Rule":
    def rule(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
        import numpy as np

        function: Callable[[Any], Any] = getattr(np, name)
        return np.asarray(function(given[0]))

    return rule


def _relu(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    return np.maximum(given[0], 0)


def _divide(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    left, right = given[:2]
    if left.dtype.kind == "f":
        return np.asarray(left / right)
    safe = np.where(right == 0, 1, right)
    # Integer division cuts towards zero.
    quotient = np.abs(left) // np.abs(safe) * np.sign(left) * np.sign(safe)
    return np.asarray(np.where(right == 0, 0, quotient))


def _modulo(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    left, right = given[:2]
    function = np.fmod if node.integer("fmod", 0) else np.mod
    return np.asarray(function(left, right))


def _power(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    result = np.power(given[0].astype(np.float64), given[1].astype(np.float64))
    finite = np.where(np.isfinite(result) & (np.abs(result) < 2.0**62), result, 0)
    return np.asarray(finite).astype(given[0].dtype)


def _cast(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    data = given[0]
    return np.nan_to_num(data, nan=0.0, posinf=0.0, neginf=0.0) if data.dtype.kind == "f" else data


def _same(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    return given[0]


def _reshaped(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    return given[0].reshape(shape)


def _gather(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers | None":
    import numpy as np

    source, index = given[:2]
    axis = axis_of(node.integer("axis", 0), source.ndim)
    size = source.shape[axis]
    if index.dtype.kind not in "iu" or (index.size and not -size <= int(index.min()) <= int(index.max()) < size):
        return None
    return np.asarray(np.take(source, index, axis))


def _concat(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    return np.concatenate(given, axis_of(node.integer("axis", 1), given[0].ndim))


def _slice(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers | None":
    ranges = slice_ranges(node, ins, given[0].shape)
    if ranges is None:
        return None
    index = [slice(None)] * given[0].ndim
    for axis, start, stop, step in ranges:
        index[axis] = slice(start, None if stop < 0 else stop, step)
    return given[0][tuple(index)]


def _split(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "list[Numbers] | None":
    axis = axis_of(node.integer("axis", 0), given[0].ndim)
    parts = node.integers("split") or (numbers(ins, 1) if at(ins, 1) is not None else None)
    if parts is None:
        count = max(node.integer("num_outputs", len(node.outputs)), 1)
        each = -(-given[0].shape[axis] // count)
        parts = [each] * count
    index: list[slice] = [slice(None)] * given[0].ndim
    result, begin = [], 0
    for part in parts[: len(node.outputs)]:
        index[axis] = slice(begin, begin + part)
        result.append(given[0][tuple(index)])
        begin += part
    return result


def _where(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    return np.where(given[0], given[1], given[2])


def _range(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    start, delta = given[0].reshape(()), given[2].reshape(())
    return np.asarray(start + np.arange(shape[0], dtype=given[0].dtype) * delta)


def _filled(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers | None":
    import numpy as np

    from profiles.onnx_nodes import dtype_of

    value = node.tensor("value")
    if value is None:
        return np.zeros(shape, np.float32)
    data = stored(value, dtype_of(value.data_type)) if all(dim >= 0 for dim in value.dims) else None
    return None if data is None or data.size != 1 else np.full(shape, data.reshape(()))


def _expanded(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    return np.broadcast_to(given[0], shape)


def _tile(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    return np.tile(given[0], tuple(given[1].tolist()))


def _transpose(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    return given[0].transpose(node.integers("perm"))


def _reduce(name: str) -> "Rule":
    def rule(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers | None":
        import numpy as np

        axes = node.integers("axes") or (numbers(ins, 1) if at(ins, 1) is not None else None)
        if not given[0].size and name in ("min", "max"):
            return None
        if not axes and node.integer("noop_with_empty_axes", 0):
            return given[0]
        function: Callable[..., Any] = getattr(np, name)
        chosen = tuple(axis_of(axis, given[0].ndim) for axis in axes) if axes else None
        return np.asarray(function(given[0], axis=chosen, keepdims=bool(node.integer("keepdims", 1))))

    return rule


def _cumulated(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers | None":
    import numpy as np

    if node.integer("exclusive", 0) or node.integer("reverse", 0) or len(given) < 2 or given[1].size != 1:
        return None
    return np.cumsum(given[0], axis_of(int(given[1].reshape(())), given[0].ndim))


def _non_zero(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers":
    import numpy as np

    return np.asarray(np.nonzero(given[0]), np.int64).reshape(shape)


def _scatter(node: Node, given: "list[Numbers]", ins: Inputs, shape: Shape) -> "Numbers | None":
    if node.text("reduction", "none") != "none" or given[0].ndim != 1 or len(given) != 3:
        return None
    index = given[1].reshape(-1)
    updates = given[2].reshape(-1)
    size = given[0].shape[0]
    if index.size != updates.size or (index.size and not -size <= index.min() <= index.max() < size):
        return None
    result = given[0].copy()
    result[index] = updates
    return result


_RULES: "Mapping[str, Rule]" = {
    "Abs": _unary("abs"),
    "Add": _binary("add"),
    "And": _binary("logical_and"),
    "Cast": _cast,
    "CastLike": _cast,
    "Ceil": _unary("ceil"),
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "CumSum": _cumulated,
    "Div": _divide,
    "Equal": _binary("equal"),
    "Expand": _expanded,
    "Flatten": _reshaped,
    "Floor": _unary("floor"),
    "Gather": _gather,
    "Greater": _binary("greater"),
    "GreaterOrEqual": _binary("greater_equal"),
    "Identity": _same,
    "Less": _binary("less"),
    "LessOrEqual": _binary("less_equal"),
    "Max": _binary("maximum"),
    "Min": _binary("minimum"),
    "Mod": _modulo,
    "Mul": _binary("multiply"),
    "Neg": _unary("negative"),
    "NonZero": _non_zero,
    "Not": _unary("logical_not"),
    "Or": _binary("logical_or"),
    "Pow": _power,
    "Range": _range,
    "ReduceMax": _reduce("max"),
    "ReduceMin": _reduce("min"),
    "ReduceProd": _reduce("prod"),
    "ReduceSum": _reduce("sum"),
    "Relu": _relu,
    "Reshape": _reshaped,
    "Round": _unary("round"),
    "ScatterElements": _scatter,
    "ScatterND": _scatter,
    "Slice": _slice,
    "Split": _split,
    "Sqrt": _unary("sqrt"),
    "Squeeze": _reshaped,
    "Sub": _binary("subtract"),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshaped,
    "Where": _where,
}
