"""Search by inner products: what is found, and what is left of vectors that are cut short or rounded.

Sources: recall and nDCG as BEIR has them (Thakur et al. 2021, arXiv:2104.08663); Matryoshka prefixes (Kusupati et al.
2022, arXiv:2205.13147): the first k coordinates, brought to length 1 again on both sides.
"""

import torch
from torch import Tensor

CODES = 127  # on either side of zero


def of_unit_length(vectors: Tensor) -> Tensor:
    """(N, d) -> the same directions of length 1; zero vectors stay."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    return vectors / lengths.clamp(min=1e-12)


def prefix(vectors: Tensor, size: int) -> Tensor:
    """The first `size` coordinates of (N, d), of unit length; all of them where there are no more."""
    return of_unit_length(vectors[:, :size])


def in_int8(vectors: Tensor) -> Tensor:
    """(N, d) rounded to 255 levels with one scale per vector, which is its largest magnitude over 127."""
    scale = vectors.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / CODES
    return (vectors / scale).round() * scale


def signs(vectors: Tensor) -> Tensor:
    """(N, d) -> 1 where a coordinate is >= 0, else -1: one bit each."""
    return torch.where(vectors >= 0, 1.0, -1.0)


def recall_at(scores: Tensor, relevant: Tensor, count: int = 10) -> Tensor:
    """Share of each query's relevant documents among the `count` with the highest scores.

    Args:
        scores: (Q, D).
        relevant: (Q, D) of bool.

    Returns:
        (Q,), in [0, 1]; 0 for a query that has no relevant document. A query with more relevant documents than `count`
        cannot reach 1.
    """
    top = scores.topk(min(count, scores.shape[1]), dim=1).indices
    found = relevant.gather(1, top).sum(dim=1)
    return found / relevant.sum(dim=1).clamp(min=1)


def ndcg_at(scores: Tensor, grades: Tensor, count: int = 10) -> Tensor:
    """Discounted gain of the first `count` over that of the best order; gain is the grade, discount log2(place + 1).

    Args:
        scores: (Q, D).
        grades: (Q, D), >= 0.

    Returns:
        (Q,), in [0, 1]; 0 for a query that has no relevant document.
    """
    count = min(count, scores.shape[1])
    discount = 1.0 / torch.log2(torch.arange(2, count + 2, dtype=torch.float32, device=scores.device))
    gains = grades.float().gather(1, scores.topk(count, dim=1).indices)
    best = grades.float().topk(count, dim=1).values
    return (gains * discount).sum(dim=1) / (best * discount).sum(dim=1).clamp(min=1e-12)
