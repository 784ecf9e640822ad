"""The numbers of many graphs, quickly: what is structure is worked out once, what is a size is an array.

A search costs thousands of candidates that differ in widths. `skeleton` works out grouping, buffers and dependencies
once per structure and keeps the last few; `Skeleton.work` then gives one graph's bytes and multiply-accumulates with a
few array operations. `Timer` asks the latency model once per distinct kernel. What is kept is bounded everywhere, and
nothing that a result depends on is left out of a key: keys hold the values themselves, not hashes of them.

`profiles.fuse` is the reference: the same numbers, kernel by kernel.
"""

import copy
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, count
from operator import attrgetter
from threading import RLock
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from profiles.cost import Precision
from profiles.fuse import PRECISION_BYTES, Fused, Kernel, folded_weights, int8_padding, kernel_kind
from profiles.graph import BITS, FLOATS, Graph, Kind, Op
from profiles.grouping import Group, Grouping, group, prepared
from profiles.latency.models import Model
from profiles.liveness import Program
from profiles.target import Hardware, Target

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
        self._lock = RLock()  # a value that goes may let others go

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

    def drop(self, key: K, where: Callable[[V], bool]) -> None:
        """Let a value go if it is the one that is meant."""
        with self._lock:
            value = self._values.get(key)
            if value is not None and where(value):
                del self._values[key]

    def clear(self) -> None:
        """Forget everything, the statistics as well."""
        with self._lock:
            self._values.clear()
            self.hits = self.misses = 0


class Key:
    """A tuple with its hash worked out once: long ones are asked for several times."""

    __slots__ = ("_hash", "parts")

    def __init__(self, parts: tuple[Any, ...]) -> None:
        self.parts = parts
        self._hash = hash(parts)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self._hash == other._hash and self.parts == other.parts


class _Sums:
    """Sums over runs of an index list: one result per kernel."""

    def __init__(self, lengths: list[int], index: list[int]) -> None:
        self.index = np.array(index, np.int64)
        # Where every list has one element, there is nothing to add.
        self.single = lengths.count(1) == len(lengths)
        if self.single:
            self.starts = np.arange(len(lengths))
            self.ends = self.starts + 1
        else:
            self.ends = np.array(list(accumulate(lengths)), np.int64)
            self.starts = self.ends - np.array(lengths, np.int64)

    def of(self, values: Array) -> Array:
        return self.over(values[self.index])

    def over(self, taken: Array) -> Array:
        """The same, of values that were taken from their array already."""
        if self.single:
            return taken
        total = np.zeros(len(taken) + 1, np.int64)
        np.cumsum(taken, out=total[1:])
        found: Array = total[self.ends] - total[self.starts]
        return found


class _Stored(NamedTuple):
    """What a kernel stores, tensor by tensor; the same for all kernels whose operators have alike tensors."""

    places: list[tuple[int, int]]  # (which of the kernel's operators, which of its tensors)
    number: int  # of their data types, and which are biases
    codes: list[int]  # of (numbers stored per number of the graph, bits, data type, not stored for a kernel before)
    norms: list[int]  # which of the operators are batch normalisations


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


_CORE = attrgetter("depth", "channels", "groups", "window", "strides", "repeats")


