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
from typing import Protocol

BUDGET = 20_000  # sets of executed kernels looked at before the search ends with a bound
BEAM = 16  # orders that are followed side by side once the budget is spent


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
        budget: sets of executed steps that may be looked at.
    """
    return Program(steps, inputs, outputs, held).best(sizes, budget)


class Program:
    """Steps with their dependencies, without sizes: one program serves every network of the same structure.

    A tensor may have several writers, each of a part of it. Reads and writes of one tensor keep their order, except
    that neighbouring writers may change places.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        inputs: Sequence[str] = (),
        outputs: Sequence[str] = (),
        held: Collection[str] = (),
    ) -> None:
        index: dict[str, int] = {}
        for name in inputs:
            index.setdefault(name, len(index))
        self.started = len(index)  # tensors 0 to started - 1 are there before the first step
        for step in steps:
            for name in step.writes:
                index.setdefault(name, len(index))
        self.names = tuple(index)
        # Whether every tensor is written once, and no input is.
        self.single = len(index) - self.started == sum([len(step.writes) for step in steps])
        self.reads = [_numbers(step.reads, index) for step in steps]
        self.writes = [_numbers(step.writes, index) for step in steps]
        self.touched = [
            reads + tuple([tensor for tensor in writes if tensor not in reads])
            for reads, writes in zip(self.reads, self.writes, strict=True)
        ]
        self.in_place = [step.in_place and len(writes) == 1 for step, writes in zip(steps, self.writes, strict=True)]
        self.kept = [False] * len(index)
        for name in outputs:
            if name in index:
                self.kept[index[name]] = True
        self.held = list(self.kept)
        for name in held:
            if name in index:
                self.held[index[name]] = True
        self.access = [0] * len(index)  # bit i: step i reads or writes it
        self.reading = [0] * len(index)  # bit i: step i reads it
        bit = 1
        for reads, touched in zip(self.reads, self.touched, strict=True):
            for tensor in touched:
                self.access[tensor] |= bit
            for tensor in reads:
                self.reading[tensor] |= bit
            bit <<= 1
        self._known: dict[int, tuple[int, int]] = {}
        self._best: tuple[int, ...] | None = None  # the last best order; a good first guess for other sizes

    @cached_property
    def before(self) -> list[int]:
        """Step -> bits of the steps that it needs directly."""
        bit = 1
        if self.single:
            made = [0] * len(self.names)
            found = []
            for reads, writes in zip(self.reads, self.writes, strict=True):
                wanted = 0
                for tensor in reads:
                    wanted |= made[tensor]
                for tensor in writes:
                    made[tensor] = bit
                found.append(wanted)
                bit <<= 1
            return found
        writers = [0] * len(self.names)  # since the last read
        earlier = [0] * len(self.names)  # what a writer has to wait for
        readers = [0] * len(self.names)
        needed = []
        for reads, writes in zip(self.reads, self.writes, strict=True):
            wanted = 0
            for tensor in reads:
                wanted |= writers[tensor] | (0 if writers[tensor] else earlier[tensor])
                readers[tensor] |= bit
            for tensor in writes:
                if readers[tensor]:
                    earlier[tensor] = (readers[tensor] | writers[tensor]) & ~bit
                    readers[tensor] = writers[tensor] = 0
                wanted |= earlier[tensor]
                writers[tensor] |= bit
            needed.append(wanted)
            bit <<= 1
        return needed

    @cached_property
    def ancestors(self) -> list[int]:
        """Step -> bits of all steps that have to run before it."""
        found: list[int] = []
        for direct in self.before:
            whole = direct
            for step in _bits(direct):
                whole |= found[step]
            found.append(whole)
        return found

    @cached_property
    def after(self) -> list[tuple[int, ...]]:
        """Step -> the steps that need it directly."""
        found: list[list[int]] = [[] for _ in self.before]
        for step, direct in enumerate(self.before):
            for earlier in _bits(direct):
                found[earlier].append(step)
        return [tuple(item) for item in found]

    @cached_property
    def descendants(self) -> list[int]:
        """Step -> bits of all steps that have to run after it."""
        found = [0] * len(self.before)
        for step in range(len(found) - 1, -1, -1):
            for later in self.after[step]:
                found[step] |= found[later] | 1 << later
        return found

    @cached_property
    def cuts(self) -> tuple[int, ...]:
        """Positions p such that the first p steps precede all others, from 0 to the number of steps."""
        count = len(self.before)
        everything = (1 << count) - 1
        common = everything
        found = [count]
        for position in range(count - 1, 0, -1):
            common &= self.ancestors[position]
            low = (1 << position) - 1
            if common & low == low:
                found.append(position)
        return tuple(reversed([*found, 0])) if count else (0,)

    def given(self, sizes: Mapping[str, int]) -> Schedule:
        """The order of the steps as they were given; its lower bound is that of its own peak."""
        return self._told(range(len(self.reads)), [sizes[name] for name in self.names], None, None)

    def best(self, sizes: Mapping[str, int], budget: int = BUDGET) -> Schedule:
        """An order with the smallest peak, or with a bound on how far it is from that."""
        size = [sizes[name] for name in self.names]
        order, _, floor, given = self._ordered(size, budget)
        return self._told(order, size, floor, given)

    def least(self, size: Sequence[int], budget: int = BUDGET) -> int:
        """The peak of the best order in bytes, and nothing else about it.

        Args:
            size: bytes of each tensor, in the order of `names`.
        """
        return self._ordered(size, budget)[1]

    def _ordered(self, size: Sequence[int], budget: int) -> tuple[Sequence[int], int, int, int]:
        """An order, its peak, a bound on the peak of all orders, and the peak of the given one."""
        whole: Sequence[int] = range(len(self.reads))
        costs, lives = self.costs(whole, size)
        start = sum(size[: self.started])
        given = max(start, max(costs, default=0))
        floor = self._floor(costs, size)
        if floor == given:
            return whole, given, floor, given
        if self._best is not None:
            again = max(start, max(self.costs(self._best, size)[0]))
            if again == floor:
                return self._best, again, floor, given
        order, floor = self._arranged(size, costs, lives, floor, budget)
        self._best = tuple(order)
        return order, max(start, max(self.costs(order, size)[0])), floor, given

    def costs(self, order: Iterable[int], size: Sequence[int]) -> tuple[list[int], list[int]]:
        """Bytes needed while each step of an order runs, and bytes alive before each and at the end."""
        live = sum(size[tensor] for tensor in range(self.started) if self.access[tensor] or self.kept[tensor])
        done = 0
        needed, lives = [], [live]
        for step in order:
            cost, live = self.run(done, live, step, size)
            done |= 1 << step
            needed.append(cost)
            lives.append(live)
        return needed, lives

    def run(self, done: int, live: int, step: int, size: Sequence[int]) -> tuple[int, int]:
        """Bytes needed while a step runs, and bytes alive after it.

        Args:
            done: bits of the steps that have run.
            live: bytes alive after them.
        """
        access, kept, started = self.access, self.kept, self.started
        new = freed = 0
        writes = self.writes[step]
        for tensor in writes:
            if tensor >= started and not access[tensor] & done:
                new += size[tensor]
        left = ~(done | 1 << step)
        for tensor in self.touched[step]:
            if not kept[tensor] and not access[tensor] & left:
                freed += size[tensor]
        cost = live + new
        if new and freed and self.in_place[step]:
            held = self.held
            for tensor in self.reads[step]:
                if size[tensor] >= new and not held[tensor] and not access[tensor] & left and tensor not in writes:
                    cost = live
                    break
        return cost, live + new - freed

    def needed(self, step: int, size: Sequence[int]) -> int:
        """Bytes that are alive while this step runs, whatever the order."""
        earlier, later = self._around(step)
        later |= 1 << step
        access, kept, started = self.access, self.kept, self.started
        writes = self.writes[step]
        total = 0
        for tensor, touched in enumerate(access):
            if (tensor < started or touched & earlier) and (kept[tensor] or touched & later) and tensor not in writes:
                total += size[tensor]
        new = sum(size[tensor] for tensor in writes)
        if self.in_place[step]:
            later &= ~(1 << step)
            for tensor in self.reads[step]:
                if (
                    size[tensor] >= new
                    and not self.held[tensor]
                    and not access[tensor] & later
                    and tensor not in writes
                ):
                    return total  # it may write over this one
        return total + new

    def _around(self, step: int) -> tuple[int, int]:
        """Bits of the steps that have to run before this one, and of those that have to run after it."""
        known = self._known.get(step)
        if known is None:
            before = self.before
            earlier = before[step]
            for other in range(step - 1, -1, -1):
                if earlier >> other & 1:
                    earlier |= before[other]
            later, bit = 1 << step, 2 << step
            for direct in before[step + 1 :]:
                if direct & later:
                    later |= bit
                bit <<= 1
            known = self._known[step] = earlier, later & ~(1 << step)
        return known

    def _floor(self, costs: Sequence[int], size: Sequence[int]) -> int:
        """Bytes that every order needs: the inputs, the outputs, and what single steps need in any order."""
        floor = max(sum(size[: self.started]), sum(item for item, kept in zip(size, self.kept, strict=True) if kept))
        # In any order a step needs no more than in this one to be a bound; look at the most expensive first.
        for step in sorted(range(len(costs)), key=costs.__getitem__, reverse=True):
            if costs[step] <= floor:
                break
            floor = max(floor, self.needed(step, size))
        return floor

    def _arranged(
        self, size: Sequence[int], costs: Sequence[int], lives: Sequence[int], floor: int, budget: int
    ) -> tuple[list[int], int]:
        """The best order found, and a bound on all orders."""
        order = list(range(len(costs)))
        spans = [(first, end) for first, end in zip(self.cuts, self.cuts[1:], strict=False) if end - first > 1]
        # The span with the highest peak first: what it cannot avoid, no other span needs to avoid either.
        spans.sort(key=lambda span: max(costs[span[0] : span[1]]), reverse=True)
        for first, end in spans:
            ceiling = max(costs[first:end])
            if ceiling <= floor:
                break
            search = _Search(self, size, first, end, budget)
            found, bound = search.best(lives[first], lives[end], floor, ceiling)
            floor = max(floor, bound)
            budget = max(budget - search.looked_at, 0)
            if found is not None:
                order[first:end] = found
        return order, floor

    def _told(self, order: Sequence[int], size: Sequence[int], lower_bound: int | None, given: int | None) -> Schedule:
        costs, _ = self.costs(order, size)
        peak = sum(size[: self.started])
        at = -1
        for position, cost in enumerate(costs):
            if cost > peak:
                peak, at = cost, position
        live = self._live(order, at, peak, size)
        whole = tuple(order)
        return Schedule(
            whole,
            peak,
            whole[at] if at >= 0 else -1,
            live,
            peak if lower_bound is None else lower_bound,
            peak if given is None else given,
        )

    def _live(self, order: Sequence[int], at: int, peak: int, size: Sequence[int]) -> tuple[str, ...]:
        if at < 0:
            return self.names[: self.started]
        done = sum(1 << step for step in order[:at])
        step = order[at]
        there = [
            tensor
            for tensor, touched in enumerate(self.access)
            if (tensor < self.started or touched & done) and (self.kept[tensor] or touched & ~done)
        ]
        if sum(size[tensor] for tensor in there) < peak:  # not in place
            there += [tensor for tensor in self.writes[step] if tensor not in there]
        return tuple(self.names[tensor] for tensor in there)


