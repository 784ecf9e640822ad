"""Which precision each node takes: float32 where it must, half where that pays, and the rest by fewest Casts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import ModelProto, NodeProto

from exporters import graph
from exporters.errors import ExportError
from exporters.half import cut, policy
from exporters.half.formats import HalfFormat
from exporters.half.observe import Seen
from exporters.passes.strip_traces import module_name

GAIN = frozenset({*graph.WEIGHTED, "LSTM", "GRU", "RNN", "Einsum"})  # where half precision is worth a Cast
TABLE = 1 << 16  # numbers of a stored table from which on it is worth a Cast of what is looked up
QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
HALF_SCALES = 19  # opset from which Q/DQ take scales in half precision
_KIND = {"fp16": "tensor(float16)", "bf16": "tensor(bfloat16)"}


@dataclass(frozen=True)
class Kept:
    """A node that computes in float32."""

    node: str
    operator: str
    module: str
    why: str


@dataclass(frozen=True)
class Plan:
    """What `passes.cast_to_half` carries out.

    Attributes:
        half: the format.
        colours: index of a node -> whether it computes in it; nodes that touch no float32 are absent, Q/DQ too.
        kept: nodes in float32, with the reason; those that only stand between two such say so.
        keeps_inputs, keeps_outputs: whether the graph's own inputs and outputs stay float32.
    """

    half: HalfFormat
    colours: Mapping[int, bool]
    kept: tuple[Kept, ...]
    keeps_inputs: bool = True
    keeps_outputs: bool = True


def decide(
    model: ModelProto,
    half: HalfFormat,
    seen: Mapping[str, Seen],
    *,
    keep: Sequence[str] = (),
    headroom: float = policy.HEADROOM,
    half_inputs: bool = False,
    half_outputs: bool = False,
) -> Plan:
    """Plan one model.

    Args:
        model: float32, or int8 with Q/DQ pairs.
        half: fp16 or bf16.
        seen: what each tensor held on real data (`half.observe.observe`); {} where there is none.
        keep: modules or nodes that stay float32 on request, such as a head that the loss is sensitive to.
        headroom: how many times larger than seen a value may become.
        half_inputs, half_outputs: whether the caller feeds and takes half precision.

    Raises:
        ExportError: the model's opset has no such arithmetic, or no half-precision scales for its Q/DQ pairs.
    """
    facts = policy.look_at(model)
    _check_opset(facts, half)
    why = policy.reasons(facts, half, seen, keep, headroom=headroom)
    why.update(_undefined(facts, half))
    nodes = [index for index in range(len(facts.nodes)) if _computes(facts, index)]
    bound = {index: False for index in nodes if index in why}
    for index in nodes:
        if index not in bound and (facts.nodes[index].op_type in GAIN or _is_table(facts, index)):
            bound[index] = True
    outside_in, outside_out = -1, -2
    if not half_inputs:
        bound[outside_in] = False
    if not half_outputs:
        bound[outside_out] = False
    colours = cut.cheapest([*nodes, outside_in, outside_out], bound, _tensors(model, facts, (outside_in, outside_out)))
    kept = [
        Kept(
            facts.nodes[index].name,
            facts.nodes[index].op_type,
            module_name(facts.nodes[index]),
            why.get(index, "stands between float32 nodes: no Cast needed"),
        )
        for index in nodes
        if not colours[index]
    ]
    return Plan(
        half,
        {index: colours[index] for index in nodes},
        tuple(kept),
        keeps_inputs=not colours[outside_in],
        keeps_outputs=not colours[outside_out],
    )


def follows(node: NodeProto, position: int, opset: int, half: HalfFormat, *, output: bool = False) -> bool:
    """Whether an input (or output) of an operator takes the type that the node computes in."""
    schema = _schema(node, opset)
    formals = schema.outputs if output else schema.inputs
    kind = formals[min(position, len(formals) - 1)].type_str
    for constraint in schema.type_constraints:
        if constraint.type_param_str == kind:
            return _KIND[half.name] in constraint.allowed_type_strs
    return False  # a fixed type, such as Resize's scales


def _schema(node: NodeProto, opset: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(node.op_type, max_inclusive_version=opset)


def _check_opset(facts: policy.Graph, half: HalfFormat) -> None:
    if facts.opset < half.oldest_opset:
        raise ExportError(
            f"opset {facts.opset} has no {half.name} convolution",
            fix=f"export with opset {half.oldest_opset} or later, or take fp16",
        )
    if facts.opset < HALF_SCALES and any(node.op_type in QUANTISERS for node in facts.nodes):
        raise ExportError(
            f"opset {facts.opset} has no {half.name} scales for quantised layers",
            fix=f"export with opset {HALF_SCALES} or later, or leave what is not quantised in float32",
        )


def _computes(facts: policy.Graph, index: int) -> bool:
    """Whether a node's precision is a question: it touches float32 and is neither a constant nor Q/DQ."""
    node = facts.nodes[index]
    if node.op_type in (*QUANTISERS, "Constant"):
        return False
    return any(name in facts.floats for name in (*node.input, *node.output))


def _is_table(facts: policy.Graph, index: int) -> bool:
    """A lookup in a large stored table: it computes nothing, but is stored in the type that it gives."""
    node = facts.nodes[index]
    table = facts.constants.get(node.input[0]) if node.op_type == "Gather" else None
    return table is not None and math.prod(table.dims) >= TABLE


def _undefined(facts: policy.Graph, half: HalfFormat) -> dict[int, str]:
    """Operators that ONNX does not define for the format."""
    found = {}
    for index, node in enumerate(facts.nodes):
        if not _computes(facts, index):
            continue
        outputs = [place for place, name in enumerate(node.output) if name in facts.floats]
        inputs = [place for place, name in enumerate(node.input) if name in facts.floats]
        following = [follows(node, place, facts.opset, half, output=True) for place in outputs]
        if not outputs:
            following = [follows(node, place, facts.opset, half) for place in inputs]
        if not all(following) or node.op_type in ("RandomNormal", "RandomUniform", "EyeLike", "Multinomial", "Range"):
            found[index] = f"ONNX opset {facts.opset} has no {half.name} {node.op_type}"
    return found


def _tensors(model: ModelProto, facts: policy.Graph, outside: tuple[int, int]) -> list[tuple[int, list[int]]]:
    """(maker, readers) of each float32 tensor that would need a Cast; what comes from a constant or from
    DequantizeLinear comes in either precision, and QuantizeLinear takes either."""
    results = {value.name for value in model.graph.output}
    given = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    found = []
    for name in sorted(facts.floats):
        if name in facts.constants or (name not in facts.makers and name not in given):
            continue
        maker = facts.makers.get(name, outside[0])
        if maker >= 0 and facts.nodes[maker].op_type == "DequantizeLinear":
            continue
        readers = [reader for reader in facts.readers.get(name, ()) if facts.nodes[reader].op_type not in QUANTISERS]
        found.append((maker, readers + ([outside[1]] if name in results else [])))
    return found
