"""Sequences of eight channels whose class is the order and the place of short patterns."""

import torch
from torch import Tensor

from tools.networks.data import generator

CHANNELS = 8
CLASSES = 6
NOISE = 2.2
_PATTERN = 6  # samples
_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))


def signals(samples: int, seed: int, part: str, length: int) -> tuple[Tensor, Tensor]:
    """((N, 8, length) float32, (N,) int64): three patterns one after the other at random places, in noise.

    Args:
        length: at least 24.
    """
    patterns = torch.randn(3, CHANNELS, _PATTERN, generator=torch.Generator().manual_seed(7))
    random = generator(seed, part, "signals")
    labels = torch.randint(CLASSES, (samples,), generator=random)
    x = NOISE * torch.randn(samples, CHANNELS, length, generator=random)
    third = length // 3
    for place in range(3):
        which = torch.tensor(_ORDERS)[labels, place]
        starts = place * third + torch.randint(third - _PATTERN + 1, (samples,), generator=random)
        index = (starts[:, None] + torch.arange(_PATTERN))[:, None, :].expand(-1, CHANNELS, -1)
        x = x.scatter_add(2, index, patterns[which])
    return x, labels
