"""sklearn's 1797 handwritten digits, twice as large, moved and noisy; the parts share no original."""

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tools.networks.data import generator

SIDE = 16
NOISE = 0.25
_PARTS = {"train": slice(0, 1000), "validation": slice(1000, 1300), "test": slice(1300, 1797)}


@cache
def _originals() -> tuple[Tensor, Tensor]:
    """((1797, 1, 16, 16) in [0, 1], (1797,)), in a fixed mixed order."""
    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.from_numpy(found.images).float().unsqueeze(1) / 16.0
    large = nn.functional.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return large[order].clamp(0.0, 1.0), torch.from_numpy(found.target)[order]


def digits(samples: int, seed: int, part: str) -> tuple[Tensor, Tensor]:
    """((N, 1, 16, 16) float32, (N,) int64): moved by up to one pixel, fainter or stronger, with noise."""
    random = generator(seed, part, "digits")
    images, labels = (tensor[_PARTS[part]] for tensor in _originals())
    chosen = torch.randint(len(images), (samples,), generator=random)
    moves = torch.randint(-1, 2, (samples, 2), generator=random)
    padded = nn.functional.pad(images[chosen], (1, 1, 1, 1))
    rows = (torch.arange(SIDE) + 1 + moves[:, :1])[:, None, :, None].expand(-1, 1, -1, padded.shape[-1])
    columns = (torch.arange(SIDE) + 1 + moves[:, 1:])[:, None, None, :].expand(-1, 1, SIDE, -1)
    moved = padded.gather(2, rows).gather(3, columns)
    strength = 0.5 + torch.rand(samples, 1, 1, 1, generator=random)
    noise = NOISE * torch.randn(samples, 1, SIDE, SIDE, generator=random)
    return moved * strength + noise, labels[chosen]
