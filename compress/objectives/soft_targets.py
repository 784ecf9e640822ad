"""Match the teacher's softened class probabilities.

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2.
"""

from torch import Tensor
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import RecipeError


def soft_target_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the softened probabilities, times temperature squared.

    Args:
        student: logits, (B, C, ...): classes are dimension 1, further ones are averaged over.
        teacher: logits of the same shape. No gradient flows into them.
        temperature: > 0, dimensionless. 1 leaves the probabilities as they are.

    Returns:
        (B,), in nats, >= 0; 0 where the two agree up to a constant per position.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(f"student logits {tuple(student.shape)}, teacher logits {tuple(teacher.shape)}")
    log_p = F.log_softmax(teacher.detach() / temperature, dim=1)
    log_q = F.log_softmax(student / temperature, dim=1)
    divergence = (log_p.exp() * (log_p - log_q)).sum(dim=1)
    # Gradients of softened logits shrink as 1/T^2; the factor keeps this term's weight when T changes.
    return temperature**2 * divergence.flatten(1).mean(dim=1) if divergence.ndim > 1 else temperature**2 * divergence


class SoftTargets(Objective):
    """`soft_target_loss` of the first outputs.

    Args:
        temperature: > 0. Hinton's own experiments use 2 to 20; at scale 1 does well (arXiv:2305.15781).

    Raises:
        RecipeError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        if not 0.0 < temperature < float("inf"):
            raise RecipeError(
                f"soft_targets has the temperature {temperature}", fix="write a temperature above 0, such as 4.0"
            )
        self.temperature = temperature

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,) nats."""
        return soft_target_loss(student.output, teacher.output, self.temperature)