_Path = tuple["_Path | None", tuple[int, ...]]  # what ran before, and what ran then
_State = tuple[int, int, "_Path | None"]  # bits of the steps that have run, bytes alive, how it was reached


class _Onwards:
    """Orders of the steps from `first` to `end` from the front: one more step runs."""

    def __init__(self, program: Program, size: Sequence[int], first: int, end: int) -> None:
        self.program, self.size, self.first, self.end = program, size, first, end
        self.start, self.goal = (1 << first) - 1, (1 << end) - 1

    def steps(self, done: int) -> list[int]:
        """The steps that can run."""
        before, missing = self.program.before, ~done
        return [s for s in range(self.first, self.end) if missing >> s & 1 and not before[s] & missing]

    def move(self, done: int, live: int, step: int) -> tuple[int, int, int]:
        """Bytes that the move needs, bytes alive and bits of the steps that have run after it."""
        cost, live = self.program.run(done, live, step, self.size)
        return cost, live, done | 1 << step

    def following(self, done: int, step: int) -> list[int]:
        """The steps that can run because `step`, the last of `done`, has."""
        before, missing = self.program.before, ~done
        return [s for s in self.program.after[step] if s < self.end and not before[s] & missing]

    def safe(self, done: int, block: Sequence[int]) -> bool:
        """Whether a chain may run at once where it gives back as much memory as it takes.

        Only its end lies as low as its start. Then every rest of the chain gives memory back, wherever the chain was
        interrupted, so that moving it here raises the memory of no step in between: none of them reads what it makes,
        and what it frees here it frees there too.
        """
        return True


