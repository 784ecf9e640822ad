"""Teachers that are what the student was a while ago, and how they vote.

Source: Zhu, Li, Liu, Wang, "Improving Differentiable Architecture Search via Self-Distillation", arXiv:2302.05629,
abstract: earlier steps of the search teach the present one, and several of them are aggregated by voting. How many,
how far apart and which vote is not in it: proposed here are the three newest, one per epoch, and the mean.
"""

import copy
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def soft_vote(probabilities: Sequence[Tensor]) -> Tensor:
    """The mean of K >= 1 probability vectors, each (B, C) -> (B, C). It is not the softmax of the mean logits."""
    return torch.stack(tuple(probabilities)).mean(dim=0)


def hard_vote(probabilities: Sequence[Tensor]) -> Tensor:
    """Shares of the K >= 1 voters for whom each class is the most probable: each (B, C) -> (B, C), multiples of 1/K."""
    stacked = torch.stack(tuple(probabilities))
    ballots = nn.functional.one_hot(stacked.argmax(dim=-1), stacked.shape[-1])
    return ballots.to(stacked.dtype).mean(dim=0)


class SnapshotBank:
    """The newest `size` copies of a network: all parameters (a supernet's architecture among them) and all buffers.

    Copies normalise by the batch's statistics, as the network did when it learned, and their buffers never move: the
    running statistics of a supernet mix architectures that no longer are. They stay on the device of the network.

    Args:
        size: copies that are kept, >= 0; with 0 there is never a voter.

    Raises:
        ValueError: `size` is negative.
    """

    def __init__(self, size: int = 3) -> None:
        if size < 0:
            raise ValueError(f"a bank of {size} snapshots")
        self._kept: deque[nn.Module] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._kept)

    def push(self, network: nn.Module) -> None:
        """Copy the network as it is now; the oldest copy leaves where there would be too many."""
        snapshot = copy.deepcopy(network).requires_grad_(False).train()
        for module in snapshot.modules():
            if isinstance(module, _BatchNorm):
                module.track_running_stats = False  # in training mode: by the batch, buffers untouched
            elif isinstance(module, nn.Dropout):
                module.eval()
        self._kept.append(snapshot)

    def snapshots(self) -> tuple[nn.Module, ...]:
        """The copies, the oldest first."""
        return tuple(self._kept)

    def probabilities(self, inputs: Tensor, temperature: float = 1.0) -> list[Tensor]:
        """softmax(logits / temperature) of every copy, the oldest first, each (B, C); without gradients."""
        with torch.no_grad():
            return [torch.softmax(snapshot(inputs) / temperature, dim=1) for snapshot in self._kept]
