"""Minus the difference of distances and angles between samples, on the features that the classifiers see.

Source: Park, Kim, Lu, Cho, "Relational Knowledge Distillation", CVPR 2019, arXiv:1904.05068, equations 5 to 9, with the
weights 25 and 50 of its experiments, taken at initialisation as arXiv:2303.15678 proposes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.selection.observation import observe, required

DISTANCES = 25.0
ANGLES = 50.0


def distances(vectors: Tensor) -> Tensor:
    """Euclidean distances between samples over their mean (that of pairs of different samples); (B, B)."""
    found = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    count = len(found)
    return found * (count * (count - 1)) / found.sum().clamp_min(torch.finfo(found.dtype).tiny)


def angles(vectors: Tensor) -> Tensor:
    """Cosine of the angle at sample i between samples j and k, (B, B, B)."""
    directions = F.normalize(vectors.unsqueeze(0) - vectors.unsqueeze(1), dim=2)
    return directions @ directions.transpose(1, 2)


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """<= 0, by Huber's loss. Widths may differ."""
    ours, theirs = observe(student, batch.inputs).vectors, observe(required(teacher), batch.inputs).vectors
    far = F.smooth_l1_loss(distances(ours), distances(theirs))
    bent = F.smooth_l1_loss(angles(ours), angles(theirs))
    return -float(DISTANCES * far + ANGLES * bent)


PROXY = Proxy(source="arXiv:1904.05068 eq. 5 to 9 at initialisation", score=score, compares=True)
