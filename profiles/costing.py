"""The numbers of many graphs, quickly: what is structure is worked out once, what is a size is an array.

A search costs thousands of candidates that differ in widths. `skeleton` works out grouping, buffers and dependencies
once per structure and keeps the last few; `Skeleton.work` then gives one graph's bytes and multiply-accumulates with a
few array operations. `Timer` asks the latency model once per distinct kernel. What is kept is bounded everywhere, and
nothing that a result depends on is left out of a key: keys hold the values themselves, not hashes of them.

`profiles.fuse` is the reference: the same numbers, kernel by kernel.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from operator import attrgetter
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from profiles.cost import Precision
from profiles.fuse import PRECISION_BYTES, Fused, Kernel, kernel_kind
from profiles.graph import BITS, FLOATS, Graph
from profiles.grouping import Group, Grouping, group, prepared
from profiles.latency.models import Model
from profiles.liveness import Program
from profiles.target import Hardware

Array = NDArray[np.int64]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
SKELETONS = 128  # structures that are kept
KERNELS = 20_000  # times of distinct kernels that are kept per target
TIMERS = 16  # targets whose kernels are kept

DTYPES: dict[Precision, str] = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int8": "int8"}


class Kept(Generic[K, V]):
    """The values that were asked for last; at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.hits = self.misses = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value kept for a key, or None."""
        with self._lock:
            value = self._values.get(key)
            if value is None:
                self.misses += 1
            else:
                self.hits += 1
                self._values.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> V:
        """Keep a value; the one that was not asked for the longest goes."""
        with self._lock:
            self._values[key] = value
            if len(self._values) > self.limit:
                self._values.popitem(last=False)
        return value

    def clear(self) -> None:
        """Forget everything, the statistics as well."""
        with self._lock:
            self._values.clear()
            self.hits = self.misses = 0


class _Step(NamedTuple):
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    in_place: bool


class _Sums:
    """Sums over runs of an index list: one result per kernel."""

    def __init__(self, lists: Sequence[Sequence[int]]) -> None:
        lengths = np.fromiter(map(len, lists), np.int64, len(lists))
        self.ends = np.cumsum(lengths)
        self.starts = self.ends - lengths
        self.index = np.fromiter(chain.from_iterable(lists), np.int64, int(self.ends[-1]) if lists else 0)

    def of(self, values: Array) -> Array:
        return self.over(values[self.index])

    def over(self, taken: Array) -> Array:
        """The same, of values that were taken from their array already."""
        total = np.zeros(len(taken) + 1, np.int64)
        np.cumsum(taken, out=total[1:])
        found: Array = total[self.ends] - total[self.starts]
        return found


@dataclass(slots=True)
class Work:
    """What the kernels of one graph do, kernel by kernel; bytes and elements of one run."""

    macs: list[int]
    read_bytes: list[int]
    written_bytes: list[int]
    weight_bytes: list[int]
    signatures: list[tuple[Any, ...]]  # equal where a latency model sees equal kernels
    params: int
    stored: dict[str, int]  # data type -> bytes of weights
    peak_bytes: int


_OP = attrgetter("operator", "kind", "inputs", "outputs", "int8", "repeats")
_CORE = attrgetter("depth", "channels", "groups", "window", "strides", "repeats")
_WEIGHT = attrgetter("name", "dtype", "bias")
_ELEMENTS, _DTYPE, _SHAPE = attrgetter("elements"), attrgetter("dtype"), attrgetter("shape")
_GROUPS, _CHANNELS, _MACS, _WEIGHTS = (
    attrgetter("groups"),
    attrgetter("channels"),
    attrgetter("macs"),
    attrgetter("weights"),
)


class Skeleton:
    """A structure with everything about its kernels that sizes do not change."""

    def __init__(self, graph: Graph, family: str, precision: Precision | None) -> None:
        self.family, self.precision = family, precision
        self.serial = next(_serials)  # in place of the structure in keys of results
        grouping = self.grouping = group(graph, family, precision)
        runs_in = Fused(graph, grouping, family, precision).runs_in
        ops = graph.ops
        groups = grouping.groups
        number = {name: index for index, name in enumerate(graph.edges)}
        self.asked = _asked(grouping, number)
        self.bits = _bits(graph, grouping, precision)
        self.precisions = [runs_in(item) for item in groups]
        self.kinds = [kernel_kind(ops[item.core]) for item in groups]
        self.operators = [tuple([ops[index].operator for index in item.ops]) for item in groups]
        reads = [[number[name] for name in item.reads] for item in groups]
        self.reads = _Sums(reads)
        self.writes = _Sums([[number[name] for name in item.ends_at] for item in groups])
        self.vector = _Sums([[number[ops[index].outputs[0]] for index in item.vector] for item in groups])
        self.counted = _Sums([item.counted for item in groups])
        # A slice or a gather reads what it writes, not the whole source.
        self.copies = [index for index, item in enumerate(groups) if ops[item.core].kind == "copy"]
        self.copy_made = _Sums([[number[name] for name in ops[groups[k].core].outputs] for k in self.copies])
        self.copy_reads = _Sums([reads[k] for k in self.copies])
        self.cores = [item.core for item in groups]
        self.first_out = [number[item.ends_at[0]] for item in groups]
        self.first_in = [number[ops[item.core].inputs[0]] if ops[item.core].inputs else -1 for item in groups]
        self._weigh(graph, groups)
        steps = []
        self.numbers = []  # what a latency model sees of each kernel beside sizes, as one number
        for k, item in enumerate(groups):
            kind = self.kinds[k]
            read, written = tuple(item.reads), item.ends_at
            if grouping.parts:
                read, written = _once(grouping, read), _once(grouping, written)
            moves = len(item.ops) > 1 and any([ops[index].kind == "copy" for index in item.ops])
            steps.append(_Step(read, written, kind == "pointwise" and not moves))
            counts = (len(read), len(written))
            coded = ops[item.core].int8
            key = (family, kind, self.operators[k], self.precisions[k], coded, counts, moves, self.described[k])
            self.numbers.append(_number(key))
        inputs, outputs = _once(grouping, graph.inputs), _once(grouping, graph.outputs)
        self.program = Program(steps, inputs, outputs, inputs)
        self.buffers = np.array([number[name] for name in self.program.names], np.int64)

    def _weigh(self, graph: Graph, groups: Sequence[Group]) -> None:
        """The stored tensors of each kernel once batch normalisation has become a scale of the weights and a bias."""
        ops = graph.ops
        offsets: list[int] = []
        total = 0
        for op in ops:
            offsets.append(total)
            total += len(op.weights)
        lists: list[list[int]] = []
        factors: list[int] = []
        bits: list[int] = []
        fresh: list[bool] = []
        kinds: list[str] = []
        described: list[tuple[tuple[str, bool], ...]] = []
        norms: list[int] = []
        members: list[range] = []
        seen: set[str] = set()
        known: dict[tuple[str, bool, Precision], tuple[int, str]] = {}
        for item, runs_in in zip(groups, self.precisions, strict=True):
            listed: list[int] = []
            told: list[tuple[str, bool]] = []
            named: list[str] = []
            biased = False
            for index in item.ops:
                op = ops[index]
                weights = op.weights
                if not weights:
                    continue
                at = offsets[index]
                if op.kind == "batchnorm":
                    norms.append(at)
                    members.append(range(at, at + len(weights)))
                    if index in item.folded and biased:
                        continue
                    listed.append(at)
                    told.append(("float32", True))
                    factors.append(1 if index in item.folded else 2)
                    fresh.append(True)
                    biased = True
                    continue
                for place, weight in enumerate(weights, at):
                    name, bias = weight.name, weight.bias
                    new = name not in seen
                    if not new and name in named:
                        continue  # twice in one kernel
                    seen.add(name)
                    named.append(name)
                    listed.append(place)
                    told.append((weight.dtype, bias))
                    factors.append(1)
                    fresh.append(new)
                    biased = biased or bias
            for dtype, bias in told:
                size = known.get((dtype, bias, runs_in))
                if size is None:
                    size = known[dtype, bias, runs_in] = _stored(dtype, bias, runs_in, self.precision)
                bits.append(size[0])
                kinds.append(size[1])
            lists.append(listed)
            described.append(tuple(told))
        self.weights = _Sums(lists)
        self.weight_factors, self.weight_bits = np.array(factors, np.int64), np.array(bits, np.int64)
        self.fresh = np.array(fresh, bool)
        self.stored_as = {kind: np.array([item == kind for item in kinds], bool) & self.fresh for kind in set(kinds)}
        self.described = described
        self.norms = np.array(norms, np.int64)
        self.norm_members = _Sums(members)

    def fits(self, elements: Array) -> bool:
        """Whether a graph of this structure is grouped so too, with these sizes."""
        first, second, same = self.asked
        return np.array_equal(elements[first] == elements[second], same)

    def work(self, graph: Graph, sizes: "Sizes") -> Work:
        """The numbers of one graph of this structure."""
        elements = sizes.elements
        held = (elements * self.bits + 7) >> 3
        read = self.reads.of(held)
        if self.copies:
            made = self.copy_made.of(held)
            lengths = self.copy_reads.ends - self.copy_reads.starts
            taken = np.minimum(held[self.copy_reads.index], np.repeat(made, lengths))
            read[self.copies] = self.copy_reads.over(taken)
        counts = sizes.weights
        if len(self.norms):  # a batch normalisation becomes one number per channel, counted by its longest tensor
            counts = counts.copy()
            members = self.norm_members
            counts[self.norms] = np.maximum.reduceat(counts[members.index], members.starts)
        each = counts[self.weights.index] * self.weight_factors
        stored = (each * self.weight_bits + 7) >> 3
        weighed = self.weights.over(stored).tolist()
        macs = self.counted.of(sizes.macs).tolist()
        reads, written = read.tolist(), self.writes.of(held).tolist()
        ops, shapes = graph.ops, sizes.shapes
        per_weight = each.tolist()
        signatures = list(
            zip(
                self.numbers,
                macs,
                self.writes.of(elements).tolist(),
                reads,
                written,
                weighed,
                self.vector.of(elements).tolist(),
                map(_CORE, [ops[index] for index in self.cores]),
                [shapes[index] for index in self.first_out],
                [shapes[index] if index >= 0 else () for index in self.first_in],
                [
                    tuple(per_weight[first:end])
                    for first, end in zip(self.weights.starts.tolist(), self.weights.ends.tolist(), strict=True)
                ],
                strict=True,
            )
        )
        return Work(
            macs=macs,
            read_bytes=reads,
            written_bytes=written,
            weight_bytes=weighed,
            signatures=signatures,
            params=int(each[self.fresh].sum()),
            stored={kind: int(stored[mask].sum()) for kind, mask in self.stored_as.items()},
            peak_bytes=self.program.least(held[self.buffers]),
        )

    def kernel(self, graph: Graph, index: int) -> Kernel:
        """One kernel of a graph of this structure, as `profiles.fuse` makes it."""
        return Fused(graph, self.grouping, self.family, self.precision).kernel(self.grouping.groups[index])


@dataclass(frozen=True, slots=True)
class Sizes:
    """The numbers of a graph, in the order of its edges, operators and weights."""

    elements: Array
    shapes: list[tuple[int, ...]]
    macs: Array
    weights: Array

    def key(self, graph: Graph) -> tuple[Any, ...]:
        """Equal for equal numbers."""
        return (
            tuple(self.shapes),
            self.elements.tobytes(),
            self.macs.tobytes(),
            self.weights.tobytes(),
            tuple(map(_CORE, graph.ops)),
        )


def _sizes(graph: Graph) -> Sizes:
    edges = graph.edges.values()
    weights = list(chain.from_iterable(map(_WEIGHTS, graph.ops)))
    return Sizes(
        np.array(list(map(_ELEMENTS, edges)), np.int64),
        list(map(_SHAPE, edges)),
        np.array(list(map(_MACS, graph.ops)), np.int64),
        np.array(list(map(_ELEMENTS, weights)), np.int64),
    )


_kept: Kept[tuple[Any, ...], list[Skeleton]] = Kept(SKELETONS)


def skeleton(graph: Graph, family: str, precision: Precision | None) -> tuple[Graph, Skeleton, Sizes]:
    """The graph as the family's runtime sees it, its structure, and its numbers."""
    graph = prepared(graph, family)
    key = _structure(graph, family, precision)
    sizes = _sizes(graph)
    there = _kept.get(key)
    for found in there or ():
        if found.fits(sizes.elements):
            return graph, found, sizes
    made = Skeleton(graph, family, precision)
    # Structures that sizes group in several ways are rare; two of them are kept.
    _kept.put(key, [made, *(there or ())][:2])
    return graph, made, sizes


