"""Cross-entropy with the teacher's softened probabilities: distillation alone, in the form that papers print.

Source: Stanton et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021, arXiv:2106.05945, equation 3. Its
gradients are those of `soft_target_loss`; its value is not 0 for a perfect copy but temperature squared times the
teacher's entropy, so divergences compare students and this does not. (The paper's printed divergence has its sign
reversed, and its limit for high temperatures the difference the wrong way round.)
"""

from torch import Tensor
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.similarity import widened
from compress.terms import positive_temperature


def soft_cross_entropy(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """-T^2 sum_j softmax(teacher / T)_j log softmax(student / T)_j.

    Args:
        student, teacher: logits, (B, C, ...); positions of a map are averaged over. No gradient flows into the
            teacher's.
        temperature: T > 0.

    Returns:
        (B,), in nats, computed in float32 or wider.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student logits {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}")
    p = F.softmax(widened(teacher.detach()) / temperature, dim=1)
    crossed = -(temperature**2) * (p * F.log_softmax(widened(student) / temperature, dim=1)).sum(dim=1)
    return crossed if crossed.ndim == 1 else crossed.flatten(1).mean(dim=1)


class SoftCrossEntropy(Objective):
    """`soft_cross_entropy` of the first outputs; labels are not read, so streams may have none.

    Args:
        temperature: > 0; 4 in most runs of the paper. 1 where the teacher is not saturated (proposed).

    Raises:
        RecipeError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self._temperature = positive_temperature("soft_cross_entropy", temperature)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats."""
        return soft_cross_entropy(student.output, teacher.output, self._temperature)
