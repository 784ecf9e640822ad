"""Discs and squares on a noisy ground, and which of them every pixel belongs to."""

import torch
from torch import Tensor

from tools.networks.data import generator

SIDE = 32
CLASSES = 3  # ground, disc, square


def pictures(samples: int, seed: int, part: str) -> tuple[Tensor, Tensor]:
    """((N, 1, 32, 32) float32, (N, 32, 32) int64): four shapes each, later ones in front, all of similar brightness."""
    random = generator(seed, part, "pictures")
    grid = torch.arange(SIDE).float()
    image = torch.zeros(samples, SIDE, SIDE)
    labels = torch.zeros(samples, SIDE, SIDE, dtype=torch.int64)
    for _ in range(4):
        centre = torch.randint(3, SIDE - 3, (samples, 2), generator=random).float()
        size = 2.5 + 4.0 * torch.rand(samples, generator=random)
        kind = torch.randint(1, CLASSES, (samples,), generator=random)
        rows = (grid[None, :] - centre[:, :1])[:, :, None]
        columns = (grid[None, :] - centre[:, 1:])[:, None, :]
        disc = rows.square() + columns.square() <= size[:, None, None].square()
        square = torch.maximum(rows.abs(), columns.abs()) <= 0.87 * size[:, None, None]
        inside = torch.where((kind == 1)[:, None, None], disc, square)
        shade = 0.6 + 0.8 * torch.rand(samples, generator=random)
        image = torch.where(inside, shade[:, None, None], image)
        labels = torch.where(inside, kind[:, None, None], labels)
    noisy = image + 0.3 * torch.randn(samples, SIDE, SIDE, generator=random)
    return noisy.unsqueeze(1), labels
