"""The student's vector is the teacher's vector.

Source: Vujanic, Rueckstiess, "LEAF: Knowledge Distillation of Text Embedding Models with Teacher-Aligned
Representations", 2025, arXiv:2509.12539: sum of squared differences over dimensions, mean over texts. Whether student
vectors are brought to unit length is left open there; proposed: they are, as the teacher's have it.
"""

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals

SHORTEST = 1e-12  # length that a vector is divided by at least


def l2_align(student: Tensor, teacher: Tensor, normalize: bool = True) -> Tensor:
    """Squared distance of two vectors of each text, summed over dimensions: `F.mse_loss` is smaller by that number.

    Args:
        student: (B, d).
        teacher: (B, d). No gradient flows into them.
        normalize: whether both are brought to length 1 first.

    Returns:
        (B,), >= 0; of unit vectors 2 - 2 cos, at most 4. Invariant where both are turned alike, and only then.

    Raises:
        ValueError: the shapes differ, or are not (B, d).
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise ValueError(f"student vectors {tuple(student.shape)}, teacher vectors {tuple(teacher.shape)}")
    target = teacher.detach()
    if normalize:
        student, target = (
            vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True).clamp(min=SHORTEST)
            for vectors in (student, target)
        )
    return (student - target).square().sum(dim=1)


class L2Align(Objective):
    """`l2_align` of the outputs.

    Args:
        normalize: False for a teacher whose vectors have no common length.
    """

    def __init__(self, normalize: bool = True) -> None:
        super().__init__()
        self._normalize = normalize

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,)."""
        return l2_align(student.output, teacher.output, self._normalize)
