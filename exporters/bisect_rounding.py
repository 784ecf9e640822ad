"""How far a layer may differ by rounding alone, so that what is above it is a fault.

Both sides read the same numbers, so a layer's error is its own. What rounding explains follows from what it computes:

- a sum of K products: |fl(sum) - sum| grows like sqrt(K) u S with S = sum of |x| |w| (Higham and Mary 2019, "A new
  approach to probabilistic rounding error analysis", theorem 2.4; u is the unit roundoff). S is computed with the
  layer's own operator on the magnitudes. Half a step of (activation scale * weight scale) is added where both come
  dequantised: integer kernels put the bias on that grid;
- any other operator: 64 sqrt(K) u times the largest output; K is how many inputs make one output. 64 covers the
  polynomials that runtimes use for exp, tanh and erf; for recurrent layers 8, and K is steps times features;
- a quantiser: the same code, or the neighbouring one where the value lies next to a half;
- integers and truth values: equal;
- a layer that quantises where the reference does not (int8 against float): each rounding adds an error of variance
  step^2 / 12 (Widrow and Kollar 2008, "Quantization Noise", chapter 1), so a product has sum(w^2) s_x^2 / 12 +
  sum(x^2) s_w^2 / 12, and a sum adds what its other operands have. Clipping is not explained.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, ValueInfoProto

from exporters import graph
from exporters.bisect_layers import DEQUANTIZE, QUANTIZE, Arrays, Layer, computed, cut

MAGNITUDE = "/magnitude"
ALL = 8.0  # sigmas of the random walk of rounding errors: no element is beyond it by chance
MEAN = 2.0  # the same for the root mean square of a channel, whose own spread is small; both sides round
CURVE = 64.0
REQUANTISE = 2.0**-12  # steps: a float32 multiplier and a product of 24 bits, times codes up to 256
INTEGRAL = "biu"
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
MOVES = frozenset(  # operators that round nothing
    {
        "Transpose",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Slice",
        "Gather",
        "Concat",
        "Split",
        "Identity",
        "Expand",
    }
)


@dataclass(frozen=True)
class Verdict:
    """One layer's own error against what rounding explains.

    Attributes:
        score: the error as a multiple of what rounding explains; a fault above 1. Infinite where types or shapes
            differ, or where only one side is NaN.
        reason: which rule was the strictest.
    """

    score: float
    reason: str


def magnitudes(model: ModelProto, chosen: Sequence[Layer], values: Arrays) -> tuple[ModelProto, dict[str, str]]:
    """A model that returns S, the sum of magnitudes, of every layer with one weighted operator.

    Returns:
        The model, with the inputs of `cut`, and layer output -> the name of its S. Layers that are missing have none.
    """
    new = cut(model, chosen, values)
    data = set(computed(model))
    names: dict[str, str] = {}
    known = graph.producers(new.graph)
    for layer in chosen:
        node = weighted_node(model, layer, data)
        if node is None:
            continue
        inner = known[node.output[0]]  # the same node, reading what the reference gave
        sources = []
        for index, source in enumerate(inner.input):
            if source:
                name = f"{layer.output}{MAGNITUDE}/{index}"
                new.graph.node.append(NodeProto(op_type="Abs", input=[source], output=[name], name=name))
                source = name
            sources.append(source)
        twin = NodeProto()
        twin.CopyFrom(inner)
        twin.name = names[layer.output] = f"{layer.output}{MAGNITUDE}"
        del twin.input[:], twin.output[:]
        twin.input.extend(sources)
        twin.output.append(twin.name)
        new.graph.node.append(twin)
    del new.graph.output[:]
    new.graph.output.extend(ValueInfoProto(name=name) for name in names.values())
    return new, names


def weighted_node(model: ModelProto, layer: Layer, data: set[str]) -> NodeProto | None:
    """The layer's only operator with weights; None where it has none or several."""
    found = [
        model.graph.node[index]
        for index in layer.nodes
        if model.graph.node[index].op_type in graph.WEIGHTED and model.graph.node[index].output[0] in data
    ]
    return found[0] if len(found) == 1 else None


