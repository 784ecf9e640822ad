"""What quantising explains, where a layer rounds to 8 bits and the reference does not: int8 against float.

Each rounding adds an error of variance step^2 / 12, independent of the others (Widrow and Kollar 2008, "Quantization
Noise", chapter 1). A product of quantised x and w so has the variance sum(w^2) s_x^2 / 12 + sum(x^2) s_w^2 / 12; both
sums are made with the layer's own operator on squares. What is clipped is not explained.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper

from exporters import graph
from exporters.bisect_layers import DEQUANTIZE, QUANTIZE, Arrays, Layer, computed, cut
from exporters.bisect_rounding import Verdict, known_array

TWICE = 2.0  # the root mean square of a channel has a spread of its own, and errors of neighbours are alike
TWELFTH = 1.0 / 12.0


def quantises(model: ModelProto, layer: Layer) -> bool:
    """Whether the layer rounds what it reads: a quantiser with another operator than DequantizeLinear behind it."""
    acting = [model.graph.node[index] for index in layer.nodes]
    rounded: set[str] = set()
    for node in acting:
        if node.op_type == QUANTIZE or (node.op_type == DEQUANTIZE and node.input[0] in rounded):
            rounded.update(node.output)
        elif rounded & set(node.input):
            return True
    return False


def variances(model: ModelProto, chosen: Sequence[Layer], values: Arrays) -> tuple[ModelProto, dict[str, list[str]]]:
    """A model that returns the variance that quantising adds to each weighted operator of the layers.

    Returns:
        The model, with the inputs of `cut`, and layer output -> names of variances, one for each such operator.
    """
    new = cut(model, chosen, values)
    main = new.graph
    data = set(computed(model))
    makers, known = graph.producers(main), graph.constants(main)
    names: dict[str, list[str]] = {}
    zero = "/noise/zero"
    main.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), zero))
    for layer in chosen:
        for index in layer.nodes:
            node = model.graph.node[index]
            if node.op_type not in graph.WEIGHTED or node.output[0] not in data:
                continue
            inner = makers[node.output[0]]
            parts = []
            for rounded, other in ((0, 1), (1, 0)):
                step = _variance_of_step(makers, known, inner.input[rounded])
                if step is None:
                    continue
                stem = f"{node.output[0]}/noise/{rounded}"
                main.initializer.append(numpy_helper.from_array(step, f"{stem}/step"))
                main.node.append(_node("Mul", [inner.input[rounded], zero], f"{stem}/none"))
                main.node.append(_node("Add", [f"{stem}/none", f"{stem}/step"], f"{stem}/variance"))
                main.node.append(_node("Mul", [inner.input[other]] * 2, f"{stem}/square"))
                twin = NodeProto()
                twin.CopyFrom(inner)
                twin.name = stem
                del twin.input[:], twin.output[:]
                pair = [f"{stem}/variance", f"{stem}/square"]
                twin.input.extend(pair if rounded == 0 else reversed(pair))
                twin.output.append(stem)
                main.node.append(twin)
                parts.append(stem)
            if parts:
                total = f"{node.output[0]}/noise"
                main.node.append(_node("Sum", parts, total))
                names.setdefault(layer.output, []).append(total)
    del main.output[:]
    main.output.extend(ValueInfoProto(name=name) for found in names.values() for name in found)
    return new, names


def judge(
    model: ModelProto,
    layer: Layer,
    reference: NDArray[np.generic],
    found: NDArray[np.generic],
    noise: Sequence[NDArray[np.generic]],
) -> Verdict:
    """The root mean square error of each channel against what quantising explains.

    Args:
        model: the candidate.
        layer: one that `quantises`.
        reference: what the reference computed, in float.
        found: what the layer makes of the reference's inputs; the same shape.
        noise: the layer's variances.
    """
    error = np.asarray(found, np.float64) - np.asarray(reference, np.float64)
    if not np.isfinite(error).all():
        return Verdict(float("inf"), "NaN or infinity on one side")
    fitting = [value.astype(np.float64) for value in noise if value.shape == error.shape]
    variance = np.sum(fitting, axis=0) if fitting else np.zeros(error.shape)
    variance = variance + sum(_other_steps(model, layer, bool(fitting)))
    axis = 1 if error.ndim > 2 else error.ndim - 1
    others = tuple(dim for dim in range(error.ndim) if dim != axis)
    explained = TWICE * np.sqrt(variance.mean(axis=others)) + float(np.finfo(np.float32).tiny)
    score = float((np.sqrt((error**2).mean(axis=others)) / explained).max())
    return Verdict(score, f"a channel's root mean square beyond {TWICE:g} times that of quantising")


def _other_steps(model: ModelProto, layer: Layer, weighted: bool) -> list[float]:
    """Variances of the quantisers whose result no weighted operator reads."""
    known = graph.constants(model.graph)
    nodes = [model.graph.node[index] for index in layer.nodes]
    into = {name for node in nodes if node.op_type in graph.WEIGHTED for name in node.input} if weighted else set()
    fed = {node.input[0] for node in nodes if node.op_type == DEQUANTIZE and node.output[0] in into}
    return [
        float(known_array(known, node.input[1]).max()) ** 2 * TWELFTH
        for node in nodes
        if node.op_type == QUANTIZE and node.output[0] not in fed and node.input[1] in known
    ]


def _variance_of_step(
    makers: Mapping[str, NodeProto], known: Mapping[str, TensorProto], name: str
) -> NDArray[np.float32] | None:
    """step^2 / 12 of a dequantised tensor, shaped to be added to it; None where it is not dequantised."""
    maker = makers.get(name)
    if maker is None or maker.op_type != DEQUANTIZE or maker.input[1] not in known:
        return None
    scale = known_array(known, maker.input[1])
    found = scale.ravel() ** 2 * TWELFTH
    if found.size == 1:
        return found.reshape(()).astype(np.float32)
    stored = known.get(maker.input[0])
    if stored is None:
        return None
    axis = graph.attribute(maker, "axis", 1) % len(stored.dims)
    return found.reshape([-1 if dim == axis else 1 for dim in range(len(stored.dims))]).astype(np.float32)


def _node(operator: str, inputs: Sequence[str], output: str) -> NodeProto:
    return NodeProto(op_type=operator, name=output, input=inputs, output=[output])
