"""What the teacher says of the true class, and of the others among themselves, each with its own weight.

Source: Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", CVPR 2022, arXiv:2203.08679, equation 7, beside
the cross-entropy with weight 1. The authors' code brings the term in linearly over the first 20 of 240 epochs.
"""

from compress.contracts.clock import Clock
from compress.contracts.method import Method
from compress.objectives.decoupled import Decoupled
from compress.objectives.labels import Labels

WARM_UP = 20 / 240  # share of the epochs


def warmed_up(clock: Clock) -> float:
    """From 0 to 1 over the warm-up, then 1."""
    return min(1.0, clock.progress / WARM_UP)


METHOD = Method(
    source="arXiv:2203.08679 eq. 7",
    objectives={"decoupled": Decoupled, "labels": Labels},
    weights={"decoupled": warmed_up, "labels": 1.0},
    tasks=("classification",),
)