def _structure(graph: Graph, family: str, precision: Precision | None) -> tuple[Any, ...]:
    """Everything about a graph but sizes and the names of its operators; equal for networks that differ in widths."""
    ops, edges = graph.ops, graph.edges
    weights = list(map(_WEIGHTS, ops))
    return (
        family,
        precision,
        graph.inputs,
        graph.outputs,
        tuple(map(_OP, ops)),
        tuple([g == 1 or (g == c) + 2 for g, c in zip(map(_GROUPS, ops), map(_CHANNELS, ops), strict=True)]),
        tuple(edges),
        tuple(map(_DTYPE, edges.values())),
        tuple(map(len, weights)),
        tuple(map(_WEIGHT, chain.from_iterable(weights))),
    )


def _asked(grouping: Grouping, number: dict[str, int]) -> tuple[Array, Array, NDArray[np.bool_]]:
    first = np.array([number[a] for a, _, _ in grouping.asked], np.int64)
    second = np.array([number[b] for _, b, _ in grouping.asked], np.int64)
    return first, second, np.array([same for _, _, same in grouping.asked], bool)


def _bits(graph: Graph, grouping: Grouping, precision: Precision | None) -> Array:
    floats = None if precision is None else 8 * PRECISION_BYTES[precision]
    found = [BITS.get(e.dtype, 32) if floats is None or e.dtype not in FLOATS else floats for e in graph.edges.values()]
    if grouping.coded or grouping.float_edges:
        for index, (name, edge) in enumerate(graph.edges.items()):
            if name in grouping.coded:
                found[index] = 8
            elif name in grouping.float_edges:
                found[index] = BITS.get(edge.dtype, 32)
    return np.array(found, np.int64)


