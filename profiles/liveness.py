"""Peak memory of activations: which tensors are needed at the same time, in the best order of execution.

Rules. A tensor counts from the kernel that writes it to the last one that reads it; graph inputs from the start, graph
outputs to the end; one that nobody reads counts while its kernel runs. A kernel needs its inputs and outputs together,
except that one which works element by element may write over an input that dies there and is at least as large. It may
not write over a graph output, nor over what the caller holds (`held`): TensorRT's bindings, onnxruntime's feeds and the
`const` arguments of generated C are the caller's. After its last read such an input is no longer counted, because the
network does not need it any more. Views share the buffer of what they show (see `profiles.fuse`).

Best order. Which tensors are alive depends only on the set of kernels that have run, so the smallest peak over all
topological orders is a bottleneck path from the empty set to the full one over the sets that are closed under
predecessors (B. H. Ahn et al., "Ordering Chaos: Memory-Aware Scheduling of Irregularly Wired Neural Networks for Edge
Devices", MLSys 2020, section 3). The problem is NP-hard in general; four observations keep it small here:

- where everything before a position precedes everything after it, the two sides are independent (ibid., divide and
  conquer; here at every such position, not only at single nodes);
- the given order is best where its peak equals what some kernel needs in any order;
- paths are explored from the smallest peak up, so the first complete one is best, and stopping early leaves a bound;
- a chain of kernels that fits under the peak reached so far and ends with no more memory than it began with can run at
  once without harm (the segments of J. W. H. Liu, "An application of generalized tree pebbling to sparse matrix
  factorization", SIAM J. Algebraic Discrete Methods 8(3), 1987).
"""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

BUDGET = 12_000  # kernels tried before the search ends with a bound; about a microsecond each
BEAM = 16  # orders that are followed side by side once the budget is spent
LONGEST = 4_096  # kernels between two cuts; longer spans keep their order, because sets of them take too much memory
LOOKS = 200_000  # kernels looked at for a bound that holds in any order
LIGHT = 4  # steps whose readiness is seen in the time that one takes to be tried
AROUND = 64  # kernels whose surroundings are kept

