"""What terms of a loss have in common: the temperature that they are given, the labels that they need, and how a
teacher and labels share one example's loss.
"""

from collections.abc import Callable

from torch import Tensor

from compress.contracts.batch import Batch
from compress.errors import RecipeError, TaskError
from compress.similarity import soft_target_loss


def positive_temperature(objective: str, temperature: float, usual: float = 4.0) -> float:
    """The temperature, dimensionless.

    Args:
        objective: whose it is, for the message.
        usual: what the message proposes.

    Raises:
        RecipeError: it is not above 0, or infinite.
    """
    if not 0.0 < temperature < float("inf"):
        raise RecipeError(
            f"{objective} has the temperature {temperature}", fix=f"write a temperature above 0, such as {usual}"
        )
    return temperature


def labels_for(objective: str, batch: Batch) -> Tensor:
    """The batch's labels.

    Raises:
        TaskError: it has none.
    """
    if batch.labels is None:
        raise TaskError(f"the objective '{objective}' met a stream without labels", fix="give it a labelled stream")
    return batch.labels


def shared_loss(
    share: Tensor,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    supervised: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """share * T^2 KL(teacher || student) + (1 - share) * the task's loss on labels.

    Args:
        share: of the teacher, (B,) in [0, 1].
        student, teacher: logits, (B, C). No gradient flows into the teacher's.
        labels: class indices, (B,).
        temperature: T > 0.
        supervised: (logits, labels) -> (B,).

    Returns:
        (B,), in nats.
    """
    return share * soft_target_loss(student, teacher, temperature) + (1.0 - share) * supervised(student, labels)