def _once(grouping: Grouping, names: Iterable[str]) -> tuple[str, ...]:
    """The buffers of some edges, each once."""
    return tuple(dict.fromkeys([grouping.buffer(name) for name in names]))


def _stored(dtype: str, bias: bool, runs_in: Precision, asked: Precision | None) -> tuple[int, str]:
    """Bits of one element of a stored tensor, and its data type on the device."""
    if asked is None or dtype not in FLOATS:
        return BITS.get(dtype, 32), dtype
    if bias and runs_in == "int8":
        return 32, "int32"
    return 8 * PRECISION_BYTES[runs_in], DTYPES[runs_in]


def stored_idle(graph: Graph, precision: Precision | None, stored: dict[str, int]) -> int:
    """Add the bytes of tensors that are stored and not read to `stored`; their number of elements."""
    total = 0
    for weight in graph.idle:
        bits, kind = _stored(weight.dtype, weight.bias, precision or "fp32", precision)
        stored[kind] = stored.get(kind, 0) + (weight.elements * bits + 7) // 8
        total += weight.elements
    return total


_serials = count(1)
_numbers: dict[tuple[Any, ...], int] = {}


def _number(key: tuple[Any, ...]) -> int:
    """A number for a description, never given twice; descriptions are forgotten together once there are many."""
    found = _numbers.get(key)
    if found is None:
        if len(_numbers) >= KERNELS:
            _numbers.clear()
        found = _numbers.setdefault(key, next(_serials))
    return found