class _Backwards:
    """The same orders from their end: the last step is taken back."""

    def __init__(self, program: Program, size: Sequence[int], first: int, end: int) -> None:
        self.program, self.size, self.first, self.end = program, size, first, end
        self.start, self.goal = (1 << end) - 1, (1 << first) - 1

    def steps(self, done: int) -> list[int]:
        """The steps that can have been the last."""
        descendants = self.program.descendants
        return [s for s in range(self.first, self.end) if done >> s & 1 and not descendants[s] & done]

    def move(self, done: int, live: int, step: int) -> tuple[int, int, int]:
        """Bytes that the step needed, bytes alive and bits of the steps that had run before it."""
        done &= ~(1 << step)
        cost, change = self.program.run(done, 0, step, self.size)
        return cost + live - change, live - change, done

    def following(self, done: int, step: int) -> list[int]:
        """The steps that can have been the last because `step`, which is no longer in `done`, came later."""
        descendants, before = self.program.descendants, self.program.before[step]
        return [s for s in _bits(before) if s >= self.first and not descendants[s] & done]

    def safe(self, done: int, block: Sequence[int]) -> bool:
        """Whether a chain may be put at the end where less is alive before it than after it.

        Another step may have to give up writing over what the chain reads, or find a tensor not there yet that the
        chain writes a part of; such chains stay where they are.
        """
        program = self.program
        members = sum(1 << step for step in block)
        for step in block:
            if any(program.access[tensor] & done & ~program.reading[tensor] for tensor in program.writes[step]):
                return False
            for tensor in program.reads[step]:
                others = program.reading[tensor] & done & ~members & ~program.ancestors[step]
                if any(program.in_place[other] for other in _bits(others)):
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
        for step in side.steps(done):
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
                step = min((side.move(done, now, item)[1], item) for item in following)[1]


