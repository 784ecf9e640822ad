"""Give every buffer a place in one block of memory, so that buffers in use at the same time never overlap."""

from collections.abc import Iterable
from dataclasses import dataclass

from exporters.c.program import Buffer, Program, Step

ALIGNMENT = 8
SLACK = 4  # bytes after a buffer that a kernel may read (never write) when it loads four channels at once


@dataclass(frozen=True)
class Plan:
    """`offsets`: buffer number -> byte offset. `bytes`: size of the block."""

    offsets: dict[int, int]
    bytes: int


@dataclass
class _Group:
    """Buffers that share one place: each result overwrites what it was computed from."""

    buffers: list[Buffer]
    first: int
    last: int
    offset: int = -1

    @property
    def bytes(self) -> int:
        needed = max(buffer.bytes for buffer in self.buffers) + SLACK
        return (needed + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT

    def meets(self, other: "_Group") -> bool:
        return self.first <= other.last and other.first <= self.last


def lifetimes(steps: list[Step]) -> dict[int, tuple[int, int]]:
    """Buffer number -> (first, last) step that touches it; arena buffers only."""
    times: dict[int, tuple[int, int]] = {}
    for at, step in enumerate(steps):
        for buffer in _touched(step):
            if buffer.place == "arena":
                first, _ = times.get(buffer.number, (at, at))
                times[buffer.number] = (first, at)
    return times


def plan(program: Program) -> Plan:
    """Place the buffers: several orders of first fit, of which the smallest block wins (ties: the first)."""
    times = lifetimes(program.steps)
    groups = _grouped(program.steps, times)
    orders = (
        lambda group: (-group.bytes, group.first),
        lambda group: (-group.bytes * (group.last - group.first + 1), group.first),
        lambda group: (group.first, -group.bytes),
        lambda group: (-group.last, -group.bytes),
    )
    best: Plan | None = None
    for order in orders:
        candidate = _place(sorted(groups, key=order))
        if best is None or candidate.bytes < best.bytes:
            best = candidate
    assert best is not None
    return best


def _touched(step: Step) -> Iterable[Buffer]:
    return (*step.reads, *step.writes, *step.scratch)


def _grouped(steps: list[Step], times: dict[int, tuple[int, int]]) -> list[_Group]:
    group_of: dict[int, _Group] = {}
    for at, step in enumerate(steps):
        for buffer in _touched(step):
            if buffer.place != "arena" or buffer.number in group_of:
                continue
            over = step.inplace
            written = buffer in step.writes
            if written and over is not None and over.number in group_of and times[over.number][1] == at:
                group = group_of[over.number]
                group.buffers.append(buffer)
                group.last = max(group.last, times[buffer.number][1])
            else:
                group = _Group([buffer], *times[buffer.number])
            group_of[buffer.number] = group
    return list({id(group): group for group in group_of.values()}.values())


def _place(groups: list[_Group]) -> Plan:
    placed: list[_Group] = []
    for group in groups:
        offset = 0
        for other in sorted((other for other in placed if other.meets(group)), key=lambda other: other.offset):
            if other.offset - offset >= group.bytes:
                break
            offset = max(offset, other.offset + other.bytes)
        group.offset = offset
        placed.append(group)
    offsets = {buffer.number: group.offset for group in placed for buffer in group.buffers}
    return Plan(offsets, max((group.offset + group.bytes for group in placed), default=0))
