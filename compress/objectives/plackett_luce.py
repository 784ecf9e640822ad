"""Follow one ranking of the classes: the true one first, the others as the teacher orders them.

Sources: Bassam, Zhu, Bian, "PLD: A Choice-Theoretic List-Wise Knowledge Distillation", NeurIPS 2025, arXiv:2506.12542.
Logits are read as worths of the Plackett-Luce model, whose likelihood of the ranking is maximised, choice by choice:

    L(s) = sum_k a_k (log sum_{l >= k} exp s[pi_l] - s[pi_k]),

with a_k the teacher's probability of the class that is chosen at step k. The first choice is the cross-entropy with the
label. Equal weights give ListMLE (Xia, Liu, Wang, Zhang, Li, ICML 2008, "Listwise approach to learning to rank"), fixed
falling ones p-ListMLE (Lan, Zhu, Guo, Niu, Cheng, UAI 2014). The paper prints p-ListMLE's weights as q / sum(q), which
are PLD's own; here they are those of p-ListMLE, 2^(C-k) - 1, scaled to sum to 1.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.similarity import widened
from compress.terms import labels_for, positive_temperature

Weights = Callable[[Tensor, float], Tensor]
"""(teacher's logits along the ranking, (N, C), -inf where there is no class; temperature) -> (N, C), rows sum to 1."""
NEVER = -1e30  # worth of a candidate that is not there: finite, and nothing beside any real one


def ranking(teacher: Tensor, labels: Tensor, present: Tensor | None = None) -> Tensor:
    """The classes in the order that the student shall learn. It depends on the teacher and the labels alone.

    Args:
        teacher: logits, (N, C). Equal ones keep the order of their classes.
        labels: true classes, (N,) int64.
        present: (N, C) bool, False where a list is padded: those come last.

    Returns:
        (N, C) int64: the label first, then by falling logit.
    """
    keys = teacher.detach() if present is None else teacher.detach().masked_fill(~present, -torch.inf)
    keys = keys.scatter(1, labels.unsqueeze(1), torch.inf)
    return keys.sort(dim=1, descending=True, stable=True).indices


def plackett_luce_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float = 1.0,
    weights: Weights | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """Weighted negative log-likelihood of the teacher's ranking under the student's worths.

    Args:
        student: logits, (N, C). They are not divided by the temperature.
        teacher: logits, (N, C), in the same order of classes. No gradient flows into them.
        labels: true classes or the positive candidates, (N,) int64.
        temperature: > 0, of the teacher's probabilities that weigh the choices.
        weights: of the choices; None for `teacher_weights`.
        present: (N, C) bool, False where a list of candidates is padded; None where none is. What the logits hold there
            does not matter.

    Returns:
        (N,), in nats, >= 0, computed in float32 or wider.

    Raises:
        ValueError: the shapes differ, or labels are not one for each row.
    """
    if student.shape != teacher.shape or student.ndim != 2 or labels.shape != student.shape[:1]:
        raise ValueError(
            f"student logits {tuple(student.shape)}, teacher logits {tuple(teacher.shape)},"
            f" labels {tuple(labels.shape)}"
        )
    order = ranking(teacher, labels, present)
    # Half precision loses the tail of the sums, and has no logcumsumexp on a CPU.
    worths = widened(student).gather(1, order)
    known = teacher.detach().to(worths.dtype).gather(1, order)
    if present is not None:
        there = present.gather(1, order)
        worths, known = worths.masked_fill(~there, NEVER), known.masked_fill(~there, -torch.inf)
    left = worths.flip(1).logcumsumexp(dim=1).flip(1)
    return ((weights or teacher_weights)(known, temperature) * (left - worths)).sum(dim=1)


def teacher_weights(ranked: Tensor, temperature: float) -> Tensor:
    """The teacher's probabilities: PLD."""
    return (ranked / temperature).softmax(dim=1)


def uniform_weights(ranked: Tensor, temperature: float) -> Tensor:
    """Every choice counts the same: ListMLE. The temperature plays no part."""
    there = ranked.isfinite().to(ranked.dtype)
    return there / there.sum(dim=1, keepdim=True)


def first_weights(ranked: Tensor, temperature: float) -> Tensor:
    """The first choice alone: cross-entropy with the label."""
    only = torch.zeros_like(ranked)
    only[:, 0] = 1.0
    return only


def position_weights(ranked: Tensor, temperature: float) -> Tensor:
    """2^(C-k) - 1 at step k, scaled to sum to 1: p-ListMLE. Computed as 2^-k - 2^-C, which no C makes overflow."""
    count = ranked.isfinite().sum(dim=1, keepdim=True)
    place = torch.arange(1, ranked.shape[1] + 1, device=ranked.device)
    raw = (torch.exp2(-place.to(ranked.dtype)) - torch.exp2(-count.to(ranked.dtype))).clamp(min=0.0)
    return raw / raw.sum(dim=1, keepdim=True).clamp(min=torch.finfo(ranked.dtype).tiny)


WEIGHTS: Mapping[str, Weights] = {
    "teacher": teacher_weights,
    "uniform": uniform_weights,
    "first": first_weights,
    "position": position_weights,
}
"""Rules by the names that recipes give."""


class PlackettLuce(Objective):
    """`plackett_luce_loss` of the first outputs: classes are dimension 1, further ones are averaged over.

    Lists of candidates that are padded say so in `batch.extras["present"]`, (B, C) bool; their label is the position of
    the positive. Mixed examples (`augmentations.mixed_up`) are ranked once for each of their two labels, and the two
    losses are weighed by the shares (proposed: the paper has hard labels only).

    Args:
        temperature: of the teacher's probabilities, > 0. 1 is best on ImageNet by the paper; its CIFAR-100 section
            says 4.
        weights: of the choices: teacher (PLD), uniform (ListMLE), position (p-ListMLE) or first (cross-entropy).

    Raises:
        RecipeError: a temperature that is not positive, or weights of another name.
    """

    def __init__(self, temperature: float = 1.0, weights: str = "teacher") -> None:
        super().__init__()
        if weights not in WEIGHTS:
            raise RecipeError(f"plackett_luce has no weights '{weights}'", fix=f"write one of {', '.join(WEIGHTS)}")
        self._temperature = positive_temperature("plackett_luce", temperature, 1.0)
        self._weights = WEIGHTS[weights]

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no labels.
        """
        extras = batch.extras
        if "second_labels" in extras:
            first = self._ranked(student.output, teacher.output, extras["first_labels"], None)
            second = self._ranked(student.output, teacher.output, extras["second_labels"], None)
            return extras["first_share"] * first + (1.0 - extras["first_share"]) * second
        return self._ranked(student.output, teacher.output, labels_for("plackett_luce", batch), extras.get("present"))

    def _ranked(self, student: Tensor, teacher: Tensor, labels: Tensor, present: Tensor | None) -> Tensor:
        if student.shape != teacher.shape:
            raise ValueError(f"student logits {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}")
        ours, theirs = _rows(student), _rows(teacher)
        losses = plackett_luce_loss(ours, theirs, labels.reshape(-1), self._temperature, self._weights, present)
        return losses.reshape(len(student), -1).mean(dim=1)


def _rows(logits: Tensor) -> Tensor:
    """(B, C, ...) -> (B x ..., C)."""
    return logits.movedim(1, -1).reshape(-1, logits.shape[1])
