"""Minus the distance between kernels between samples, on the features that the classifiers see.

Source: Peng, Jin, Liu, Zhou, Wu, Liu, Zhang, Liu, "Correlation Congruence for Knowledge Distillation", ICCV 2019,
arXiv:1904.01802, equations 5 to 8 (Gaussian kernel, Taylor series of order 2, gamma 0.4), taken at initialisation as
arXiv:2303.15678 proposes.
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.selection.observation import observe, required

GAMMA = 0.4
ORDER = 2


def kernel(vectors: Tensor) -> Tensor:
    """exp(-GAMMA |f_i - f_j|^2) of unit vectors, by its series: (B, D) -> (B, B)."""
    unit = F.normalize(vectors, dim=1)
    cosine = unit @ unit.T
    terms = [cosine**order * (2 * GAMMA) ** order / math.factorial(order) for order in range(ORDER + 1)]
    return math.exp(-2 * GAMMA) * sum(terms[1:], terms[0])


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """Minus the mean squared difference of the two kernels; <= 0. Widths may differ."""
    theirs, ours = observe(required(teacher), batch.inputs).vectors, observe(student, batch.inputs).vectors
    return -float((kernel(ours) - kernel(theirs)).square().mean())


PROXY = Proxy(source="arXiv:1904.01802 eq. 5 to 8 at initialisation", score=score, compares=True)
