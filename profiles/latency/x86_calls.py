"""Which of its routes onnxruntime takes for a kernel on an x86 core, and how much work of each kind that is.

onnxruntime picks one of several implementations ("routes") of an operator from its shape: blocked convolution where
channels allow it, a copy into columns and a matrix product elsewhere, kernels of their own for depthwise and for int8.
Within one route time is, to a few percent, linear in a few counts, which `ROUTES` lists beside what limits them.

Sources: onnxruntime's `core/optimizer/nchwc_transformer.cc` (when a convolution becomes blocked, what is fused into
it), `core/mlas/lib/snchwc.cpp` (tiles of output columns by blocks of channels), `convolve.cpp` (columns and product),
`core/optimizer/qdq_transformer` (which operators run on codes); checked on the graphs that onnxruntime 1.31 writes.
"""

from collections.abc import Callable, Mapping
from math import ceil, prod, sqrt
from typing import Literal

from profiles.fuse import Kernel
from profiles.graph import operators

Resource = Literal["launch", "compute", "int8", "memory"]
Call = tuple[str, tuple[float, ...]]
"""One call: its route, and how much of each of the route's counts it makes."""

TILE = 6  # output columns that the inner loop of a blocked convolution computes at once
BLOCKS = 4  # blocks of output channels that it computes at once
ROWS = 12  # rows of a float matrix product that are computed at once
COLOURS = 4  # channels up to which a convolution is taken for a network's first
SLICE = 128  # input channels after which a pointwise convolution writes what it has summed

_BLOCKED: tuple[tuple[str, Resource], ...] = (
    ("calls", "launch"),
    ("MACs on whole blocks of channels", "compute"),
    ("loads of weights: tiles x K x blocks", "compute"),
    ("loads of inputs: pixels x K x passes", "compute"),
    ("outputs, as often as they are written", "compute"),
    ("stored weights", "memory"),
    ("bytes beyond the cache", "memory"),
)
_PRODUCT: tuple[tuple[str, Resource], ...] = (
    ("calls", "launch"),
    ("MACs on whole vectors", "compute"),
    ("loads of weights: tiles x K x N", "compute"),
    ("inputs", "compute"),
    ("outputs", "compute"),
    ("bytes beyond the cache", "memory"),
)
_ELEMENTS: tuple[tuple[str, Resource], ...] = (
    ("calls", "launch"),
    ("elements", "compute"),
    ("bytes beyond the cache", "memory"),
)
_ROWS: tuple[tuple[str, Resource], ...] = (("calls", "launch"), ("elements", "compute"), ("rows", "launch"))
_WINDOWS: tuple[tuple[str, Resource], ...] = (
    ("calls", "launch"),
    ("elements of windows", "compute"),
    ("outputs", "compute"),
)
_STEPS: tuple[tuple[str, Resource], ...] = (
    ("calls", "launch"),
    ("steps", "launch"),
    ("MACs with the input", "compute"),
    ("MACs with the state", "compute"),
    ("gates", "compute"),
    ("bytes beyond the cache", "memory"),
)
ROUTES: Mapping[str, tuple[tuple[str, Resource], ...]] = {
    "conv_blocked": _BLOCKED,
    "conv_pointwise": _BLOCKED,
    "conv_first": _BLOCKED,
    "conv_depthwise": (*_BLOCKED[:3], _BLOCKED[4], _BLOCKED[6]),
    "conv_columns": (
        ("calls", "launch"),
        ("products: groups x batch", "launch"),
        ("MACs on whole vectors of pixels", "compute"),
        ("elements of columns", "compute"),
        ("outputs", "compute"),
        ("stored weights", "memory"),
    ),
    "conv_channels": (
        ("calls", "launch"),
        ("products: channels x batch", "launch"),
        ("elements of columns", "compute"),
        ("outputs", "compute"),
    ),
    "conv_transpose": (
        ("calls", "launch"),
        ("MACs", "compute"),
        ("elements of columns", "compute"),
        ("outputs", "compute"),
    ),
    "conv_activation": (("elements", "compute"),),
    "skip": (("elements added", "memory"), ("bytes beyond the cache", "memory")),
    "qconv": (
        ("calls", "launch"),
        ("pixels", "compute"),
        ("MACs on whole vectors of channels", "int8"),
        ("loads of weights: tiles x K x N", "int8"),
        ("elements of columns", "compute"),
        ("runs of columns", "compute"),
        ("outputs", "compute"),
        ("outputs beyond whole vectors", "compute"),
        ("stored weights", "memory"),
    ),
    "qconv_depthwise": (
        ("calls", "launch"),
        ("MACs", "int8"),
        ("MACs beyond whole vectors", "compute"),
        ("outputs", "compute"),
    ),
    "qconv_grouped": (
        ("calls", "launch"),
        ("products: groups x batch", "launch"),
        ("MACs on whole vectors of channels", "int8"),
        ("elements of columns", "compute"),
        ("runs of columns", "compute"),
        ("outputs", "compute"),
        ("outputs beyond whole vectors", "compute"),
    ),
    "gemm": _PRODUCT,
    "qgemm": tuple((name, "int8" if name.startswith(("MAC", "load")) else kind) for name, kind in _PRODUCT),
    "matmul": (
        ("calls", "launch"),
        ("products", "launch"),
        ("MACs on whole vectors", "compute"),
        ("elements of the right factor", "compute"),
        ("inputs and outputs", "compute"),
    ),
    "qmatmul": (
        ("calls", "launch"),
        ("products", "launch"),
        ("MACs on whole vectors", "int8"),
        ("elements of the right factor", "compute"),
        ("inputs and outputs", "compute"),
    ),
    "lstm": _STEPS,
    "gru": _STEPS,
    "fft": (("calls", "launch"), ("transforms", "launch"), ("MACs", "compute"), ("points", "compute")),
    "pool": _WINDOWS,
    "pool_plain": _WINDOWS,
    "average_plain": _WINDOWS,
    "qpool": _WINDOWS,
    "qpool_plain": _WINDOWS,
    "qaverage": _WINDOWS,
    "mean": (("calls", "launch"), ("inputs", "compute"), ("outputs", "compute")),
    "reduce": (("calls", "launch"), ("inputs", "compute"), ("outputs", "compute")),
    "qmean": (("calls", "launch"), ("inputs", "compute"), ("outputs", "compute")),
    "arithmetic": _ELEMENTS,
    "broadcast": _ROWS,
    "function": _ELEMENTS,
    "qarithmetic": _ELEMENTS,
    "qbroadcast": _ROWS,
    "qtable": _ELEMENTS,
    "quantize": _ELEMENTS,
    "dequantize_weights": _ELEMENTS,
    "norm": _ROWS,
    "skip_norm": _ROWS,
    "softmax": _ROWS,
    "qsoftmax": _ROWS,
    "resize": _ELEMENTS,
    "qresize": _ELEMENTS,
    "copy": _ELEMENTS,
    "qcopy": _ELEMENTS,
    "transpose": _ELEMENTS,
    "transpose_inner": _ELEMENTS,
    "qtranspose": _ELEMENTS,
    "qtranspose_inner": _ELEMENTS,
    "reorder": _ELEMENTS,
}

