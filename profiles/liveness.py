"""Peak memory of activations: which tensors are needed at the same time.

A tensor lives from the kernel that writes it to the last one that reads it; graph inputs from the start, graph outputs
to the end. A kernel needs its inputs and outputs together, except that one which works element by element may write
over an input of at least that size which nobody reads later. The order is the graph's own.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Step(Protocol):
    """What liveness asks of a kernel."""

    @property
    def reads(self) -> tuple[str, ...]: ...
    @property
    def writes(self) -> tuple[str, ...]: ...
    @property
    def in_place(self) -> bool: ...


def peak_bytes(
    steps: Sequence[Step], sizes: Mapping[str, int], inputs: Sequence[str] = (), outputs: Sequence[str] = ()
) -> int:
    """The largest sum of sizes of tensors that are alive at once.

    Args:
        steps: in the order of execution.
        sizes: bytes per tensor.
        inputs: tensors that are there before the first step.
        outputs: tensors that must be there after the last.
    """
    end = len(steps)
    last_read = dict.fromkeys(inputs, -1)
    for index, step in enumerate(steps):
        for name in step.writes:
            last_read[name] = index
        for name in step.reads:
            last_read[name] = index
    for name in outputs:
        last_read[name] = end
    dying: dict[int, list[str]] = {}
    for name, index in last_read.items():
        dying.setdefault(index, []).append(name)
    alive = {name: sizes[name] for name in inputs}
    live = sum(alive.values())
    peak = live
    for name in dying.get(-1, ()):  # an input that nobody reads
        live -= alive.pop(name, 0)
    for index, step in enumerate(steps):
        new = sum(sizes[name] for name in step.writes if name not in alive)
        reused = 0
        if step.in_place and len(step.writes) == 1 and step.writes[0] not in alive:
            room = [sizes[name] for name in step.reads if last_read[name] == index]
            reused = new if any(size >= new for size in room) else 0
        peak = max(peak, live + new - reused)
        for name in step.writes:
            alive[name] = sizes[name]
        live += new
        for name in dying.get(index, ()):
            live -= alive.pop(name, 0)
    return peak