class Skeleton:
    """A structure with everything about its kernels that sizes do not change."""

    def __init__(self, graph: Graph, structure: "_Structure") -> None:
        family, precision = self.family, self.precision = structure.family, structure.precision
        self.serial = next(_serials)  # in place of the structure in keys of results
        grouping = self.grouping = group(graph, family, precision)
        ops, edges = graph.ops, graph.edges
        groups = grouping.groups
        number = dict(zip(edges, range(len(edges)), strict=True))
        place = number.__getitem__
        self.asked = _asked(grouping, number)
        self.bits = _bits(graph, structure.dtypes, grouping, precision)
        self.cores = [item.core for item in groups]
        cores = [ops[index] for index in self.cores]
        self.precisions = _precisions(graph, grouping, cores, family, precision)
        self.kinds = kinds = [kernel_kind(core) for core in cores]
        names = structure.operators
        self.operators = [tuple([names[index] for index in item.ops]) for item in groups]
        self.reads = _Sums(
            [len(item.reads) for item in groups], list(map(place, chain.from_iterable([item.reads for item in groups])))
        )
        self.writes = _Sums(
            [len(item.ends_at) for item in groups],
            list(map(place, chain.from_iterable([item.ends_at for item in groups]))),
        )
        self.vector = _Sums(
            [len(item.vector) for item in groups],
            [place(ops[index].outputs[0]) for item in groups for index in item.vector],
        )
        self.counted = _Sums(
            [len(item.counted) for item in groups], list(chain.from_iterable([item.counted for item in groups]))
        )
        # A slice or a gather reads what it writes, not the whole source.
        self.copies = copies = [index for index, core in enumerate(cores) if core.kind == "copy"]
        self.copy_made = _Sums(
            [len(cores[k].outputs) for k in copies], [place(name) for k in copies for name in cores[k].outputs]
        )
        self.copy_reads = _Sums(
            [len(groups[k].reads) for k in copies], [place(name) for k in copies for name in groups[k].reads]
        )
        self.first_out = [place(item.ends_at[0]) for item in groups]
        self.first_in = [place(core.inputs[0]) if core.inputs else -1 for core in cores]
        self._weigh(graph, structure, groups)
        self.read_names: list[tuple[str, ...]] = []
        self.written_names: list[tuple[str, ...]] = []
        in_place: list[bool] = []
        self.elementwise: list[bool] = []
        self.numbers = []  # what a latency model sees of each kernel beside sizes, as one number
        moving = {index for index, kind in enumerate(structure.kinds) if kind == "copy"}
        kept = _numbers.get
        for item, kind, fused, precision_, core, stored in zip(
            groups, kinds, self.operators, self.precisions, cores, self.described, strict=True
        ):
            read, written = item.reads, item.ends_at
            if grouping.parts:
                read, written = _once(grouping, read), _once(grouping, written)
            whole = not moving or moving.isdisjoint(item.ops)
            self.elementwise.append(whole)
            moves = not whole and len(item.ops) > 1
            self.read_names.append(read)
            self.written_names.append(written)
            in_place.append(kind == "pointwise" and not moves)
            key = (family, kind, fused, precision_, core.int8, len(read), len(written), moves, stored)
            known = kept(key)
            self.numbers.append(_number(key) if known is None else known)
        inputs, outputs = _once(grouping, graph.inputs), _once(grouping, graph.outputs)
        self.program = Program.of(self.read_names, self.written_names, in_place, inputs, outputs, inputs)
        self.buffers = np.array(list(map(place, self.program.names)), np.int64)

    def _weigh(self, graph: Graph, structure: "_Structure", groups: Sequence[Group]) -> None:
        """The stored tensors of each kernel once batch normalisation has become a scale of the weights and a bias."""
        ops = graph.ops
        ends = list(accumulate(structure.weights))
        offsets = [0, *ends][:-1]  # none for a graph without operators
        dtypes, biases = structure.weight_dtypes, structure.biases
        plain = len(set(dtypes)) < 2 and True not in biases
        patterns = [  # equal for operators whose stored tensors are alike
            None
            if first == end
            else (kind == "batchnorm", end - first)
            if plain
            else (kind == "batchnorm", *dtypes[first:end], *biases[first:end])
            for kind, first, end in zip(structure.kinds, offsets, ends, strict=True)
        ]
        shared = structure.shared is not None
        seen: set[str] = set()
        alike: dict[tuple[Any, ...], _Stored] = {}
        lengths: list[int] = []
        listed: list[int] = []
        described: list[int] = []
        table: dict[tuple[int, int, str, bool], int] = {}
        codes: list[int] = []
        norms: list[int] = []
        norm_ends: list[int] = []
        for item, runs_in in zip(groups, self.precisions, strict=True):
            members = item.ops
            fold = -1 if item.folded < 0 else members.index(item.folded)
            key = (runs_in, fold, *[patterns[index] for index in members])
            found = alike.get(key)
            if found is None:
                found = _kernel_weights(ops, item, runs_in, self.precision, seen if shared else set(), table)
                if not shared:
                    alike[key] = found
            lengths.append(len(found.places))
            for member, place in found.places:
                listed.append(offsets[members[member]] + place)
            described.append(found.number)
            codes += found.codes
            for member in found.norms:
                at = members[member]
                norms.append(offsets[at])
                norm_ends.append(ends[at])
        self.weights = _Sums(lengths, listed)
        kinds = sorted({kind for _, _, kind, _ in table})
        rows = [(factor, bits, fresh, kinds.index(kind)) for factor, bits, kind, fresh in table]
        columns = np.array(rows, np.int64).reshape(-1, 4)[np.array(codes, np.int64)].T
        self.weight_factors, self.weight_bits = columns[0], columns[1]
        self.fresh = columns[2] == 1
        self.stored_as = {kind: (columns[3] == number) & self.fresh for number, kind in enumerate(kinds)}
        self.described = described
        self.norms = np.array(norms, np.int64)
        ends_of = np.array(norm_ends, np.int64)
        counts = ends_of - self.norms
        self.norm_starts = np.cumsum(counts) - counts
        within = np.arange(int(counts.sum())) - np.repeat(self.norm_starts, counts)
        self.norm_members = np.repeat(self.norms, counts) + within

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
            counts[self.norms] = np.maximum.reduceat(counts[self.norm_members], self.norm_starts)
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

    def kernel(self, graph: Graph, index: int, work: Work) -> Kernel:
        """One kernel of a graph of this structure, as `profiles.fuse` makes it, from the numbers that are there."""
        item = self.grouping.groups[index]
        core, signature = graph.ops[item.core], work.signatures[index]
        precision = self.precisions[index]
        return Kernel(
            name=core.name,
            kind=self.kinds[index],
            operators=self.operators[index],
            macs=work.macs[index],
            depth=core.depth,
            channels=core.channels,
            elements=signature[2],
            weights=folded_weights(graph.ops, item),
            reads=self.read_names[index],
            writes=self.written_names[index],
            read_bytes=work.read_bytes[index],
            written_bytes=work.written_bytes[index],
            weight_bytes=work.weight_bytes[index],
            precision=precision,
            vector_elements=signature[6],
            groups=core.groups,
            window=core.window,
            strides=core.strides,
            shape=signature[8],
            source=signature[9],
            repeats=core.repeats,
            coded=core.int8,
            elementwise=self.elementwise[index],
            padding=int8_padding(core) if precision == "int8" and self.family == "nvidia-gpu" else 1.0,
        )


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
            *_columns(graph.ops),
        )