def judge(
    model: ModelProto,
    layer: Layer,
    reference: NDArray[np.generic],
    found: NDArray[np.generic],
    values: Arrays,
    magnitude: NDArray[np.generic] | None,
) -> Verdict:
    """The layer's own error against what rounding explains.

    Args:
        model: the candidate.
        layer: one of its layers.
        reference: what the reference computed.
        found: what the layer makes of the reference's inputs.
        values: the reference's tensors, by name, at least the layer's inputs.
        magnitude: S, where the layer has one weighted operator.
    """
    if reference.shape != found.shape or reference.dtype.kind != found.dtype.kind:
        return Verdict(math.inf, f"{_form(reference)} became {_form(found)}")
    if reference.size == 0:
        return Verdict(0.0, "empty")
    last = model.graph.node[layer.nodes[-1]]
    known = graph.constants(model.graph)
    if last.op_type == QUANTIZE and layer.inputs == (last.input[0],):
        return _quantised(reference, found, values[last.input[0]], known_array(known, last.input[1]))
    if reference.dtype.kind in INTEGRAL:
        steps = np.abs(reference.astype(np.int64) - found.astype(np.int64)).max()
        return Verdict(0.0 if steps == 0 else math.inf, "integers must be equal")
    a, b = reference.astype(np.float64), found.astype(np.float64)
    if bool((np.isnan(a) != np.isnan(b)).any()):
        return Verdict(math.inf, "NaN on one side")
    with np.errstate(invalid="ignore"):
        error = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    if not np.isfinite(error).all():
        return Verdict(math.inf, "infinity on one side")
    if not error.any():
        return Verdict(0.0, "equal")
    unit = max(_roundoff(reference.dtype), _roundoff(found.dtype))
    ended = _ended_by_rounding(model, layer, known)
    data = set(computed(model))
    node = weighted_node(model, layer, data)
    if ended is not None:
        return _rerounded(a, error, ended, values, _float_bound(model, layer, node, known, magnitude, values, unit))
    if node is not None and magnitude is not None and magnitude.shape == a.shape:
        return _product(model, layer, node, known, a, error, magnitude.astype(np.float64), values, unit)
    bound = _other(model, layer, a, values, unit)
    return Verdict(float(error.max()) / bound, f"{CURVE:g} sqrt(inputs) u of the largest output")


def _product(
    model: ModelProto,
    layer: Layer,
    node: NodeProto,
    known: Mapping[str, object],
    reference: NDArray[np.float64],
    error: NDArray[np.float64],
    magnitude: NDArray[np.float64],
    values: Arrays,
    unit: float,
) -> Verdict:
    root = math.sqrt(_products(model, layer, node, values))
    axis = 1 if node.op_type.startswith("Conv") else reference.ndim - 1
    others = tuple(dim for dim in range(reference.ndim) if dim != axis)
    shift = _bias_grid(model, node, reference.shape[axis])
    # The output itself is rounded once more, to its own type; the least normal number keeps zeros apart from nothing.
    tiny = float(np.finfo(np.float32).tiny)
    wide = shift.reshape([-1 if dim == axis else 1 for dim in range(reference.ndim)])
    single = float((error / (ALL * root * unit * magnitude + wide + tiny)).max())
    mean = np.sqrt((error**2).mean(axis=others))
    spread = np.sqrt((magnitude**2).mean(axis=others))
    channel = float((mean / (MEAN * root * unit * spread + shift + tiny)).max())
    if channel >= single:
        return Verdict(channel, f"a channel's root mean square beyond {MEAN:g} sqrt(K) u S")
    return Verdict(single, f"one element beyond {ALL:g} sqrt(K) u S")


def _float_bound(
    model: ModelProto,
    layer: Layer,
    node: NodeProto | None,
    known: Mapping[str, object],
    magnitude: NDArray[np.generic] | None,
    values: Arrays,
    unit: float,
) -> float:
    """How far the value in front of the last quantiser may be off, in its own unit."""
    if node is None or magnitude is None:
        largest = max((float(np.abs(values[name]).max()) for name in layer.inputs if _real(values[name])), default=0.0)
        return CURVE * unit * largest
    bound = ALL * math.sqrt(_products(model, layer, node, values)) * unit * float(magnitude.max())
    grid = _bias_grid(model, node, None)
    return 2.0 * (bound + (float(grid.max()) if grid.size else 0.0))  # 2: HardSwish and GELU stretch by up to 1.5


def _rerounded(
    reference: NDArray[np.float64],
    error: NDArray[np.float64],
    ended: tuple[float, str],
    values: Arrays,
    bound: float,
) -> Verdict:
    """Outputs on one grid: equal codes, or neighbours where the value before rounding lies next to a half."""
    step, before = ended
    steps = np.rint(error / step)
    near = bound / step + REQUANTISE
    if steps.max() > 1.0:
        return Verdict(float(steps.max()) / (1.0 + near), "more than one step")
    if before in values and values[before].shape == reference.shape:
        place = np.abs(values[before].astype(np.float64) / step)
        distance = np.abs(place - np.floor(place) - 0.5)
        far = float(distance[steps > 0].max(initial=0.0))
        return Verdict(far / near, "a code changed away from a half")
    share = float((steps > 0).mean())
    return Verdict(share / (2.0 * near), "share of codes that changed")


def _quantised(
    reference: NDArray[np.generic], found: NDArray[np.generic], value: NDArray[np.generic], scale: NDArray[np.float64]
) -> Verdict:
    """A quantiser alone: both sides round the same number."""
    steps = np.abs(reference.astype(np.float64) - found.astype(np.float64))
    if not steps.any():
        return Verdict(0.0, "equal")
    if scale.size != 1 or steps.max() > 1.0 or not np.isfinite(value[steps > 0].astype(np.float64)).all():
        return Verdict(math.inf, f"codes differ by up to {steps.max():g}")
    place = np.abs(value.astype(np.float64) / float(scale.ravel()[0]))
    distance = np.abs(place - np.floor(place) - 0.5)
    near = 4.0 * _roundoff(value.dtype) * np.maximum(place, 1.0)
    return Verdict(float((distance / near)[steps > 0].max()), "a code changed away from a half")


