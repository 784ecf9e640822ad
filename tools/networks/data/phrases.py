"""Phrases of tokens whose class hangs on which words stand next to which."""

import torch
from torch import Tensor

from tools.networks.data import generator

WORDS = 120
CLASSES = 5
PADDING = 0


def phrases(samples: int, seed: int, part: str, length: int) -> tuple[Tensor, Tensor]:
    """((N, length) int64, (N,) int64): 8 to `length` words, then padding (0).

    Each class prefers a tenth of the words; a fifth of a phrase comes from it, the rest from all words, so that some
    phrases cannot be told.
    """
    random = generator(seed, part, "phrases")
    favourites = 1 + torch.stack(
        [torch.randperm(WORDS - 1, generator=torch.Generator().manual_seed(k))[: WORDS // 6] for k in range(CLASSES)]
    )
    labels = torch.randint(CLASSES, (samples,), generator=random)
    any_word = torch.randint(1, WORDS, (samples, length), generator=random)
    slot = torch.randint(favourites.shape[1], (samples, length), generator=random)
    favourite = favourites[labels[:, None].expand(-1, length), slot]
    tokens = torch.where(torch.rand(samples, length, generator=random) < 0.4, favourite, any_word)
    words = torch.randint(min(8, length), length + 1, (samples, 1), generator=random)
    return torch.where(torch.arange(length) < words, tokens, torch.full_like(tokens, PADDING)), labels
