"""Minus the divergence between the two networks' probabilities of being neighbours, on what the classifiers see.

Source: Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018,
arXiv:1803.10837, equations 3 to 7 with the cosine kernel, taken at initialisation as arXiv:2303.15678 proposes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.selection.observation import observe, required

EMPTY = 1e-7  # probability of the least likely neighbour


def neighbours(vectors: Tensor) -> Tensor:
    """Row i: how likely each other sample is i's neighbour; (B, D) -> (B, B), rows sum to 1, the diagonal is 0."""
    unit = F.normalize(vectors, dim=1)
    near = 0.5 * (unit @ unit.T + 1.0)
    near = near.masked_fill(torch.eye(len(near), dtype=torch.bool, device=near.device), 0.0)
    return near / near.sum(dim=1, keepdim=True).clamp_min(EMPTY)


def divergence(student: Tensor, teacher: Tensor) -> float:
    """KL(teacher || student) of the neighbours, mean over samples, in nats, >= 0."""
    p, q = neighbours(teacher).clamp_min(EMPTY), neighbours(student).clamp_min(EMPTY)
    return float((p * (p / q).log()).sum(dim=1).mean())


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """<= 0. Widths may differ."""
    return -divergence(observe(student, batch.inputs).vectors, observe(required(teacher), batch.inputs).vectors)


PROXY = Proxy(source="arXiv:1803.10837 eq. 3 to 7 at initialisation", score=score, compares=True)