BEHIND_CONV = frozenset(["relu", "clip", "clamp", "hardtanh", "sigmoid", "tanh", "leakyrelu", "leaky_relu"])
BEHIND_BLOCKED = BEHIND_CONV | {"hardsigmoid", "hardswish"}
BEHIND_GEMM = frozenset(["relu", "leakyrelu", "leaky_relu", "tanh", "sigmoid"])
VANISHING = frozenset(["relu", "clip", "clamp", "hardtanh"])  # in the rounding to codes
FOLDED = frozenset(["batchnormalization", "_batch_norm_no_update", "native_batch_norm", "quantizelinear"])
FUNCTIONS = operators(
    """sigmoid tanh gelu erf exp log silu swish quickgelu softplus pow mish elu celu selu sin cos fastgelu biasgelu
    log10 log2 log1p expm1 softsign atan"""
)
TABLES = frozenset(["sigmoid", "leakyrelu", "leaky_relu", "qlinearsigmoid", "qlinearleakyrelu"])
BINARY = frozenset(["add", "mul", "qlinearadd", "qlinearmul"])
TURNS = frozenset(["transpose", "permute", "t"])
BLOCKED = frozenset(["conv_blocked", "conv_pointwise", "conv_first", "conv_depthwise"])


def calls(kernel: Kernel, lanes: int = 16, cache_bytes: float = 1 << 20) -> list[Call]:
    """The calls that onnxruntime makes for one kernel, each with the counts of its route.

    Args:
        lanes: float32 in a vector register.
        cache_bytes: of one core; the traffic of a call beyond it is counted apart.
    """
    names = [name.lower().rstrip("_") for name in kernel.operators]
    make = _CORES.get(kernel.kind)
    if make is None or not names:
        return _followers(kernel, names, None, max(0.0, kernel.activation_bytes - cache_bytes))
    beyond = max(0.0, kernel.activation_bytes + kernel.weight_bytes - cache_bytes)
    first, *rest = names
    found = make(kernel, first, lanes, beyond)
    return found + _followers(kernel, rest, found[-1][0], 0.0) + _codes_again(kernel)