def _columns(ops: Sequence[Op]) -> tuple[tuple[Any, ...], ...]:
    """What `_CORE` says of each operator, field by field: faster to make and to keep than a tuple per operator."""
    return (
        tuple([op.depth for op in ops]),
        tuple([op.channels for op in ops]),
        tuple([op.groups for op in ops]),
        tuple([op.window for op in ops]),
        tuple([op.strides for op in ops]),
    )


def _sizes(graph: Graph) -> Sizes:
    edges = graph.edges.values()
    return Sizes(
        np.array([item.elements for item in edges], np.int64),
        [item.shape for item in edges],
        np.array([op.macs for op in graph.ops], np.int64),
        np.array([weight.elements for op in graph.ops for weight in op.weights], np.int64),
    )


_kept: Kept[Key, list[Skeleton]] = Kept(SKELETONS)


def skeleton(graph: Graph, family: str, precision: Precision | None) -> tuple[Graph, Skeleton, Sizes]:
    """The graph as the family's runtime sees it, its structure, and its numbers."""
    graph = prepared(graph, family)
    structure = _structure(graph, family, precision)
    key = Key(structure)
    sizes = _sizes(graph)
    there = _kept.get(key)
    for found in there or ():
        if found.fits(sizes.elements):
            return graph, found, sizes
    made = Skeleton(graph, structure)
    # Structures that sizes group in several ways are rare; two of them are kept.
    _kept.put(key, [made, *(there or ())][:2])
    return graph, made, sizes


