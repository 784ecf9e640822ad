"""Follow the teacher as far as it is sure of the label, sample by sample.

Source: the adaptive mixing of Lukasik, Bhojanapalli, Menon, Kumar, "Teacher's pet: understanding and mitigating biases
in distillation", TMLR 2022, arXiv:2106.10494, in the form in which it is a baseline (ADA) of arXiv:2312.15112: the
teacher's probability of the label, less the mean probability of the other classes, and never below 0.
"""

from typing import final

from torch import Tensor

from compress.terms import SharedLoss


def margin_ratio(teacher: Tensor, labels: Tensor) -> Tensor:
    """max(0, p - (1 - p) / (C - 1)) with p the teacher's probability of the label.

    Args:
        teacher: logits, (B, C), C >= 2.
        labels: class indices, (B,).

    Returns:
        (B,) in [0, 1]: 1 where the teacher is certain of the label, 0 where it is no better than chance.
    """
    p = teacher.detach().softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    return (p - (1.0 - p) / (teacher.shape[1] - 1)).clamp(min=0.0)


@final
class AdaptiveRatio(SharedLoss):
    """`margin_ratio` * T^2 KL(teacher || student) + the rest of 1 * the task's loss on labels.

    Args:
        temperature: of the teacher's term, > 0.

    Raises:
        RecipeError: it is not.
    """

    name = "adaptive_ratio"

    def share(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """`margin_ratio`."""
        return margin_ratio(teacher, labels)