def _followers(kernel: Kernel, names: list[str], behind: str | None, beyond: float) -> list[Call]:
    """Operators of a kernel that onnxruntime runs by themselves, behind the route `behind` or from the start."""
    found: list[Call] = []
    elements = float(kernel.elements)
    coded = kernel.precision == "int8"
    blocked = behind in BLOCKED
    open_to = BEHIND_BLOCKED if blocked else {"conv_columns": BEHIND_CONV, "gemm": BEHIND_GEMM}.get(behind or "")
    biased = kernel.kind == "gemm" and len(kernel.weights) > 1 and not kernel.weights[-1].bias  # an Add with a constant
    for place, name in enumerate(names):
        if name in FOLDED:
            # Behind what only moves codes, rounding is nothing: the runtime moved it to the front.
            if behind is None and name == "quantizelinear" and len(names) == 1 and kernel.read_bytes >= 2 * elements:
                found.append(("quantize", (1.0, elements, beyond)))
        elif name == "layernormalization":  # and the sum before it: SkipLayerNormalization
            if found and found[-1][0] == "arithmetic":
                found.pop()
            found.append(("skip_norm", (1.0, elements, _rows(kernel))))
        elif name in ("mul", "div") and not place and behind == "matmul" and len(kernel.reads) <= 2:
            continue  # a constant factor: FusedMatMul
        elif name == "add" and biased:
            biased = False
            if coded:  # the constant has no codes
                found += _through_float(("broadcast", (1.0, elements, _rows(kernel))), elements)
        elif coded:
            found += _on_codes(kernel, name, elements, beyond)
        elif open_to and name in open_to:
            open_to = None
            if name not in VANISHING:  # a second pass over what the convolution wrote
                found.append(("conv_activation", (elements,)))
        elif open_to and name == "add" and blocked:
            found.append(("skip", (elements, max(0.0, 4 * elements - (1 << 20)))))
        elif name == "mul" and place and names[place - 1] == "sigmoid" and found and found[-1][0] == "function":
            continue  # x * sigmoid(x) is one operator, QuickGelu
        else:
            if name == "sigmoid" and names[place + 1 : place + 2] == ["mul"]:
                open_to = None
            found += _in_float(kernel, name, elements, beyond)
            open_to = None
    return found


def _on_codes(kernel: Kernel, name: str, elements: float, beyond: float) -> list[Call]:
    if name in VANISHING:
        return []
    if name in BINARY:
        return [_binary(kernel, "qarithmetic", "qbroadcast", elements, beyond)]
    if name in TABLES:
        return [("qtable", (1.0, elements, beyond))]
    return [call for one in _in_float(kernel, name, elements, beyond) for call in _through_float(one, elements)]


def _through_float(call: Call, elements: float) -> list[Call]:
    """An operator without a kernel for codes: they become numbers before it and codes again behind it."""
    return [("quantize", (1.0, elements, 0.0)), call, ("quantize", (1.0, elements, 0.0))]


def _in_float(kernel: Kernel, name: str, elements: float, beyond: float) -> list[Call]:
    if name in FUNCTIONS:
        return [("function", (1.0, elements, beyond))]
    if name == "hardswish":  # a hard sigmoid and a product
        return [("arithmetic", (1.0, elements, beyond))] * 2
    return [_binary(kernel, "arithmetic", "broadcast", elements, beyond)]


def _binary(kernel: Kernel, plain: str, broadcast: str, elements: float, beyond: float) -> Call:
    """An operator on one or two tensors; a smaller one is repeated row by row."""
    alone = len(kernel.operators) - kernel.operators.count("QuantizeLinear") == 1
    smaller = len(kernel.reads) > 1 and kernel.read_bytes < len(kernel.reads) * kernel.written_bytes
    if alone and kernel.kind == "pointwise" and (smaller or kernel.weights):
        return broadcast, (1.0, elements, _rows(kernel))
    return plain, (1.0, elements, beyond)


