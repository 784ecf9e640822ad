"""Which nodes must compute in float32, and why.

Sources: NVIDIA TensorRT documentation, "Strongly Typed Networks" (precision lives in the graph) and its best practices
for reduced precision (keep normalisations, softmax and large reductions in float32); Micikevicius et al. 2018,
arXiv:1710.03740, section 3.3 (reductions and point-wise operations with large ranges).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from exporters import graph, large
from exporters.half.formats import HalfFormat
from exporters.half.observe import Seen, seen_in
from exporters.passes.strip_traces import module_name

HEADROOM = 4.0  # data to come may be this much larger than what was seen
LOST = 2.0**-7  # largest share of a tensor (L2) that rounding may cost: twice what bf16 costs at most, 16 times fp16
LARGE_REDUCTION = 256  # additions, each of half an ulp at worst: half precision would keep two bits of eleven

NORMALISATIONS = frozenset(
    {
        "LayerNormalization",
        "InstanceNormalization",
        "GroupNormalization",
        "RMSNormalization",
        "SimplifiedLayerNormalization",
        "MeanVarianceNormalization",
        "LpNormalization",
        "LRN",
    }
)
EXPONENTIALS = frozenset({"Exp", "Log", "Pow", "Softplus", "ReduceLogSum", "ReduceLogSumExp", "Mish"})
SPECTRAL = frozenset({"STFT", "DFT", "MelWeightMatrix"})
SUMS = frozenset({"ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "GlobalAveragePool", "CumSum"})
# A front end is linear algebra and squares; one of these on the way says that a network stands there.
ACTIVATIONS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu"}
    | {"Softmax", "LogSoftmax", "LSTM", "GRU", "RNN", "Swish", "ThresholdedRelu", "BatchNormalization"}
)


@dataclass(frozen=True)
class Graph:
    """What the rules look at.

    Attributes:
        nodes: of the main graph, in its order.
        makers, readers: by tensor name, as indices of nodes.
        floats: names of the float32 tensors, constants too.
        constants: name -> value.
        shapes: name -> sizes, symbolic ones as text.
    """

    nodes: Sequence[NodeProto]
    makers: Mapping[str, int]
    readers: Mapping[str, Sequence[int]]
    floats: frozenset[str]
    constants: Mapping[str, TensorProto]
    shapes: Mapping[str, Sequence[int | str]]
    opset: int

    def sources(self, index: int) -> list[int]:
        """The nodes that make what a node reads."""
        return [self.makers[name] for name in self.nodes[index].input if name in self.makers]

    def users(self, index: int) -> list[int]:
        """The nodes that read what a node makes."""
        return [reader for name in self.nodes[index].output for reader in self.readers.get(name, ())]


def look_at(model: ModelProto) -> Graph:
    """The facts of a model that the rules need."""
    inferred = large.infer_shapes(model)
    constants = graph.constants(model.graph)
    floats = {name for name, tensor in constants.items() if tensor.data_type == TensorProto.FLOAT}
    shapes: dict[str, Sequence[int | str]] = {name: list(tensor.dims) for name, tensor in constants.items()}
    for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
        kind = value.type.tensor_type
        if kind.elem_type == TensorProto.FLOAT:
            floats.add(value.name)
        if kind.HasField("shape"):
            shapes[value.name] = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim]
    nodes = list(model.graph.node)
    readers: dict[str, list[int]] = {}
    for index, node in enumerate(nodes):
        for name in dict.fromkeys(node.input):
            if name:
                readers.setdefault(name, []).append(index)
    makers = {
        name: index for index, node in enumerate(nodes) if node.op_type != "Constant" for name in node.output if name
    }
    return Graph(nodes, makers, readers, frozenset(floats), constants, shapes, graph.opset(model))


def reasons(
    facts: Graph, half: HalfFormat, seen: Mapping[str, Seen], keep: Sequence[str] = (), *, headroom: float = HEADROOM
) -> dict[int, str]:
    """Node -> why it computes in float32; nodes that are not in it may compute in half precision.

    Args:
        facts: the graph.
        half: the format that the others take.
        seen: what each tensor held on real data; {} decides by operators and constants alone.
        keep: modules (their paths) or nodes (their names) that stay float32 on request.
        headroom: >= 1; how much larger data to come may be.
    """
    found: dict[int, str] = {}
    for rule in (_requested(keep), _operators, _hand_written_norms, _front_ends, _reductions):
        for index, why in rule(facts).items():
            found.setdefault(index, why)
    for index, why in _ranges(facts, half, seen, headroom).items():
        found.setdefault(index, why)
    return found


def _requested(keep: Sequence[str]) -> Callable[[Graph], dict[int, str]]:
    def rule(facts: Graph) -> dict[int, str]:
        return {
            index: "asked for"
            for index, node in enumerate(facts.nodes)
            if node.name in keep or any(f"{module_name(node)}.".startswith(f"{path}.") for path in keep if path)
        }

    return rule


def _operators(facts: Graph) -> dict[int, str]:
    found = {}
    for index, node in enumerate(facts.nodes):
        if node.op_type in NORMALISATIONS:
            found[index] = "a normalisation: sums of squares"
        elif node.op_type in ("Softmax", "LogSoftmax"):
            found[index] = "softmax: a sum of exponentials"
        elif node.op_type in EXPONENTIALS:
            found[index] = f"{node.op_type} spreads its input's range"
        elif node.op_type in SPECTRAL:
            found[index] = "a spectrum: long sums of large range"
    return found


def _hand_written_norms(facts: Graph) -> dict[int, str]:
    """A root (or a reciprocal) of a mean of squares, from the centred input to what divides by the root."""
    found: dict[int, str] = {}
    for index, node in enumerate(facts.nodes):
        if node.op_type not in ("Sqrt", "Reciprocal", "Pow", "Rsqrt") or index in found:
            continue
        part = _statistics_before(facts, index)
        if part is None:
            continue
        after = {index}
        for user in facts.users(index):
            if facts.nodes[user].op_type in ("Div", "Mul", "Reciprocal", "Add", "Max", "Clip"):
                after.add(user)
                if facts.nodes[user].op_type not in ("Div", "Mul"):
                    after |= {far for far in facts.users(user) if facts.nodes[far].op_type in ("Div", "Mul")}
        found.update(dict.fromkeys(part | after, "a normalisation written out: sums of squares"))
    return found


def _statistics_before(facts: Graph, root: int) -> set[int] | None:
    """Nodes between a root and the tensor whose variance it takes; None where no reduction stands before it."""
    inside: set[int] = set()
    reduced = False
    waiting = [(source, False) for source in facts.sources(root)]
    while waiting:
        index, behind = waiting.pop()
        node = facts.nodes[index]
        if index in inside:
            continue
        if node.op_type in SUMS and node.op_type != "GlobalAveragePool":
            inside.add(index)
            reduced = True
            waiting += [(source, True) for source in facts.sources(index)]
        elif not behind and node.op_type in ("Add", "Mul", "Div", "Max", "Clip", "Sqrt", "Reshape", "Unsqueeze"):
            inside.add(index)
            waiting += [(source, False) for source in facts.sources(index)]
        elif behind and node.op_type in ("Mul", "Pow", "Abs"):
            inside.add(index)
            waiting += [(source, True) for source in facts.sources(index)]
        elif behind and node.op_type == "Sub":
            inside.add(index)
            means = {"ReduceMean", "ReduceSum", "Div"}
            waiting += [(s, True) for s in facts.sources(index) if facts.nodes[s].op_type in means]
    return inside if reduced else None


def _front_ends(facts: Graph) -> dict[int, str]:
    """Everything between an input and the logarithm of a power spectrum."""
    found: dict[int, str] = {}
    for index, node in enumerate(facts.nodes):
        if node.op_type != "Log":
            continue
        before = _ancestors(facts, index)
        operators = {facts.nodes[one].op_type for one in before}
        if operators & ACTIVATIONS:
            continue
        if operators & SPECTRAL or any(_squares(facts.nodes[one]) for one in before):
            found.update(dict.fromkeys(before | {index}, "log-mel front end: powers span many decades"))
    return found


def _squares(node: NodeProto) -> bool:
    return (node.op_type == "Mul" and node.input[0] == node.input[1]) or node.op_type in (
        "Pow",
        "ReduceSumSquare",
        "ReduceL2",
    )


def _ancestors(facts: Graph, index: int) -> set[int]:
    found: set[int] = set()
    waiting = [index]
    while waiting:
        for source in facts.sources(waiting.pop()):
            if source not in found:
                found.add(source)
                waiting.append(source)
    return found


def _reductions(facts: Graph) -> dict[int, str]:
    found = {}
    for index, node in enumerate(facts.nodes):
        if node.op_type not in SUMS or node.input[0] not in facts.floats:
            continue
        terms = _terms(facts, node)
        if terms is None or terms > LARGE_REDUCTION:
            count = f"{terms} values" if terms is not None else "an unknown number of values"
            found[index] = f"it adds {count}"
    return found


def _terms(facts: Graph, node: NodeProto) -> int | None:
    """Values that one result of a reduction adds up; None where a size is not known."""
    shape = facts.shapes.get(node.input[0])
    if shape is None:
        return None
    axes: list[int] | None = None
    if node.op_type == "GlobalAveragePool":
        axes = list(range(2, len(shape)))
    elif len(node.input) > 1 and node.input[1] in facts.constants:
        axes = [int(axis) for axis in graph.array(facts.constants[node.input[1]]).ravel()]
    elif len(node.input) > 1 and node.input[1]:
        return None
    for item in node.attribute:
        if item.name == "axes":
            axes = [int(axis) for axis in item.ints]
    sizes = [shape[axis] for axis in (range(len(shape)) if axes is None else axes)]
    return int(np.prod([int(size) for size in sizes])) if all(isinstance(size, int) for size in sizes) else None


def _ranges(facts: Graph, half: HalfFormat, seen: Mapping[str, Seen], headroom: float) -> dict[int, str]:
    """Makers and readers of a tensor that the format cannot hold."""
    found: dict[int, str] = {}
    for name in sorted(facts.floats):
        tensor = facts.constants.get(name)
        if tensor is not None:
            room, what = 1.0, f"constant {name!r}"
            if not tensor.raw_data and not tensor.float_data:
                continue
            held = seen_in(graph.array(tensor), half)
        elif name in seen:
            room, what, held = headroom, f"tensor {name!r}", seen[name]
        else:
            continue
        why = misfit(held, half, room)
        if why is None:
            continue
        touched = [*([facts.makers[name]] if name in facts.makers else []), *facts.readers.get(name, ())]
        for index in touched:
            if facts.nodes[index].op_type not in ("QuantizeLinear", "DequantizeLinear"):
                found.setdefault(index, f"{what} {why}")
    return found


def misfit(held: Seen, half: HalfFormat, headroom: float) -> str | None:
    """Why values do not fit into the format; None where they do."""
    if not held.finite:
        return "holds NaN"
    if held.largest * headroom > half.largest:
        return f"reaches {held.largest:.4g}, and {half.name} ends at {half.largest:.4g}" + (
            f" (headroom {headroom:g})" if headroom > 1 else ""
        )
    if held.lost > LOST:
        return f"loses {100 * held.lost:.2g} % of its size to underflow"
    return None
