"""What flows through one training step."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """Some examples of one stream.

    Attributes:
        inputs: what the network takes, in order; each (B, ...). Graphs and texts pass their tensors here too.
        labels: (B, ...) in the task's own form, or None where a stream has none.
        index: (B,) int64, the examples' positions in their stream: what a teacher's cache is keyed by.
        extras: whatever else a task or a data strategy adds per example, each (B, ...): pseudo-labels, mixing weights.
        common: what belongs to the batch as a whole: edges between its examples, one mask for all.
        stream: where the examples come from, unchanged; "" where their inputs are no longer the stream's own, so that
            no cache may answer for them.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None
    index: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    common: Mapping[str, Tensor] = field(default_factory=dict)
    stream: str = ""

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        return Batch(
            tuple(tensor.to(device, non_blocking=True) for tensor in self.inputs),
            None if self.labels is None else self.labels.to(device, non_blocking=True),
            self.index,
            {name: tensor.to(device, non_blocking=True) for name, tensor in self.extras.items()},
            {name: tensor.to(device, non_blocking=True) for name, tensor in self.common.items()},
            self.stream,
        )

    def with_inputs(self, *inputs: Tensor) -> "Batch":
        """The same examples with other inputs (an augmentation, a mix)."""
        return replace(self, inputs=inputs, stream="")

    def part(self, number: int, parts: int) -> "Batch":
        """One of `parts` consecutive parts, whose sizes differ by one at most; `common` stays whole."""
        if parts == 1:
            return self

        def cut(tensor: Tensor) -> Tensor:
            return tensor.tensor_split(parts)[number]

        return replace(
            self,
            inputs=tuple(cut(tensor) for tensor in self.inputs),
            labels=None if self.labels is None else cut(self.labels),
            index=cut(self.index),
            extras={name: cut(tensor) for name, tensor in self.extras.items()},
        )