class Timer:
    """A target's latency model, asked once per distinct kernel."""

    def __init__(self, model: Model, hardware: Hardware) -> None:
        self.model = model
        self.hardware = hardware
        self._known: dict[tuple[Any, ...], tuple[float, str]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def times(self, graph: Graph, skeleton: Skeleton, signatures: Iterable[tuple[Any, ...]]) -> list[tuple[float, str]]:
        """Milliseconds of every kernel in one forward pass, and what bounds each."""
        known = self._known
        found = []
        for index, signature in enumerate(signatures):
            time = known.get(signature)
            if time is None:
                if len(known) >= KERNELS:
                    known.clear()
                time = known[signature] = self._time(skeleton.kernel(graph, index))
            found.append(time)
        return found

    def _time(self, kernel: Kernel) -> tuple[float, str]:
        return kernel_time(self.model, self.hardware, kernel)


def kernel_time(model: Model, hardware: Hardware, kernel: Kernel) -> tuple[float, str]:
    """Milliseconds of all runs of a kernel in one forward pass, and what bounds it."""
    if kernel.repeats <= 1:
        return model.kernel_ms(kernel, hardware, model.constants)
    once, bound = model.kernel_ms(kernel.once, hardware, model.constants)
    return once * kernel.repeats, bound


_timers: Kept[str, Timer] = Kept(TIMERS)


def timer(key: str, make: Callable[[], tuple[Model, Hardware]]) -> Timer:
    """The timer of a target; `key` says everything that its model depends on."""
    found = _timers.get(key)
    return found if found is not None else _timers.put(key, Timer(*make()))


def forget() -> None:
    """Drop everything that is kept."""
    _kept.clear()
    _timers.clear()
    _numbers.clear()


def kept() -> dict[str, int]:
    """How much is kept, and how often it was of use."""
    return {
        "structures": len(_kept),
        "structure_hits": _kept.hits,
        "structure_misses": _kept.misses,
        "kernels": sum(len(item) for item in _timers._values.values()),
    }