def _other(model: ModelProto, layer: Layer, reference: NDArray[np.float64], values: Arrays, unit: float) -> float:
    finite = np.abs(reference[np.isfinite(reference)])
    largest = float(finite.max(initial=0.0))
    read = [values[name] for name in layer.inputs if _real(values[name])]
    ratio = max((value.size / reference.size for value in read), default=1.0)
    if "Softmax" in layer.operators or any("Normalization" in name for name in layer.operators):
        ratio = max(ratio, float(reference.shape[-1]) if reference.ndim else 1.0)
    curve = CURVE
    if RECURRENT & set(layer.operators):  # each step sums over the features; gates keep what steps add up to bounded
        ratio, curve = max([ratio, *(float(math.prod(value.shape[1:])) for value in read)]), ALL
    acting = [name for name in layer.operators if name not in MOVES]
    inner = max((float(np.abs(value).max(initial=0.0)) for value in read), default=0.0)
    if {"Add", "Sub"} & set(acting) or (len(acting) > 1 and not RECURRENT & set(acting)):
        largest = max(largest, inner if math.isfinite(inner) else 0.0)  # what cancels is rounded at its own size
    return curve * max(1, len(acting)) * math.sqrt(max(1.0, ratio)) * unit * largest + float(np.finfo(np.float32).tiny)


def _products(model: ModelProto, layer: Layer, node: NodeProto, values: Arrays) -> float:
    """K: products in one sum."""
    known = graph.constants(model.graph)
    makers = graph.producers(model.graph)
    shape = _shape(node.input[1], known, makers, values)
    if shape is None:
        return float(max((values[name].shape[-1] for name in layer.inputs if values[name].ndim), default=1))
    if node.op_type == "Conv":
        return float(math.prod(shape[1:]))
    if node.op_type == "ConvTranspose":
        return float(shape[0] * math.prod(shape[2:]))
    if node.op_type == "Gemm" and graph.attribute(node, "transB", 0):
        return float(shape[-1])
    return float(shape[-2] if len(shape) > 1 else shape[0])


def _shape(
    name: str, known: Mapping[str, object], makers: Mapping[str, NodeProto], values: Arrays
) -> tuple[int, ...] | None:
    while name not in known and name not in values and name in makers and makers[name].op_type == DEQUANTIZE:
        name = makers[name].input[0]
    if name in known:
        return tuple(known_array(known, name).shape)
    return tuple(values[name].shape) if name in values else None


def _bias_grid(model: ModelProto, node: NodeProto, channels: int | None) -> NDArray[np.float64]:
    """Half a step of (activation scale * weight scale), per channel; zero where there is no such grid or no bias."""
    none = np.zeros(channels or 1)
    if len(node.input) < 3 or not node.input[2]:
        return none
    known, makers = graph.constants(model.graph), graph.producers(model.graph)
    scales = []
    for name in node.input[:2]:
        maker = makers.get(name)
        if maker is None or maker.op_type != DEQUANTIZE or maker.input[1] not in known:
            return none
        scales.append(known_array(known, maker.input[1]).ravel())
    half = 0.5 * np.multiply(scales[0] if scales[0].size == 1 else scales[0].max(), scales[1])
    return half if channels is None or half.size == channels else np.full(channels, half.max())


def _ended_by_rounding(model: ModelProto, layer: Layer, known: Mapping[str, object]) -> tuple[float, str] | None:
    """(step, tensor in front of it) of the quantiser at the layer's end, where more than it alone is in the layer."""
    makers = graph.producers(model.graph)
    inside = {model.graph.node[index].output[0] for index in layer.nodes}
    name = layer.output
    while name in makers and name in inside and name not in layer.inputs:
        node = makers[name]
        if node.op_type == QUANTIZE:
            scale = known_array(known, node.input[1]) if node.input[1] in known else np.zeros(0)
            return (float(scale.ravel()[0]), node.input[0]) if scale.size == 1 else None
        if node.op_type != DEQUANTIZE and node.op_type not in ("Reshape", "Transpose", "Flatten", "Squeeze"):
            return None
        name = node.input[0]
    return None


def known_array(known: Mapping[str, object], name: str) -> NDArray[np.float64]:
    """A constant in double precision."""
    tensor = known[name]
    return graph.array(tensor).astype(np.float64)  # type: ignore[arg-type]


def _roundoff(kind: np.dtype[Any]) -> float:
    return 0.5 * float(np.finfo(kind).eps) if kind.kind == "f" else 0.0


def _real(value: NDArray[np.generic]) -> bool:
    return value.dtype.kind == "f" and value.size > 0


def _form(value: NDArray[np.generic]) -> str:
    return f"{value.dtype} {tuple(value.shape)}"
