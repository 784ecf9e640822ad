"""Match the teacher on the true class against the rest, and among the rest, with a weight for each.

Source: Zhao, Cui, Song, Qiu, Liang, "Decoupled Knowledge Distillation", CVPR 2022, arXiv:2203.08679, equation 7. The
divergence of soft targets is TCKD + (1 - p_y) NCKD: it silences what the other classes teach where the teacher is sure.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.similarity import widened
from compress.terms import labels_for

ABSENT = -1e30  # logit of a class that is left out: finite, so that 0 x (ABSENT - ABSENT) is 0


def target_divergence(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """TCKD: KL(teacher || student) of the two-way probabilities (true class, all others).

    Args:
        student, teacher: logits, (N, C). No gradient flows into the teacher's.
        labels: (N,) int64.
        temperature: > 0.

    Returns:
        (N,), in nats, >= 0, times temperature squared, computed in float32 or wider.
    """
    log_p, log_q = (_split(widened(logits) / temperature, labels) for logits in (teacher.detach(), student))
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)


def others_divergence(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """NCKD: KL(teacher || student) among the classes that are not the true one.

    Args, returns: as `target_divergence`.
    """
    log_p, log_q = (
        F.log_softmax((widened(logits) / temperature).scatter(1, labels.unsqueeze(1), ABSENT), dim=1)
        for logits in (teacher.detach(), student)
    )
    return temperature**2 * (log_p.exp() * (log_p - log_q)).sum(dim=1)


class Decoupled(Objective):
    """alpha TCKD + beta NCKD of the first outputs, (B, C).

    Args:
        temperature: > 0; the paper's CIFAR-100 runs take 4, ImageNet 1.
        alpha: weight of TCKD, >= 0.
        beta: weight of NCKD, >= 0: 1 to 10 by the paper, more for a surer teacher; 8 in most of its CIFAR-100 runs.

    Raises:
        RecipeError: a number out of its range.
    """

    def __init__(self, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0) -> None:
        super().__init__()
        if not 0.0 < temperature < float("inf") or not (0.0 <= alpha < float("inf") and 0.0 <= beta < float("inf")):
            raise RecipeError(
                f"decoupled has temperature {temperature}, alpha {alpha}, beta {beta}",
                fix="write a temperature above 0 and weights of 0 or more, such as 4.0, 1.0 and 8.0",
            )
        self._temperature, self._alpha, self._beta = temperature, alpha, beta

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no labels.
            ValueError: the shapes differ, or are not (B, C) and (B,).
        """
        labels, ours, theirs = labels_for("decoupled", batch), student.output, teacher.output
        if ours.shape != theirs.shape or ours.ndim != 2 or labels.shape != ours.shape[:1]:
            raise ValueError(
                f"student {tuple(ours.shape)}, teacher {tuple(theirs.shape)}, labels {tuple(labels.shape)}"
            )
        target = target_divergence(ours, theirs, labels, self._temperature)
        return self._alpha * target + self._beta * others_divergence(ours, theirs, labels, self._temperature)


def _split(logits: Tensor, labels: Tensor) -> Tensor:
    """(N, 2): log-probability of the true class and of all others together, without 1 - p, which cancels."""
    place = labels.unsqueeze(1)
    others = logits.scatter(1, place, ABSENT).logsumexp(dim=1, keepdim=True)
    return torch.cat([logits.gather(1, place), others], dim=1) - logits.logsumexp(dim=1, keepdim=True)