@dataclass
class _Search:
    """The best order of the steps from `first` to `end`, between which everything else has run or has yet to."""

    program: Program
    size: Sequence[int]
    first: int
    end: int
    budget: int
    looked_at: int = 0

    def best(self, live: int, after: int, floor: int, ceiling: int) -> tuple[list[int] | None, int]:
        """The order with the smallest peak, or the best one found, and a bound on the peak of all orders.

        Both ends are searched in turn, each until the other has come through or nothing is left under the peak
        allowed so far: that is often seen at one end long before the other.

        Args:
            live, after: bytes alive before and after these steps.
            floor: a bound that is known.
            ceiling: peak of the given order.

        Returns:
            None for the order where none was found that needs less than `ceiling`.
        """
        onwards = _Front(_Onwards(self.program, self.size, self.first, self.end), live, ceiling)
        backwards = _Front(_Backwards(self.program, self.size, self.first, self.end), after, ceiling)
        peak = floor
        while peak < ceiling:
            for front in (onwards, backwards):
                if not front.stack:
                    peak = max(peak, front.least())
                    onwards.allow(peak)
                    backwards.allow(peak)
                    break
                self.looked_at += 1
                path = front.look(peak)
                if path is not None:
                    steps = _steps(path)
                    return steps if front is onwards else steps[::-1], peak
            if self.looked_at > self.budget:
                return self._beam(live, ceiling), peak
        return None, ceiling

    def _beam(self, live: int, ceiling: int) -> list[int] | None:
        """An order by beam search: after every step the few sets with the smallest peak, then the least memory."""
        side = _Onwards(self.program, self.size, self.first, self.end)
        front: dict[int, tuple[int, int, _Path | None]] = {side.start: (0, live, None)}
        for _ in range(self.first, self.end):
            reached: dict[int, tuple[int, int, _Path | None]] = {}
            for done, (peak, before, path) in front.items():
                for step in side.steps(done):
                    cost, then, after = side.move(done, before, step)
                    highest = max(peak, cost)
                    if after not in reached or highest < reached[after][0]:
                        reached[after] = (highest, then, (path, (step,)))
            front = dict(sorted(reached.items(), key=lambda item: item[1][:2])[:BEAM])
        (peak, _, path) = front[side.goal]
        return _steps(path) if peak < ceiling else None


def _steps(path: _Path | None) -> list[int]:
    found: list[int] = []
    while path is not None:
        path, block = path
        found.extend(reversed(block))
    found.reverse()
    return found


def _numbers(names: Iterable[str], index: Mapping[str, int]) -> tuple[int, ...]:
    found = [index[name] for name in names if name in index]
    return tuple(found) if len(found) < 2 else tuple(dict.fromkeys(found))


def _bits(mask: int) -> Iterable[int]:
    """Positions of the ones of a number."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