def _rows(kernel: Kernel) -> float:
    """Runs of consecutive elements that share one number or one row of a smaller tensor."""
    if len(kernel.shape) == 4 and len(kernel.reads) > 1:
        return float(prod(kernel.shape[:2]))
    return kernel.elements / max(kernel.shape[-1] if kernel.shape else 1, 1)


def _whole(count: float, step: float) -> float:
    """`count`, rounded up to whole steps."""
    return ceil(count / step) * step


def _dequantised(kernel: Kernel) -> list[Call]:
    """What comes before a layer that has codes but runs in float: its input and all that it stores become numbers."""
    source = float(prod(kernel.source)) if kernel.source else float(kernel.read_bytes)
    stored = [float(item.elements) for item in kernel.weights if item.dtype != "float32"]
    return [("quantize", (1.0, source, 0.0)), *(("dequantize_weights", (1.0, count, 0.0)) for count in stored)]


def _codes_again(kernel: Kernel) -> list[Call]:
    """What comes behind such a layer: another summand becomes numbers, the result becomes codes."""
    if not kernel.weights or not _runs_in_float(kernel) or "QuantizeLinear" not in kernel.operators:
        return []
    summands = kernel.operators.count("Add") if len(kernel.reads) > 1 else 0
    return [("quantize", (1.0, float(kernel.elements), 0.0))] * (1 + summands)


def _has_codes(kernel: Kernel) -> bool:
    """Whether a layer's operands come as codes, whatever it computes in."""
    return kernel.precision == "int8" or kernel.coded


def _runs_in_float(kernel: Kernel) -> bool:
    """Whether a layer with codes runs in float: onnxruntime forms its integer kernels around rounded results only."""
    if not kernel.weights or kernel.operators[0].startswith("Q"):
        return False
    if "QuantizeLinear" in kernel.operators:  # at once, or after something that only floats can do
        return kernel.coded and kernel.precision != "int8"
    if kernel.weights[0].dtype != "int8":  # a float graph that is asked for in int8
        return False
    return kernel.kind != "gemm" or any(item.bias and item.dtype == "float32" for item in kernel.weights)