class _Structure(NamedTuple):
    """Everything about a graph but sizes and the names of its operators; equal for networks that differ in widths."""

    family: str
    precision: Precision | None
    given: tuple[str, ...]
    results: tuple[str, ...]
    operators: tuple[str, ...]
    kinds: tuple[Kind, ...]
    inputs: tuple[tuple[str, ...], ...]
    outputs: tuple[tuple[str, ...], ...]
    int8: tuple[bool, ...]
    repeats: tuple[int, ...]
    grouped: tuple[int, ...]  # 1: in one group, 3: a group per channel, 2: in between
    edges: tuple[str, ...]
    dtypes: tuple[str, ...]
    weights: tuple[int, ...]  # of each operator
    weight_dtypes: tuple[str, ...]
    biases: tuple[bool, ...]
    shared: tuple[str, ...] | None  # names of all weights, where one is read twice


def _structure(graph: Graph, family: str, precision: Precision | None) -> _Structure:
    ops, edges = graph.ops, graph.edges
    weights = [weight for op in ops for weight in op.weights]
    names = [weight.name for weight in weights]
    return _Structure(
        family,
        precision,
        graph.inputs,
        graph.outputs,
        tuple([op.operator for op in ops]),
        tuple([op.kind for op in ops]),
        tuple([op.inputs for op in ops]),
        tuple([op.outputs for op in ops]),
        tuple([op.int8 for op in ops]),
        tuple([op.repeats for op in ops]),
        tuple([1 if op.groups == 1 else 3 if op.groups == op.channels else 2 for op in ops]),
        tuple(edges),
        tuple([item.dtype for item in edges.values()]),
        tuple([len(op.weights) for op in ops]),
        tuple([weight.dtype for weight in weights]),
        tuple([weight.bias for weight in weights]),
        None if len(set(names)) == len(names) else tuple(names),
    )


def _asked(grouping: Grouping, number: dict[str, int]) -> tuple[Array, Array, NDArray[np.bool_]]:
    first, second, same = grouping.asked
    place = number.__getitem__
    return (
        np.array(list(map(place, first)), np.int64),
        np.array(list(map(place, second)), np.int64),
        np.array(same, bool),
    )


def _precisions(
    graph: Graph, grouping: Grouping, cores: Sequence[Op], family: str, asked: Precision | None
) -> list[Precision]:
    """The number format that each kernel computes in."""
    runs_in = Fused(graph, grouping, family, asked).runs_in
    if asked is None or grouping.float_ops:
        return [runs_in(item) for item in grouping.groups]
    found: dict[Kind, Precision] = {}  # then the kind of its core says it
    for item, core in zip(grouping.groups, cores, strict=True):
        if core.kind not in found:
            found[core.kind] = runs_in(item)
    return [found[core.kind] for core in cores]


def _bits(graph: Graph, dtypes: Sequence[str], grouping: Grouping, precision: Precision | None) -> Array:
    floats = None if precision is None else 8 * PRECISION_BYTES[precision]
    size = {name: BITS.get(name, 32) if floats is None or name not in FLOATS else floats for name in set(dtypes)}
    found = [size[name] for name in dtypes]
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


