"""Find the first layer in which two forms of a model differ by more than rounding explains.

Each layer of the candidate is run on what the reference computed (see `bisect_layers.cut`), so that a layer is judged
by its own error: what earlier layers did wrong does not reach it, and what later layers would hide is seen. All layers
of a chunk are judged in one run; chunks keep memory bounded for large networks.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from exporters import bisect_noise, graph, parity
from exporters.bisect_layers import (
    DEQUANTIZE,
    QUANTIZE,
    Arrays,
    Layer,
    batches,
    computed,
    cut,
    entry,
    exposed,
    fused_boundaries,
    layers,
)
from exporters.bisect_rounding import Verdict, judge, known_array, magnitudes
from exporters.bisect_sides import AS_WRITTEN, OnnxTensors, Runtime, Tensors, session
from exporters.errors import ExportError

LIMIT_BYTES = 512 * 2**20  # tensors of one side that are held at a time
CARRY = frozenset({*parity.HANDS_ON, "Clip", "Add"})  # operators whose result has its inputs' unit
FAULT = 1.0  # score above which rounding does not explain a layer


@dataclass(frozen=True)
class Checked:
    """One layer and its own error.

    Attributes:
        verdict: against what rounding explains.
        parity: reference against the layer run on the reference's inputs; in steps of the quantiser that rounds the
            tensor, where there is one.
        constants: what differs in the layer's stored numbers, where both sides store them.
    """

    layer: Layer
    verdict: Verdict
    parity: parity.Parity | None
    constants: tuple[str, ...] = ()

    @property
    def faulty(self) -> bool:
        """Whether rounding does not explain its error."""
        return self.verdict.score > FAULT

    def named(self) -> str:
        """The torch module and the node."""
        return f"module {self.layer.module!r}, node {self.layer.node!r}" if self.layer.module else self.layer.node

    def sentence(self) -> str:
        """What a person reads."""
        score = "beyond any rounding" if math.isinf(self.verdict.score) else f"{self.verdict.score:.3g} times"
        size = ""
        if self.parity is not None:
            size = f", largest error {self.parity.max_abs:.3g}"
            if self.parity.max_steps is not None:
                size = f", largest error {self.parity.max_steps:.3g} steps, mean {self.parity.mean_steps:.3g}"
        explained = score if math.isinf(self.verdict.score) else f"{score} what rounding explains"
        text = f"{self.named()} ({' '.join(self.layer.operators)}): {explained}{size}"
        return text if not self.constants else f"{text}; {'; '.join(self.constants)}"


@dataclass(frozen=True)
class Finding:
    """What a bisect found.

    Attributes:
        runtime: what ran the candidate.
        layers: every layer that could be compared, in graph order.
        unshared: tensors of the candidate that the reference does not have; they lie inside layers.
        first: the first layer that rounding does not explain; None where there is none.
        final: outputs of the whole candidate against the reference's.
        notes: what a reader must know.
        seconds: wall clock.
    """

    runtime: str
    layers: tuple[Checked, ...]
    unshared: int
    first: Checked | None
    final: Mapping[str, parity.Parity]
    notes: tuple[str, ...]
    seconds: float

    @property
    def ranked(self) -> list[Checked]:
        """Faulty layers, the largest score first."""
        return sorted((one for one in self.layers if one.faulty), key=lambda one: -one.verdict.score)

    @property
    def stored(self) -> list[Checked]:
        """Layers whose stored numbers differ without an effect on these inputs that rounding does not explain."""
        return [one for one in self.layers if one.constants and not one.faulty]

    def sentence(self) -> str:
        """What a person reads."""
        if self.first is None:
            said = f"no layer of {len(self.layers)} differs by more than rounding explains ({self.runtime})"
            stored = self.stored
            return f"{said}, but stored numbers do: {stored[0].named()}, {stored[0].constants[0]}" if stored else said
        more = sum(one.faulty for one in self.layers) - 1
        others = f"; {more} more behind it" if more else ""
        return f"first layer that differs ({self.runtime}): {self.first.sentence()}{others}"


def bisect(
    reference: Tensors,
    candidate: ModelProto,
    inputs: Arrays,
    *,
    runtime: Runtime = AS_WRITTEN,
    limit_bytes: int = LIMIT_BYTES,
    limit_s: float = math.inf,
) -> Finding:
    """Compare layer by layer.

    Args:
        reference: shows its tensors; names are what both sides share.
        candidate: checked.
        inputs: of both, by name, batch first; a few samples do.
        runtime: runs the candidate.
        limit_bytes: of tensors that are held at a time.
        limit_s: no further chunk is begun after so many seconds; the notes say how many layers are left.

    Raises:
        ExportError: the two share no tensor.
        ProfileError: a side cannot be run.
    """
    start = time.monotonic()
    whole = OnnxTensors(candidate)
    shared, sizes, notes = _shared(reference, whole, inputs, runtime)
    if not shared:
        raise ExportError(
            "the two models share no tensor, so they cannot be compared layer by layer",
            fix="compare files exported from the same model; passes keep the names of tensors that they do not remove",
        )
    cuts = layers(candidate, shared)
    checked: list[Checked] = []
    for chunk in batches(cuts, sizes, limit_bytes):
        if checked and time.monotonic() - start > limit_s:
            notes.append(f"{len(cuts) - len(checked)} layers were left out after {limit_s:.0f} s")
            break
        checked.extend(_check(reference, candidate, chunk, inputs, runtime))
    checked = _without_renamed(reference, candidate, cuts, checked, inputs, runtime)
    final = _final(reference, candidate, inputs, runtime)
    first = next((one for one in checked if one.faulty), None)
    for one in checked:
        if one.constants and not one.faulty:
            notes.append(f"{one.layer.node}: {'; '.join(one.constants)}; on these inputs its output is the same")
    if first is None and runtime.fuses and any(_far(found) for found in final.values()):
        place = first_prefix(reference, candidate, inputs, runtime, [layer.output for layer in cuts])
        where = "its end" if place is None else f"{place.output!r} (module {place.module!r}, node {place.node!r})"
        notes.append(
            f"the whole model differs though no layer alone does, from {where} on: rounding that adds up, or memory "
            "that layers share"
        )
    return Finding(
        runtime.name,
        tuple(checked),
        len(set(computed(candidate)) - shared),
        first,
        final,
        tuple(notes),
        time.monotonic() - start,
    )


def first_prefix(
    reference: Tensors, candidate: ModelProto, inputs: Arrays, runtime: Runtime, names: Sequence[str]
) -> Layer | None:
    """The first tensor that is wrong when the model is run whole up to it; for faults that no layer shows alone.

    Layers that share memory, or a state that one leaves to another, spoil nothing where each layer has inputs of its
    own. So the beginnings of the model are built and run, log2(len(names)) of them, and the search keeps the shortest
    one whose mean error is above half a step (or, in float, above a hundredth of the tensor's spread).

    Args:
        names: tensors at which the runtime may be cut, in graph order.

    Returns:
        The layer that ends the shortest wrong beginning; None where even the longest is right.
    """
    cuts = layers(candidate, names)
    steps = _steps_of(candidate)
    low, high = 0, len(cuts)
    while low < high:
        middle = (low + high) // 2
        name = cuts[middle].output
        before = reference.compute([name], inputs)[name]
        after = np.asarray(runtime.run(exposed(candidate, [name]), inputs)[name])
        wrong = before.shape != after.shape or _far(parity.compare(before, after, steps.get(name)))
        low, high = (low, middle) if wrong else (middle + 1, high)
    return cuts[low] if low < len(cuts) else None


def _far(found: parity.Parity) -> bool:
    if found.not_a_number:
        return True
    if found.mean_steps is not None:
        return found.mean_steps > parity.HALF_A_STEP
    return found.mean_abs > 0.01 * found.spread


def _steps_of(candidate: ModelProto) -> dict[str, float]:
    """Dequantised tensor -> its scale, of those with one."""
    known = graph.constants(candidate.graph)
    found = {}
    for node in candidate.graph.node:
        if node.op_type == DEQUANTIZE and node.input[1] in known:
            scale = known_array(known, node.input[1])
            if scale.size == 1:
                found[node.output[0]] = float(scale.ravel()[0])
    return found


def _shared(
    reference: Tensors, whole: OnnxTensors, inputs: Arrays, runtime: Runtime
) -> tuple[set[str], dict[str, int], list[str]]:
    """Tensors that both have with the same shape and kind, their bytes for these inputs, and notes."""
    allowed = fused_boundaries(whole.model) if runtime.fuses else set(whole.names)
    names = [name for name in whole.names if name in set(reference.names)]
    if not names:
        return set(), {}, []
    one, count = _one_sample(whole.model, inputs)
    left, right = reference.compute(names, one), whole.compute(names, one)
    shared, sizes, notes = set(), {}, []
    for name in names:
        if name not in left or name not in right:
            continue  # of a type that numpy does not have
        a, b = left[name], right[name]
        if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
            notes.append(f"{name}: {a.dtype} {a.shape} became {b.dtype} {b.shape}")
            continue
        sizes[name] = a.nbytes * count
        if name in allowed and not (runtime.fuses and a.dtype != np.float32):
            shared.add(name)
    return shared, sizes, notes


def _one_sample(model: ModelProto, inputs: Arrays) -> tuple[Arrays, int]:
    """(the first sample, how many there are) where the batch is free; else everything and 1."""
    fixed = {tensor.name for tensor in model.graph.initializer}
    given = [value for value in model.graph.input if value.name not in fixed]
    free = all(
        value.type.tensor_type.shape.dim and not value.type.tensor_type.shape.dim[0].HasField("dim_value")
        for value in given
    )
    counts = {len(array) for array in inputs.values() if array.ndim}
    if not free or len(counts) != 1:
        return inputs, 1
    return {name: array[:1] for name, array in inputs.items()}, counts.pop()


def _check(
    reference: Tensors, candidate: ModelProto, chunk: Sequence[Layer], inputs: Arrays, runtime: Runtime
) -> Iterator[Checked]:
    """Run every layer of a chunk on the reference's tensors."""
    given = {value.name for value in candidate.graph.input}
    before = {
        name
        for layer in chunk
        for index in layer.nodes
        if candidate.graph.node[index].op_type == QUANTIZE
        for name in candidate.graph.node[index].input[:1]
    }
    known = set(reference.names)
    needed = {layer.output for layer in chunk} | {name for layer in chunk for name in layer.inputs} | (before & known)
    values = dict(inputs) | reference.compute(sorted(needed - given), inputs)
    feeds = {entry(name): values[name] for layer in chunk for name in layer.inputs}
    found = runtime.run(cut(candidate, chunk, values, requantise=runtime.fuses), feeds)
    sums, names = magnitudes(candidate, chunk, values)
    sizes = session(sums, feeds, rewrite=False) if names else {}
    rounding = [layer for layer in chunk if bisect_noise.quantises(candidate, layer)]
    spread, sums_of = bisect_noise.variances(candidate, rounding, values) if rounding else (sums, {})
    noise = session(spread, feeds, rewrite=False) if sums_of else {}
    readers, constants = graph.consumers(candidate.graph), graph.constants(candidate.graph)
    for layer in chunk:
        a, b = values[layer.output], np.asarray(found[layer.output])
        magnitude = sizes.get(names.get(layer.output, ""))
        verdict = judge(candidate, layer, a, b, values, magnitude)
        if layer in rounding and verdict.score > FAULT and a.shape == b.shape and a.dtype.kind == "f":
            verdict = bisect_noise.judge(
                candidate, layer, a, b, [noise[name] for name in sums_of.get(layer.output, ())]
            )
        compared = None
        if a.shape == b.shape and a.size:
            compared = parity.compare(a, b, _step(layer, a, readers, constants, candidate))
        yield Checked(layer, verdict, compared, _constants(reference, candidate, layer))


def _step(
    layer: Layer,
    value: NDArray[np.generic],
    readers: Mapping[str, Sequence[Any]],
    constants: Mapping[str, Any],
    candidate: ModelProto,
) -> float | None:
    """The unit of a tensor: 1 for codes, the scale that rounds it or that it was rounded with; None without one."""
    if value.dtype.kind in "iu":
        return 1.0
    node = candidate.graph.node[layer.nodes[-1]]
    name = layer.output
    for _ in range(len(candidate.graph.node)):
        if node.op_type == DEQUANTIZE or (node.op_type == QUANTIZE and node.input[1] in constants):
            scale = known_array(constants, node.input[1]) if node.input[1] in constants else np.zeros(0)
            return float(scale.ravel()[0]) if scale.size == 1 and float(scale.ravel()[0]) > 0 else None
        following = readers.get(name, [])
        if len(following) != 1 or not following[0].output:
            quantisers = [reader for reader in following if reader.op_type == QUANTIZE]
            if not quantisers:
                return None
            node = quantisers[0]
            continue
        node, name = following[0], following[0].output[0]
        if node.op_type not in CARRY | {QUANTIZE, DEQUANTIZE}:
            return None
    return None


def _constants(reference: Tensors, candidate: ModelProto, layer: Layer) -> tuple[str, ...]:
    """Which stored numbers of a layer differ, of those that both sides store under one name, shape and type."""
    ours, theirs = reference.constants, graph.constants(candidate.graph)
    told = []
    for name in dict.fromkeys(name for index in layer.nodes for name in candidate.graph.node[index].input):
        if name not in ours or name not in theirs:
            continue
        a, b = np.atleast_1d(ours[name]), np.atleast_1d(graph.array(theirs[name]))
        if a.shape != b.shape or a.dtype != b.dtype:
            continue
        unequal = np.argwhere(a != b)
        if len(unequal):
            place = tuple(int(index) for index in unequal[0])
            change = f"{a[place]:.6g} became {b[place]:.6g} at {list(place)}"
            told.append(f"{name} differs in {len(unequal)} of {a.size} numbers, {change}")
    return tuple(told)


def _without_renamed(
    reference: Tensors,
    candidate: ModelProto,
    cuts: Sequence[Layer],
    checked: list[Checked],
    inputs: Arrays,
    runtime: Runtime,
) -> list[Checked]:
    """Forget tensors that mean something else under the same name: a pass may fold an operator into the one before.

    They are those whose nodes differ between the two graphs, and behind which everything agrees when they are not cut.
    """
    own = graph.producers(candidate.graph)
    makers = graph.producers(reference.model.graph) if isinstance(reference, OnnxTensors) else {}
    suspects = set()
    for one in checked:
        name = one.layer.output
        if name in makers:
            other = _signature(makers[name]) != _signature(own[name])
        else:  # a reference without nodes: a pass may have put a quantiser in front of the tensor
            other = QUANTIZE in one.layer.operators[:-1]
        if one.faulty and other:
            suspects.add(name)
    if not suspects:
        return checked
    kept = {layer.output for layer in cuts} - suspects
    wider = [layer for layer in layers(candidate, kept) if _touches(candidate, layer, suspects)]
    again = {one.layer.output: one for one in _check(reference, candidate, wider, inputs, runtime)}
    real = {name for one in again.values() if one.faulty for name in suspects if name in _made(candidate, one.layer)}
    return [one for one in checked if one.layer.output not in suspects or one.layer.output in real]


def _touches(candidate: ModelProto, layer: Layer, names: set[str]) -> bool:
    return not names.isdisjoint(_made(candidate, layer))


def _made(candidate: ModelProto, layer: Layer) -> set[str]:
    return {name for index in layer.nodes for name in candidate.graph.node[index].output}


def _signature(node: Any) -> tuple[object, ...]:
    return (node.op_type, len(node.input), tuple(sorted(item.SerializeToString() for item in node.attribute)))


def _final(reference: Tensors, candidate: ModelProto, inputs: Arrays, runtime: Runtime) -> dict[str, parity.Parity]:
    """The whole candidate's outputs."""
    known = set(reference.names)
    names = [value.name for value in candidate.graph.output if value.name in known]
    if not names:
        return {}
    left = reference.compute(names, inputs)
    right = runtime.run(exposed(candidate, names), inputs)
    steps = parity.output_steps(candidate)
    return {
        name: parity.compare(left[name], np.asarray(right[name]), steps[name])
        for name in names
        if left[name].shape == np.shape(right[name]) and left[name].size
    }