Array = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Step(Protocol):
    """What liveness asks of a kernel."""

    @property
    def reads(self) -> tuple[str, ...]: ...
    @property
    def writes(self) -> tuple[str, ...]: ...
    @property
    def in_place(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """An order of execution and the memory that it needs."""

    order: tuple[int, ...]  # indices into the steps as they were given
    peak_bytes: int
    at: int  # step (index as given) that needs the peak; -1: the inputs alone, before the first step
    live: tuple[str, ...]  # tensors at the peak; their sizes add up to peak_bytes. One written in place is not named
    lower_bound: int  # bytes; no order needs less
    given_bytes: int  # peak of the order in which the steps were given

    @property
    def exact(self) -> bool:
        """Whether no order needs less."""
        return self.peak_bytes == self.lower_bound

    @property
    def says(self) -> str:
        """How good the order is, in words."""
        if self.exact:
            return "best order"
        return f"at most {self.peak_bytes / self.lower_bound - 1:.1%} above the best order"


def peak_bytes(
    steps: Sequence[Step],
    sizes: Mapping[str, int],
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    held: Collection[str] = (),
) -> int:
    """The largest sum of sizes of tensors that are alive at once, in the order of the steps.

    Args:
        steps: in the order of execution.
        sizes: bytes per tensor.
        inputs: tensors that are there before the first step.
        outputs: tensors that must be there after the last.
        held: tensors that no step may write over.
    """
    return Program(steps, inputs, outputs, held).given(sizes).peak_bytes


def best_order(
    steps: Sequence[Step],
    sizes: Mapping[str, int],
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    held: Collection[str] = (),
    budget: int = BUDGET,
) -> Schedule:
    """An order of the steps with the smallest peak, or with a bound on how far it is from that.

    Args:
        steps: in an order that can be executed.
        sizes: bytes per tensor.
        inputs: tensors that are there before the first step.
        outputs: tensors that must be there after the last.
        held: tensors that no step may write over.
        budget: steps that may be tried before the search settles for a good order.
    """
    return Program(steps, inputs, outputs, held).best(sizes, budget)


class Program:
    """Steps with their dependencies, without sizes: one program serves every network of the same structure.

    A tensor may have several writers, each of a part of it. Reads and writes of one tensor keep their order, except
    that neighbouring writers may change places. Everything here grows with the number of steps and tensors; what grows
    faster is worked out for one span between two cuts at a time (`_Span`).
    """

    def __init__(
        self,
        steps: Sequence[Step],
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        held: Collection[str] = (),
    ) -> None:
        self._lay_out(
            [step.reads for step in steps],
            [step.writes for step in steps],
            [step.in_place for step in steps],
            inputs,
            outputs,
            held,
        )

    @classmethod
    def of(
        cls,
        reads: Sequence[tuple[str, ...]],
        writes: Sequence[tuple[str, ...]],
        in_place: Sequence[bool],
        inputs: Sequence[str],
        outputs: Sequence[str],
        held: Collection[str],
    ) -> "Program":
        """The same from one list per property of the steps."""
        program = cls.__new__(cls)
        program._lay_out(reads, writes, in_place, inputs, outputs, held)
        return program

    def _lay_out(
        self,
        all_reads: Sequence[tuple[str, ...]],
        all_writes: Sequence[tuple[str, ...]],
        in_place: Sequence[bool],
        inputs: Sequence[str],
        outputs: Sequence[str],
        held: Collection[str],
    ) -> None:
        index: dict[str, int] = {}
        for name in inputs:
            index.setdefault(name, len(index))
        self.started = len(index)  # tensors 0 to started - 1 are there before the first step
        for name in chain.from_iterable(all_writes):
            if name not in index:
                index[name] = len(index)
        self.names = tuple(index)
        self.reads = [
            (index[names[0]],) if len(names) == 1 and names[0] in index else _numbers(names, index)
            for names in all_reads
        ]
        self.writes = [(index[names[0]],) if len(names) == 1 else _numbers(names, index) for names in all_writes]
        self.in_place = [place and len(names) == 1 for place, names in zip(in_place, all_writes, strict=True)]
        self.kept = [False] * len(index)
        for name in outputs:
            if name in index:
                self.kept[index[name]] = True
        self.held = list(self.kept)
        for name in held:
            if name in index:
                self.held[index[name]] = True
        self._given = _Run(self, range(len(all_reads)))
        self._best: _Run | None = None  # the last best order; a good first guess for other sizes
        self._known: dict[int, tuple[Mask, Mask] | None] = {}

    @cached_property
    def before(self) -> list[tuple[int, ...]]:
        """Step -> the steps that it needs directly."""
        # Whether every tensor is written once, and no input is.
        if len(self.names) - self.started == sum(map(len, self.writes)):
            made = [-1] * len(self.names)
            found: list[tuple[int, ...]] = []
            for step, (reads, writes) in enumerate(zip(self.reads, self.writes, strict=True)):
                if len(reads) == 1:
                    maker = made[reads[0]]
                    found.append((maker,) if maker >= 0 else ())
                else:
                    found.append(tuple({made[tensor] for tensor in reads if made[tensor] >= 0}))
                for tensor in writes:
                    made[tensor] = step
            return found
        writers: list[set[int]] = [set() for _ in self.names]  # since the last read
        earlier: list[set[int]] = [set() for _ in self.names]  # what a writer has to wait for
        readers: list[set[int]] = [set() for _ in self.names]
        needed = []
        for step, (reads, writes) in enumerate(zip(self.reads, self.writes, strict=True)):
            wanted: set[int] = set()
            for tensor in reads:
                wanted |= writers[tensor] or earlier[tensor]
                readers[tensor].add(step)
            for tensor in writes:
                if readers[tensor]:
                    earlier[tensor] = (readers[tensor] | writers[tensor]) - {step}
                    readers[tensor], writers[tensor] = set(), set()
                wanted |= earlier[tensor]
                writers[tensor].add(step)
            needed.append(tuple(wanted))
        return needed

    @cached_property
    def reach(self) -> tuple[list[int], list[int]]:
        """Tensor -> the first and the last step that touch it; -1 where none does."""
        first, last = [-1] * len(self.names), [-1] * len(self.names)
        for step, touched in enumerate(zip(self.reads, self.writes, strict=True)):
            for tensor in chain.from_iterable(touched):
                last[tensor] = step
                if first[tensor] < 0:
                    first[tensor] = step
        return first, last

    @cached_property
    def after(self) -> list[tuple[int, ...]]:
        """Step -> the steps that need it directly."""
        found: list[list[int]] = [[] for _ in self.before]
        for step, direct in enumerate(self.before):
            for earlier in direct:
                found[earlier].append(step)
        return [tuple(item) for item in found]

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Positions p such that the first p steps precede all others, from 0 to the number of steps.

        They do where each step from p on that needs none of its own side needs every step before p that nobody on that
        side needs: such steps have no other way to each other. Step p - 1 is always among the latter.
        """
        before, after = self.before, self.after
        count = len(before)
        if not count:
            return (0,)
        last = [max(direct, default=-1) for direct in before]
        next_ = [min(direct, default=count) for direct in after]
        sinks, sources = [0] * (count + 2), [0] * (count + 2)  # differences from one position to the next
        for step in range(count):
            sinks[step + 1] += 1
            sinks[next_[step] + 1] -= 1
            sources[last[step] + 1] += 1
            sources[step + 1] -= 1
        found = [0]
        open_ends = waiting = 0
        for position in range(1, count):
            open_ends += sinks[position]
            waiting += sources[position] + (sources[0] if position == 1 else 0)
            starts = [step for step in after[position - 1] if last[step] == position - 1]
            if len(starts) != waiting:
                continue
            if open_ends == 1 or all(
                len(before[step]) >= open_ends and sum([next_[item] >= position for item in before[step]]) == open_ends
                for step in starts
            ):
                found.append(position)
        found.append(count)
        return tuple(found)

    def given(self, sizes: Mapping[str, int]) -> Schedule:
        """The order of the steps as they were given; its lower bound is that of its own peak."""
        return self._told(self._given, np.array([sizes[name] for name in self.names], np.int64), None, None)

    def best(self, sizes: Mapping[str, int], budget: int = BUDGET) -> Schedule:
        """An order with the smallest peak, or with a bound on how far it is from that."""
        size = np.array([sizes[name] for name in self.names], np.int64)
        order, _, floor, given = self._ordered(size, budget)
        return self._told(order, size, floor, given)

    def least(self, size: Array, budget: int = BUDGET) -> int:
        """The peak of the best order in bytes, and nothing else about it.

        Args:
            size: bytes of each tensor, in the order of `names`.
        """
        return self._ordered(size, budget)[1]

    def costs(self, order: Sequence[int], size: Array) -> tuple[Array, Array]:
        """Bytes needed while each step of an order runs, and bytes alive before each and at the end."""
        return _Run(self, order).costs(size)

    def _ordered(self, size: Array, budget: int) -> "tuple[_Run, int, int, int]":
        """An order, its peak, a bound on the peak of all orders, and the peak of the given one."""
        whole = self._given
        costs, lives = whole.costs(size)
        start = int(size[: self.started].sum())
        given = _peak(start, costs)
        floor = self._floor(costs, size, start, given)
        if floor == given:
            return whole, given, floor, given
        if self._best is not None:
            again = _peak(start, self._best.costs(size)[0])
            if again == floor:
                return self._best, again, floor, given
        order, floor = self._arranged(size, costs, lives, floor, budget)
        best = self._best = _Run(self, order)
        return best, _peak(start, best.costs(size)[0]), floor, given

    def needed(self, step: int, size: Array) -> int | None:
        """Bytes that are alive while this step runs, whatever the order; None where that is so for any sizes."""
        if step in self._known:
            around = self._known[step]
        else:
            around = self._around(step)
            if len(self._known) < AROUND:
                self._known[step] = around
        if around is None:
            return None
        there, later = around
        writes = list(self.writes[step])
        total = int(size[there].sum())
        new = int(size[writes].sum())
        if self.in_place[step]:
            for tensor in self.reads[step]:
                if size[tensor] >= new and not self.held[tensor] and not later[tensor] and tensor not in writes:
                    return total  # it may write over this one
        return total + new

    def _touched(self, step: int, size: Array) -> int:
        """Bytes of the tensors that a step reads or writes, which are alive while it runs unless it works in place."""
        if self.in_place[step]:
            return -1
        return sum([int(size[tensor]) for tensor in {*self.reads[step], *self.writes[step]}])

    def _around(self, step: int) -> tuple[Mask, Mask] | None:
        """Tensors that are there while a step runs in any order, beside its results, and those touched later.

        None: all steps before this one have to be, and all after it; then it needs the same in any order.
        """
        before, reads, writes = self.before, self.reads, self.writes
        count = len(before)
        earlier, later = bytearray(step + 1), bytearray(count)
        earlier[step] = later[step] = 1
        for other in range(step, -1, -1):
            if earlier[other]:
                for direct in before[other]:
                    earlier[direct] = 1
        for other in range(step + 1, count):
            for direct in before[other]:
                if later[direct]:
                    later[other] = 1
                    break
        if sum(earlier) + sum(later) == count + 1:
            return None
        made, wanted = np.zeros(len(self.names), bool), np.zeros(len(self.names), bool)
        made[: self.started] = True
        for mask, among in ((made, range(step)), (wanted, range(step + 1, count))):
            marks = earlier if mask is made else later
            found = [tensor for other in among if marks[other] for tensor in chain(reads[other], writes[other])]
            mask[found] = True
        needed = wanted | np.array(self.kept, bool)
        needed[list(reads[step])] = True
        needed &= made
        needed[list(writes[step])] = False
        return needed, wanted

    def _floor(self, costs: Array, size: Array, start: int, given: int) -> int:
        """Bytes that every order needs: the inputs, the outputs, and what single steps need in any order."""
        floor = max(start, int(size[self._given.outputs].sum()))
        if floor >= given:
            return given
        # In any order a step needs no more than in this one to be a bound; look at the most expensive first.
        work = LOOKS
        for step in np.argsort(-costs, kind="stable").tolist():
            cost = int(costs[step])
            if cost <= floor:
                break
            if cost == self._touched(step, size):
                return cost
            needed = self.needed(step, size)
            if needed is None:
                return cost
            floor = max(floor, needed)
            work -= len(costs)
            if work < 0:  # a bound all the same
                break
        return floor

    def _arranged(self, size: Array, costs: Array, lives: Array, floor: int, budget: int) -> tuple[list[int], int]:
        """The best order found, and a bound on all orders."""
        order = list(range(len(costs)))
        spans = [(first, end) for first, end in zip(self.cuts, self.cuts[1:], strict=False) if end - first > 1]
        # The span with the highest peak first: what it cannot avoid, no other span needs to avoid either.
        peaks = {span: int(costs[span[0] : span[1]].max()) for span in spans}
        spans.sort(key=peaks.__getitem__, reverse=True)
        for first, end in spans:
            ceiling = peaks[first, end]
            if ceiling <= floor or end - first > LONGEST:
                break
            span = _Span(self, size, first, end)
            search = _Search(span, budget)
            found, bound = search.best(int(lives[first]), int(lives[end]), floor, ceiling)
            floor = max(floor, bound)
            budget = max(budget - search.work, 0)
            if found is not None:
                order[first:end] = [first + step for step in found]
        return order, floor

    def _told(self, run: "_Run", size: Array, lower_bound: int | None, given: int | None) -> Schedule:
        costs, _ = run.costs(size)
        peak = int(size[: self.started].sum())
        at = -1
        if len(costs) and costs.max() > peak:
            at = int(costs.argmax())
            peak = int(costs[at])
        return Schedule(
            tuple(run.order),
            peak,
            run.order[at] if at >= 0 else -1,
            self._live(run.order, at, peak, size),
            peak if lower_bound is None else lower_bound,
            peak if given is None else given,
        )

    def _live(self, order: Sequence[int], at: int, peak: int, size: Array) -> tuple[str, ...]:
        if at < 0:
            return self.names[: self.started]
        step = order[at]
        done = {tensor for item in order[:at] for tensor in (*self.reads[item], *self.writes[item])}
        left = {tensor for item in order[at:] for tensor in (*self.reads[item], *self.writes[item])}
        there = [
            tensor
            for tensor in range(len(self.names))
            if (tensor < self.started or tensor in done) and (self.kept[tensor] or tensor in left)
        ]
        if sum(int(size[tensor]) for tensor in there) < peak:  # not in place
            there += [tensor for tensor in self.writes[step] if tensor not in there]
        return tuple(self.names[tensor] for tensor in there)


class _Run:
    """One order of a program's steps: which tensors come and go with each, whatever their sizes."""

    def __init__(self, program: Program, order: Sequence[int]) -> None:
        self.order = order
        started, kept, held = program.started, program.kept, program.held
        all_reads, all_writes, in_place = program.reads, program.writes, program.in_place
        last = [-1] * len(program.names)
        first = [-1] * len(program.names)
        for position, step in enumerate(order):
            for tensor in all_reads[step]:
                last[tensor] = position
                if first[tensor] < 0:
                    first[tensor] = position
            for tensor in all_writes[step]:
                last[tensor] = position
                if first[tensor] < 0:
                    first[tensor] = position
        self.steps = len(order)
        born = [(first[tensor], tensor) for tensor in range(started, len(last)) if first[tensor] >= 0]
        born = [pair for pair in born if pair[1] in all_writes[order[pair[0]]]]
        self.born = _Events([at for at, _ in born], [tensor for _, tensor in born])
        dying = [tensor for tensor, at in enumerate(last) if at >= 0 and not kept[tensor]]
        self.dying = _Events([last[tensor] for tensor in dying], dying)
        places: list[int] = []
        over: list[int] = []
        for position, step in enumerate(order):
            if in_place[step]:
                writes = all_writes[step]
                for tensor in all_reads[step]:
                    if last[tensor] == position and not held[tensor] and tensor not in writes:
                        places.append(position)
                        over.append(tensor)
        self.over = _Events(places, over)
        self.inputs = [tensor for tensor in range(started) if first[tensor] >= 0 or kept[tensor]]
        self.outputs = [tensor for tensor, keep in enumerate(kept) if keep]

    def costs(self, size: Array) -> tuple[Array, Array]:
        """Bytes needed while each step runs, and bytes alive before each and at the end."""
        new = self.born.sums(size, self.steps)
        lives = np.empty(self.steps + 1, np.int64)
        lives[0] = size[self.inputs].sum()
        np.cumsum(new - self.dying.sums(size, self.steps), out=lives[1:])
        lives[1:] += lives[0]
        over = self.over
        if len(over.at):
            # A step that works element by element writes over an input that dies there and is large enough.
            new[over.at[size[over.tensor] >= new[over.at]]] = 0
        return lives[:-1] + new, lives


class _Events:
    """Tensors that something happens to, each with its position in an order."""

    def __init__(self, at: Sequence[int], tensor: Sequence[int]) -> None:
        self.at, self.tensor = np.array(at, np.int64), np.array(tensor, np.int64)

    def sums(self, size: Array, steps: int) -> Array:
        """Bytes per position."""
        total = np.zeros(steps, np.int64)
        np.add.at(total, self.at, size[self.tensor])
        return total


def _peak(start: int, costs: Array) -> int:
    return max(start, int(costs.max())) if len(costs) else start


class _Span:
    """The steps between two cuts, numbered from 0, with sets of them as bits of a number.

    Tensors that steps outside touch are there from the start, or have to be there at the end.
    """

    def __init__(self, program: Program, size: Array, first: int, end: int) -> None:
        self.count = end - first
        reads, writes = program.reads[first:end], program.writes[first:end]
        used = list(dict.fromkeys(chain.from_iterable(chain.from_iterable((reads, writes)))))
        index = {tensor: number for number, tensor in enumerate(used)}
        self.size = size[used].tolist()
        earlier, later = program.reach[0], program.reach[1]
        self.started = [tensor < program.started or earlier[tensor] < first for tensor in used]
        self.kept = [program.kept[tensor] or later[tensor] >= end for tensor in used]
        self.held = [program.held[tensor] or later[tensor] >= end for tensor in used]
        self.reads = [tuple([index[tensor] for tensor in item]) for item in reads]
        self.writes = [tuple([index[tensor] for tensor in item]) for item in writes]
        self.touched = [tuple(dict.fromkeys((*r, *w))) for r, w in zip(self.reads, self.writes, strict=True)]
        self.in_place = program.in_place[first:end]
        self.access = [0] * len(used)  # bit i: step i reads or writes it
        self.reading = [0] * len(used)  # bit i: step i reads it
        for step in range(self.count):
            bit = 1 << step
            for tensor in self.touched[step]:
                self.access[tensor] |= bit
            for tensor in self.reads[step]:
                self.reading[tensor] |= bit
        # The steps that a step needs, and those that need it: directly, and as bits with all in between.
        direct = [[item - first for item in items if item >= first] for items in program.before[first:end]]
        after = [[item - first for item in items if item < end] for items in program.after[first:end]]
        for earlier_one, later_one in self._twins(direct, after):
            direct[later_one].append(earlier_one)
            after[earlier_one].append(later_one)
        self.after = [tuple(items) for items in after]
        self.before = [sum([1 << item for item in items]) for items in direct]
        self.ancestors = list(self.before)
        for step, items in enumerate(direct):  # a twin that goes first comes first in the given order as well
            for item in items:
                self.ancestors[step] |= self.ancestors[item]
        self.descendants = [0] * self.count
        for step in range(self.count - 1, -1, -1):
            for item in self.after[step]:
                self.descendants[step] |= self.descendants[item] | 1 << item

    def _twins(self, direct: list[list[int]], after: list[list[int]]) -> list[tuple[int, int]]:
        """Pairs of steps of which the first may go first without harm: the same steps of equal chains.

        Chains that can be exchanged without a change to anything else make as many equal orders as they have
        permutations. In one of the best orders each is never behind the next one.
        """
        known: dict[tuple[object, ...], list[int]] = {}
        pairs: list[tuple[int, int]] = []
        for start in range(self.count):
            alone = len(direct[start]) == 1 and len(after[direct[start][0]]) == 1
            if alone:
                continue  # inside of a chain
            chain_ = [start]
            while len(after[chain_[-1]]) == 1 and len(direct[after[chain_[-1]][0]]) == 1:
                chain_.append(after[chain_[-1]][0])
            told = self._described(chain_, direct, after)
            if told in known and all(a < b for a, b in zip(known[told], chain_, strict=True)):
                pairs += zip(known[told], chain_, strict=True)
            known[told] = chain_
        return pairs

    def _described(self, steps: list[int], direct: list[list[int]], after: list[list[int]]) -> tuple[object, ...]:
        """All that matters about a chain to its steps' memory and to the steps around it."""
        members = sum([1 << step for step in steps])
        numbers: dict[int, int] = {}
        told: list[object] = [tuple(sorted(direct[steps[0]])), tuple(sorted(after[steps[-1]]))]
        for step in steps:
            told.append((self.in_place[step], len(self.reads[step]), len(self.writes[step])))
            for tensor in (*self.reads[step], *self.writes[step]):
                access, reading = self.access[tensor], self.reading[tensor]
                if self.started[tensor] or access & ~reading & ~members or not access & ~reading & members:
                    told.append(tensor)  # the tensor of others
                    continue
                number = numbers.setdefault(tensor, len(numbers))
                told.append((number, self.size[tensor], self.kept[tensor], self.held[tensor], access & ~members))
        return tuple(told)

    def run(self, done: int, live: int, step: int) -> tuple[int, int]:
        """Bytes needed while a step runs, and bytes alive after it.

        Args:
            done: bits of the steps that have run.
            live: bytes alive after them.
        """
        size, access = self.size, self.access
        new = freed = 0
        writes = self.writes[step]
        for tensor in writes:
            if not access[tensor] & done and not self.started[tensor]:
                new += size[tensor]
        left = ~(done | 1 << step)
        for tensor in self.touched[step]:
            if not access[tensor] & left and not self.kept[tensor]:
                freed += size[tensor]
        cost = live + new
        if new and freed and self.in_place[step]:
            held = self.held
            for tensor in self.reads[step]:
                if size[tensor] >= new and not held[tensor] and not access[tensor] & left and tensor not in writes:
                    cost = live
                    break
        return cost, live + new - freed


_Path = tuple["_Path | None", tuple[int, ...]]  # what ran before, and what ran then
_State = tuple[int, int, "_Path | None"]  # bits of the steps that have run, bytes alive, how it was reached


class _Onwards:
    """Orders of a span's steps from the front: one more step runs."""

    def __init__(self, span: _Span) -> None:
        self.span = span
        self.start, self.goal = 0, (1 << span.count) - 1

    def steps(self, done: int) -> list[int]:
        """The steps that can run."""
        before, missing = self.span.before, self.goal & ~done
        return [s for s in _bits(missing) if not before[s] & missing]

    def move(self, done: int, live: int, step: int) -> tuple[int, int, int]:
        """Bytes that the move needs, bytes alive and bits of the steps that have run after it."""
        cost, live = self.span.run(done, live, step)
        return cost, live, done | 1 << step

    def following(self, done: int, step: int) -> list[int]:
        """The steps that can run because `step`, the last of `done`, has."""
        before, missing = self.span.before, ~done
        return [s for s in self.span.after[step] if not before[s] & missing]

    def safe(self, done: int, block: Sequence[int]) -> bool:
        """Whether a chain may run at once where it gives back as much memory as it takes.

        Only its end lies as low as its start. Then every rest of the chain gives memory back, wherever the chain was
        interrupted, so that moving it here raises the memory of no step in between: none of them reads what it makes,
        and what it frees here it frees there too.
        """
        return True


class _Backwards:
    """The same orders from their end: the last step is taken back."""

    def __init__(self, span: _Span) -> None:
        self.span = span
        self.start, self.goal = (1 << span.count) - 1, 0

    def steps(self, done: int) -> list[int]:
        """The steps that can have been the last."""
        descendants = self.span.descendants
        return [s for s in _bits(done) if not descendants[s] & done]

    def move(self, done: int, live: int, step: int) -> tuple[int, int, int]:
        """Bytes that the step needed, bytes alive and bits of the steps that had run before it."""
        done &= ~(1 << step)
        cost, change = self.span.run(done, 0, step)
        return cost + live - change, live - change, done

    def following(self, done: int, step: int) -> list[int]:
        """The steps that can have been the last because `step`, which is no longer in `done`, came later."""
        descendants = self.span.descendants
        return [s for s in _bits(self.span.before[step]) if not descendants[s] & done]

    def safe(self, done: int, block: Sequence[int]) -> bool:
        """Whether a chain may be put at the end where less is alive before it than after it.

        Another step may have to give up writing over what the chain reads, or find a tensor not there yet that the
        chain writes a part of; such chains stay where they are.
        """
        span = self.span
        members = sum(1 << step for step in block)
        for step in block:
            if any(span.access[tensor] & done & ~span.reading[tensor] for tensor in span.writes[step]):
                return False
            for tensor in span.reads[step]:
                others = span.reading[tensor] & done & ~members & ~span.ancestors[step]
                if any(span.in_place[other] for other in _bits(others)):
                    return False
        return True


class _Front:
    """The sets of executed steps that can be reached from one side with a peak, and those that need more."""

    def __init__(self, side: "_Onwards | _Backwards", live: int, ceiling: int) -> None:
        self.side = side
        self.ceiling = ceiling  # nothing that needs as much is of use
        self.stack: list[_State] = [(side.start, live, None)]
        self.later: list[tuple[int, int, int, int, int, _Path | None]] = []
        self.seen: set[int] = set()
        self.work = 0  # steps tried
        self.look_up = 1 + side.span.count // LIGHT  # what a look for the steps that can run counts

    def least(self) -> int:
        """What has to be allowed to get on; the ceiling where there is no way under it."""
        return self.later[0][0] if self.later else self.ceiling

    def allow(self, peak: int) -> None:
        """Take up the sets that `peak` bytes are enough for."""
        while self.later and self.later[0][0] <= peak:
            _, live, _, done, step, path = heapq.heappop(self.later)
            if done not in self.seen:
                self.stack.append((done, live, (path, (step,))))

    def look(self, peak: int) -> "_Path | None":
        """Take one set and note what can be reached from it; how the goal was reached, once it is."""
        side = self.side
        done, live, path = self._advanced(*self.stack.pop(), peak)
        if done == side.goal:
            return path
        if done in self.seen:
            return None
        self.seen.add(done)
        near = []
        ready = side.steps(done)
        self.work += len(ready) + self.look_up
        for step in ready:
            cost, then, after = side.move(done, live, step)
            if after in self.seen:
                continue
            if cost <= peak:
                near.append((then, step, after))
            elif cost < self.ceiling:
                heapq.heappush(self.later, (cost, then, len(self.seen), after, step, path))
        near.sort(reverse=True)  # the one that leaves the least comes first off the stack
        self.stack += [(after, then, (path, (step,))) for then, step, after in near]
        return None

    def _advanced(self, done: int, live: int, path: _Path | None, peak: int) -> _State:
        """Run every chain that fits under the peak and gives back as much memory as it takes, or more."""
        moved = True
        while moved:
            moved = False
            self.work += self.look_up
            for step in self.side.steps(done):
                block = self._chain(done, live, step, peak)
                if block:
                    for item in block:
                        _, live, done = self.side.move(done, live, item)
                    path, moved = (path, tuple(block)), True
                    break
        return done, live, path

    def _chain(self, done: int, live: int, step: int, peak: int) -> list[int]:
        """A chain from `step`, each next one because of the last, whose end alone has at most `live` bytes; or none."""
        side = self.side
        block: list[int] = []
        now = live
        while True:
            cost, now, done = side.move(done, now, step)
            self.work += 1
            if cost > peak:
                return []
            block.append(step)
            if now <= live:
                return block if side.safe(done, block) else []
            following = side.following(done, step)
            if not following:
                return []
            step = following[0]
            if len(following) > 1:
                self.work += len(following)
                step = min((side.move(done, now, item)[1], item) for item in following)[1]


@dataclass
class _Search:
    """The best order of the steps of a span."""

    span: _Span
    budget: int
    work: int = 0

    def best(self, live: int, after: int, floor: int, ceiling: int) -> tuple[list[int] | None, int]:
        """The order with the smallest peak, or the best one found, and a bound on the peak of all orders.

        Both ends are searched in turn, each until the other has come through or nothing is left under the peak
        allowed so far: that is often seen at one end long before the other.

        Args:
            live, after: bytes alive before and after these steps.
            floor: a bound that is known.
            ceiling: peak of the given order.

        Returns:
            None for the order where none was found that needs less than `ceiling`; the bound is at most `ceiling`.
        """
        deep, least = self._depth_first(live)
        if least < ceiling:
            ceiling = max(least, floor)
            if ceiling == floor:
                return deep, floor
        else:
            deep = None
        onwards = _Front(_Onwards(self.span), live, ceiling)
        backwards = _Front(_Backwards(self.span), after, ceiling)
        peak = floor
        while peak < ceiling:
            for front in (onwards, backwards):
                if not front.stack:
                    peak = max(peak, front.least())
                    onwards.allow(peak)
                    backwards.allow(peak)
                    break
                path = front.look(peak)
                if path is not None:
                    steps = _steps(path)
                    return steps if front is onwards else steps[::-1], peak
            self.work = onwards.work + backwards.work
            if self.work > self.budget:
                return self._beam(live, ceiling) or deep, peak
        return deep, ceiling

    def _depth_first(self, live: int) -> tuple[list[int] | None, int]:
        """The order that stays in a branch as long as it can, and its peak."""
        side = _Onwards(self.span)
        done = side.start
        order: list[int] = []
        highest = 0
        waiting = side.steps(done)[::-1]
        while waiting:
            step = waiting.pop()
            cost, live, done = side.move(done, live, step)
            highest = max(highest, cost)
            order.append(step)
            waiting += sorted(side.following(done, step), reverse=True)
        return order, highest

    def _beam(self, live: int, ceiling: int) -> list[int] | None:
        """An order by beam search: after every step the few sets with the smallest peak, then the least memory.

        Where many steps can run at once, fewer orders are followed and fewer steps tried, so that it ends in time.
        """
        side = _Onwards(self.span)
        tries = max(BUDGET // (2 * self.span.count), 1)  # at each position
        front: list[tuple[int, int, int, tuple[int, ...], _Path | None]] = [
            (0, live, side.start, tuple(side.steps(side.start)), None)
        ]
        for _ in range(self.span.count):
            reached: dict[int, tuple[int, int, int, tuple[int, ...], int, _Path | None]] = {}
            left = tries
            for peak, before, done, ready, path in front:
                for step in ready[: max(left, 1)]:
                    cost, then, after = side.move(done, before, step)
                    highest = max(peak, cost)
                    if after not in reached or highest < reached[after][0]:
                        reached[after] = (highest, then, after, ready, step, path)
                left -= len(ready)
                if left <= 0:
                    break
            best = sorted(reached.values(), key=_least)[:BEAM]
            front = []
            for peak, then, after, ready, step, path in best:
                others = (*[item for item in ready if item != step], *side.following(after, step))
                front.append((peak, then, after, others, (path, (step,))))
        peak, _, _, _, path = front[0]
        return _steps(path) if peak < ceiling else None


def _least(state: tuple[int, int, int, tuple[int, ...], int, "_Path | None"]) -> tuple[int, int]:
    return state[:2]


def _steps(path: _Path | None) -> list[int]:
    found: list[int] = []
    while path is not None:
        path, block = path
        found.extend(reversed(block))
    found.reverse()
    return found


def _numbers(names: Iterable[str], index: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys([index[name] for name in names if name in index]))


def _bits(mask: int) -> Iterable[int]:
    """Positions of the ones of a number."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
