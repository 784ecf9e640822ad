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
        extras: whatever else a task or a data strategy adds: edges, masks, pseudo-labels, mixing weights.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None
    index: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`."""
        return Batch(
            tuple(tensor.to(device, non_blocking=True) for tensor in self.inputs),
            None if self.labels is None else self.labels.to(device, non_blocking=True),
            self.index,
            {name: tensor.to(device, non_blocking=True) for name, tensor in self.extras.items()},
        )

    def with_inputs(self, *inputs: Tensor) -> "Batch":
        """The same examples with other inputs (an augmentation, a mix)."""
        return replace(self, inputs=inputs)
