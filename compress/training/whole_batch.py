"""The whole batch, where each of several processes has a part of it.

Every part is summed over the processes with zeros in the others' places, so that the sum is the parts behind each other
and the gradient of every process's loss flows back to the part that it belongs to, twice if need be.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.training.global_batchnorm import all_reduce_sum


def lengths_of(count: int, device: torch.device) -> list[int]:
    """How many rows each process has, of which this one has `count`. Every process must call it."""
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=device)
    counts[dist.get_rank()] = count
    dist.all_reduce(counts)
    return [int(number) for number in counts.tolist()]


def gathered(rows: Tensor, lengths: list[int], device: torch.device) -> Tensor:
    """The rows of all processes in their order.

    Args:
        rows: (b, ...) of this process, with or without gradient.
        lengths: b of every process.
        device: where processes exchange tensors.

    Returns:
        (B, ...), where `rows` are.
    """
    rank = dist.get_rank()
    there = rows.to(device, torch.uint8) if rows.dtype is torch.bool else rows.to(device)
    before = there.new_zeros((sum(lengths[:rank]), *rows.shape[1:]))
    behind = there.new_zeros((sum(lengths[rank + 1 :]), *rows.shape[1:]))
    return all_reduce_sum(torch.cat([before, there, behind])).to(rows.device, rows.dtype)


def gather(rows: Tensor, device: torch.device) -> Tensor:
    """`gathered`, where nobody knows yet how many rows the others have."""
    return gathered(rows, lengths_of(len(rows), device), device)


def whole(batch: Batch, device: torch.device) -> Batch:
    """All processes' parts of a batch as one, inputs too. What is common to the batch stays this process's."""
    lengths = lengths_of(len(batch), device)
    inputs = tuple(gathered(tensor, lengths, device) for tensor in batch.inputs)
    return replace(_beside(batch, lengths, device), inputs=inputs)


@contextmanager
def whole_batches(objectives: Iterable[Objective]) -> Iterator[None]:
    """Inside, objectives that are `batch_wide` compute the value of the whole batch, with its gradient."""
    handles = []
    for objective in objectives:
        if objective.batch_wide:
            whole_call = _WholeCall()
            handles.append(objective.register_forward_pre_hook(whole_call.given, with_kwargs=True))
            handles.append(objective.register_forward_hook(whole_call.own))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _WholeCall:
    """The two hooks of one objective."""

    def __init__(self) -> None:
        self._lengths: list[int] = []

    def given(
        self, objective: nn.Module, given: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Gather what the objective is asked about."""
        assert isinstance(objective, Objective)
        batch = next(value for value in (*given, *named.values()) if isinstance(value, Batch))
        student = next(value for value in (*given, *named.values()) if isinstance(value, Signals))
        device = student.output.device
        self._lengths = lengths_of(len(batch), device)
        taps = {*objective.student_taps, *objective.teacher_taps}
        taps |= {tap for names in objective.network_taps.values() for tap in names}

        def gathered_too(value: Any) -> Any:
            if isinstance(value, Signals):
                return _signals(value, taps, lambda rows: gathered(rows, self._lengths, device), len(batch))
            return replace(_beside(value, self._lengths, device), inputs=()) if isinstance(value, Batch) else value

        return tuple(map(gathered_too, given)), {name: gathered_too(value) for name, value in named.items()}

    def own(self, objective: nn.Module, given: tuple[Any, ...], values: Tensor) -> Tensor:
        """This process's part of values by sample. Those by set are the same everywhere, and so is their mean."""
        start = sum(self._lengths[: dist.get_rank()])
        return values[start : start + self._lengths[dist.get_rank()]] if len(values) == sum(self._lengths) else values


def _signals(signals: Signals, taps: set[str], everywhere: Callable[[Tensor], Tensor], count: int) -> Signals:
    def each(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: everywhere(value) if len(value) == count else value for name, value in named.items()}

    chosen = {name: value for name, value in signals.taps.items() if name in taps}
    return Signals(everywhere(signals.output), each(signals.others), each(chosen))


def _beside(batch: Batch, lengths: list[int], device: torch.device) -> Batch:
    """Everything but the inputs."""
    return replace(
        batch,
        labels=None if batch.labels is None else gathered(batch.labels, lengths, device),
        index=gathered(batch.index, lengths, device),
        extras={name: gathered(tensor, lengths, device) for name, tensor in batch.extras.items()},
    )
