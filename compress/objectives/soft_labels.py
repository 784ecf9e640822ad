"""Labels and the teacher's probabilities in equal parts, at temperature 1.

Source: Zhang et al., "Towards the Law of Capacity Gap in Distilling Language Models", ACL 2025, arXiv:2311.07052, and
the authors' code: half the cross-entropy with the labels, half that with the teacher's probabilities.

The soft part is a cross-entropy, so it contains the teacher's entropy: values under two teachers do not compare, and
gradients are those of the divergence.
"""

from torch import Tensor
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.terms import labels_for


def soft_label_loss(student: Tensor, teacher: Tensor, labels: Tensor, alpha: float = 0.5) -> Tensor:
    """(1 - alpha) x cross-entropy with the labels + alpha x cross-entropy with the teacher's probabilities.

    Args:
        student: logits, (B, C, ...): classes are dimension 1, further ones are averaged over.
        teacher: logits of the same shape. No gradient flows into them.
        labels: class indices, (B, ...).
        alpha: share of the soft part, 0 to 1.

    Returns:
        (B,), in nats. Computed in float32 or wider: half precision loses the small probabilities of many classes.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape or labels.shape != (student.shape[0], *student.shape[2:]):
        raise ValueError(
            f"student logits {tuple(student.shape)}, teacher logits {tuple(teacher.shape)},"
            f" labels {tuple(labels.shape)}"
        )
    wide = student if student.element_size() >= 4 else student.float()
    log_q = F.log_softmax(wide, dim=1)
    p = F.softmax(teacher.detach().to(wide.dtype), dim=1)
    hard = F.nll_loss(log_q, labels, reduction="none")
    mixed = (1.0 - alpha) * hard - alpha * (p * log_q).sum(dim=1)
    return mixed.flatten(1).mean(dim=1) if mixed.ndim > 1 else mixed


class SoftLabels(Objective):
    """`soft_label_loss` of the first outputs.

    Args:
        alpha: share of the soft part, 0 to 1; the paper takes a half.

    Raises:
        RecipeError: it is outside.
    """

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__()
        if not 0.0 <= alpha <= 1.0:
            raise RecipeError(f"soft_labels has alpha = {alpha}", fix="write a share from 0 to 1, such as 0.5")
        self.alpha = alpha

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats.

        Raises:
            TaskError: the stream has no labels.
        """
        return soft_label_loss(student.output, teacher.output, labels_for("soft_labels", batch), self.alpha)