def _conv(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    shape, area = kernel.shape, prod(kernel.window) or 1
    if len(shape) < 3 or not kernel.window:  # geometry unknown: a square map, a window of one
        side = max(1, round(sqrt(kernel.elements / max(kernel.channels, 1))))
        shape, area = (1, kernel.channels, side, side), 1
    found: list[Call] = []
    groups = max(kernel.groups, 1)
    inputs, outputs = max(kernel.depth // area, 1), max(shape[1] // groups, 1)
    if kernel.macs and kernel.elements * kernel.depth != kernel.macs:  # transposed: counted per input
        pixels = kernel.macs / max(kernel.depth, 1) / max(inputs * groups, 1)
        columns = pixels * shape[1] * area
        found = [("conv_transpose", (1.0, float(kernel.macs), columns, float(kernel.elements)))]
        return [*_dequantised(kernel), *found] if _has_codes(kernel) else found
    if _has_codes(kernel):
        if not _runs_in_float(kernel):
            found = [_coded_conv(shape, area, prod(kernel.window[:-1]), groups, inputs, outputs, lanes)]
            if groups == 1 and inputs <= COLOURS and kernel.source:  # a network's input comes channel by channel
                found.insert(0, ("qtranspose_inner", (1.0, float(prod(kernel.source)), 0.0)))
            return found
        return [*_dequantised(kernel), _float_conv(kernel, shape, area, groups, inputs, outputs, lanes, beyond)]
    return [_float_conv(kernel, shape, area, groups, inputs, outputs, lanes, beyond)]


def _coded_conv(
    shape: tuple[int, ...], area: int, rows: int, groups: int, inputs: int, outputs: int, lanes: int
) -> Call:
    pixels = float(shape[0] * prod(shape[2:]))
    if groups > 1 and inputs == outputs == 1:
        beyond = pixels * area * (groups % lanes)
        return "qconv_depthwise", (1.0, pixels * area * groups, beyond, pixels * groups)
    depth = _whole(area * inputs, 4)
    macs = pixels * depth * _whole(outputs, lanes)
    columns = pixels * area * inputs * groups if area > 1 else 0.0
    runs = pixels * rows * groups if area > 1 else 0.0
    beyond = pixels * groups * (outputs % lanes)
    if groups > 1:
        products = float(groups * shape[0])
        return "qconv_grouped", (1.0, products, macs * groups, columns, runs, pixels * outputs * groups, beyond)
    loads = ceil(pixels / TILE) * depth * _whole(outputs, lanes)
    stored = float(area * inputs * outputs)
    return "qconv", (1.0, pixels, macs, loads, columns, runs, pixels * outputs, beyond, stored)


def _float_conv(
    kernel: Kernel, shape: tuple[int, ...], area: int, groups: int, inputs: int, outputs: int, lanes: int, beyond: float
) -> Call:
    batch, pixels = shape[0], prod(shape[2:])
    plane = len(shape) == 4
    depthwise = groups > 1 and inputs == outputs == 1
    whole_groups = inputs % lanes == 0 and outputs % lanes == 0
    if plane and groups % 4 == 0 and depthwise:
        return _blocked("conv_depthwise", kernel, shape, area, _whole(groups, lanes) / lanes, 1, lanes, lanes, beyond)
    if plane and groups > 1 and whole_groups:
        return _blocked("conv_blocked", kernel, shape, area, groups, inputs, outputs, lanes, beyond)
    if plane and groups == 1 and (inputs < lanes or inputs % 4 == 0):
        first = inputs < lanes
        route = "conv_first" if first else "conv_pointwise" if area == 1 else "conv_blocked"
        depth = inputs if first else int(_whole(inputs, lanes))
        return _blocked(route, kernel, shape, area, 1, depth, int(_whole(outputs, lanes)), lanes, beyond)
    columns = area * inputs * pixels * groups * batch
    macs = groups * batch * outputs * area * inputs * _whole(pixels, lanes)
    if depthwise:  # a product of one row for each channel
        return "conv_channels", (1.0, float(groups * batch), float(columns), float(kernel.elements))
    return "conv_columns", (
        1.0,
        float(groups * batch),
        macs,
        float(columns),
        float(kernel.elements),
        float(area * inputs * outputs * groups),
    )


def _blocked(
    route: str,
    kernel: Kernel,
    shape: tuple[int, ...],
    area: int,
    groups: float,
    inputs: int,
    outputs: int,
    lanes: int,
    beyond: float,
) -> Call:
    batch, _, height, width = shape
    strides = kernel.strides or (1, 1)
    window = kernel.window or (1, 1)
    if route == "conv_pointwise" and max(strides) == 1:  # the map is one long row
        tiles, kept = float(batch * ceil(height * width / TILE)), 1.0
    else:
        edges = min(width, _edges(width, kernel.source[-1], window[-1], strides[-1]) if len(kernel.source) == 4 else 0)
        tiles = float(batch * height * (ceil((width - edges) / TILE) + edges))
        kept = _kept(height, kernel.source[-2], window[0], strides[0]) if len(kernel.source) == 4 else 1.0
    pixels, blocks = float(batch * height * width), outputs / lanes
    depth = area * inputs * kept
    macs = pixels * depth * outputs * groups
    loads = tiles * depth * blocks * groups
    written = pixels * outputs * groups
    if route == "conv_depthwise":
        return route, (1.0, macs, loads, written, beyond)
    if route == "conv_pointwise":
        written *= ceil(inputs / SLICE)
    else:  # sums go to memory after each block of input channels, or each channel of an input that has no blocks
        written *= inputs if route == "conv_first" else ceil(inputs / lanes)
    passes = pixels * depth * ceil(blocks / BLOCKS) * groups
    return route, (1.0, macs, loads, passes, written, float(area * inputs * outputs * groups), beyond)


def _edges(out: int, source: int, window: int, stride: int) -> int:
    """Output columns whose window sticks out of the input, where padding is the same on both sides."""
    padding = max(0, (out - 1) * stride + window - source)
    left = padding // 2
    return ceil(left / stride) + ceil((padding - left) / stride)


def _kept(out: int, source: int, window: int, stride: int) -> float:
    """Share of the windows' rows that lie inside the input."""
    padding = max(0, (out - 1) * stride + window - source)
    cut = sum(max(0, side - row * stride) for side in (padding // 2, padding - padding // 2) for row in range(out))
    return max(1 - cut / (out * window), 1 / window)


def _gemm(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    depth, width = max(kernel.depth, 1), max(kernel.channels, 1)
    rows = kernel.macs / (depth * width)
    coded = _has_codes(kernel)
    before = _dequantised(kernel) if coded and _runs_in_float(kernel) else []
    if coded and not before:
        counts = (
            rows * _whole(depth, 4) * _whole(width, lanes),
            ceil(rows / TILE) * _whole(depth, 4) * _whole(width, lanes),
        )
        return [("qgemm", (1.0, *counts, rows * depth, rows * width, beyond))]
    macs = rows * depth * _whole(width, lanes)
    tiles = ceil(rows / ROWS) * depth * _whole(width, lanes)
    return [*before, ("gemm", (1.0, macs, tiles, rows * depth, rows * width, beyond))]


def _matmul(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    if name in ("attention", "multiheadattention", "scaled_dot_product_attention"):
        return [("matmul", (2.0, 2.0, float(kernel.macs), 0.0, float(kernel.elements)))]
    depth, width = max(kernel.depth, 1), max(kernel.channels, 1)
    products = float(prod(kernel.shape[:-2])) if len(kernel.shape) > 2 else 1.0
    rows = kernel.macs / (depth * width * products)
    coded = kernel.precision == "int8"
    macs = products * rows * depth * _whole(width, lanes)
    ends = products * rows * (depth + width)
    return [("qmatmul" if coded else "matmul", (1.0, products, macs, products * depth * width, ends))]


def _recurrent(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    gates = {"lstm": 4, "gru": 3}.get(name, 1)
    hidden = max(kernel.channels, 1)
    steps = kernel.macs / (gates * hidden * max(kernel.depth, 1))
    state = steps * gates * hidden * hidden
    stored = max(0.0, 4.0 * gates * hidden * hidden - (1 << 20)) * steps
    found: Call = (
        "lstm" if name == "lstm" else "gru",
        (1.0, steps, kernel.macs - state, state, steps * gates * hidden, stored),
    )
    return _through_float(found, float(kernel.elements)) if kernel.precision == "int8" else [found]


def _fft(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    length = max(kernel.depth, 1)
    return [("fft", (1.0, kernel.elements / length, float(kernel.macs), float(kernel.elements)))]


def _pool(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    outputs = float(kernel.elements)
    source = float(prod(kernel.source)) if kernel.source else outputs
    coded = kernel.precision == "int8"
    if "global" in name or "adaptive" in name:
        return [("qmean" if coded else "mean", (1.0, source, outputs))]
    counts = (1.0, outputs * (prod(kernel.window) or 4), outputs)
    average = "avg" in name or "average" in name
    plane = len(kernel.shape) == 4
    if coded:
        return [("qaverage" if average else "qpool" if plane else "qpool_plain", counts)]
    if plane and kernel.shape[1] % lanes == 0:
        return [("pool", counts)]
    return [("average_plain" if average else "pool_plain", counts)]


def _reduce(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    source = float(prod(kernel.source)) if kernel.source else float(kernel.elements)
    found: Call = ("reduce", (1.0, source, float(kernel.elements)))
    return _through_float(found, source) if kernel.precision == "int8" else [found]


def _norm(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    elements = float(kernel.elements)
    over_features = "layer" in name or "rms" in name
    rows = elements / max(kernel.shape[-1], 1) if over_features and kernel.shape else float(prod(kernel.shape[:2]) or 1)
    found: Call = ("norm", (1.0, elements, rows))
    return _through_float(found, elements) if kernel.precision == "int8" else [found]


def _softmax(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    elements = float(kernel.elements)
    rows = elements / max(kernel.shape[-1] if kernel.shape else 1, 1)
    return [("qsoftmax" if kernel.precision == "int8" else "softmax", (1.0, elements, rows))]


def _resize(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    return [("qresize" if kernel.precision == "int8" else "resize", (1.0, float(kernel.elements), beyond))]


def _copy(kernel: Kernel, name: str, lanes: int, beyond: float) -> list[Call]:
    elements = float(kernel.elements)
    if name in ("reorderinput", "reorderoutput"):
        return [("reorder", (1.0, elements, beyond))]
    route = "copy"
    if name in TURNS:  # whole runs of the last axis move, or single elements
        route = "transpose" if kernel.source[-1:] == kernel.shape[-1:] else "transpose_inner"
    return [("q" + route if kernel.precision == "int8" else route, (1.0, elements, beyond))]


_CORES: Mapping[str, Callable[[Kernel, str, int, float], list[Call]]] = {
    "dense": _conv,
    "depthwise": _conv,
    "grouped": _conv,
    "gemm": _gemm,
    "matmul": _matmul,
    "recurrent": _recurrent,
    "fft": _fft,
    "pool": _pool,
    "reduce": _reduce,
    "norm": _norm,
    "softmax": _softmax,
    "resize": _resize,
    "copy": _copy,
}