def _kernel_weights(
    ops: Sequence[Op],
    item: Group,
    runs_in: Precision,
    asked: Precision | None,
    seen: set[str],
    table: dict[tuple[int, int, str, bool], int],
) -> _Stored:
    """The stored tensors of one kernel.

    Args:
        seen: names of those that were met; its own are added.
        table: what a code says -> the code; new ones are added.
    """
    places: list[tuple[int, int]] = []
    told: list[tuple[str, bool]] = []
    factors: list[int] = []
    fresh: list[bool] = []
    norms: list[int] = []
    named: set[str] = set()
    biased = False
    for member, index in enumerate(item.ops):
        op = ops[index]
        if not op.weights:
            continue
        if op.kind == "batchnorm":
            norms.append(member)
            if index == item.folded and biased:
                continue
            places.append((member, 0))
            told.append(("float32", True))
            factors.append(1 if index == item.folded else 2)
            fresh.append(True)
            biased = True
            continue
        for place, weight in enumerate(op.weights):
            new = weight.name not in seen
            if weight.name in named:
                continue  # twice in one kernel
            seen.add(weight.name)
            named.add(weight.name)
            places.append((member, place))
            told.append((weight.dtype, weight.bias))
            factors.append(1)
            fresh.append(new)
            biased = biased or weight.bias
    sizes = [_stored(dtype, bias, runs_in, asked) for dtype, bias in told]
    codes = [
        table.setdefault((factor, bits, kind, new), len(table))
        for factor, (bits, kind), new in zip(factors, sizes, fresh, strict=True)
    ]
    return _Stored(places, _number(tuple(told)), codes, norms)


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

    def times(self, graph: Graph, skeleton: Skeleton, work: Work) -> list[tuple[float, str]]:
        """Milliseconds of every kernel in one forward pass, and what bounds each."""
        known = self._known
        signatures = work.signatures
        found = list(map(known.get, signatures))
        if None not in found:
            return found  # type: ignore[return-value]
        times = []
        for index, time in enumerate(found):
            if time is None:
                if len(known) >= KERNELS:
                    known.clear()
                kernel = skeleton.kernel(graph, index, work)
                time = known[signatures[index]] = kernel_time(self.model, self.hardware, kernel)
            times.append(time)
        return times


def kernel_time(model: Model, hardware: Hardware, kernel: Kernel) -> tuple[float, str]:
    """Milliseconds of all runs of a kernel in one forward pass, and what bounds it."""
    if kernel.repeats <= 1:
        return model.kernel_ms(kernel, hardware, model.constants)
    once, bound = model.kernel_ms(kernel.once, hardware, model.constants)
    return once * kernel.repeats, bound


class Recent(Generic[V]):
    """What is known of the objects that were asked for last; it goes when they go, and holds none of them.

    An object is known by its identity. The tables in it could have been written to since, so that what is known counts
    only where they hold the very same values as then.
    """

    def __init__(self, limit: int) -> None:
        self._kept: Kept[int, tuple[weakref.ref[Any], tuple[Any, ...], V]] = Kept(limit)

    def get(self, item: object, tables: tuple[Any, ...]) -> V | None:
        """What is known of an object, or None.

        Args:
            tables: what in it can be written to.
        """
        found = self._kept.get(id(item))
        if found is None or found[0]() is not item or found[1] != tables:
            return None
        return found[2]

    def put(self, item: object, tables: tuple[Any, ...], value: V) -> V:
        """Keep what is known of an object; `tables` are copies."""
        number, kept = id(item), self._kept

        def gone(ref: "weakref.ref[Any]") -> None:
            kept.drop(number, lambda there: there[0] is ref)

        kept.put(number, (weakref.ref(item, gone), tables, value))
        return value

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


_devices: Recent[str] = Recent(TIMERS)


def device(target: Target) -> str:
    """Everything that a target says, as one key; its tables make itself unhashable."""
    hardware = target.hardware
    tables = (target.sources, hardware.tops, hardware.rate, target.latency, target.modes)
    found = _devices.get(target, tables)
    return found if found is not None else _devices.put(target, copy.deepcopy(tables), repr(target))


_timers: Kept[str, Timer] = Kept(TIMERS)


def timer(key: str, make: Callable[[], tuple[Model, Hardware]]) -> Timer:
    """The timer of a target; `key` says everything that its model depends on."""
    found = _timers.get(key)
    return found if found is not None else _timers.put(key, Timer(*make()))


def forget() -> None:
    """Drop everything that is kept."""
    _kept.clear()
    _timers.clear()
    _devices.clear()
    _numbers.clear()


def kept() -> dict[str, int]:
    """How much is kept, and how often it was of use."""
    return {
        "structures": len(_kept),
        "structure_hits": _kept.hits,
        "structure_misses": _kept.misses,
        "kernels": sum(len(item) for item in _timers._values.values()),
    }
