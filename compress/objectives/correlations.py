"""Keep the relations of the teacher's probabilities instead of the probabilities: DIST's two terms.

Source: Huang, You, Wang, Qian, Xu, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv:2205.10536,
equations 5 to 9: 1 - Pearson's correlation of each example's probabilities (between classes), and of each class's
probabilities over the batch (between examples). The factor temperature squared is that of the authors' code.
"""

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import RecipeError

EPSILON = 1e-8  # of the authors' code: rows that do not vary correlate with nothing


def pearson_distance(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """1 - Pearson's correlation along `dim`.

    Args:
        student, teacher: any numbers, of one shape.

    Returns:
        The shape without `dim`, in [0, 2]; 1 where either does not vary.
    """
    ours, theirs = (values - values.mean(dim=dim, keepdim=True) for values in (student, teacher))
    product = (ours * theirs).sum(dim=dim)
    lengths = torch.linalg.vector_norm(ours, dim=dim) * torch.linalg.vector_norm(theirs, dim=dim)
    distance: Tensor = 1.0 - product / lengths.clamp(min=EPSILON)
    return distance


class BetweenClasses(Objective):
    """DIST's inter-class term: how each example's class probabilities relate.

    Args:
        temperature: > 0; the paper takes 1 on ImageNet and 4 on CIFAR-100.

    Raises:
        RecipeError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self._temperature = _positive("between_classes", temperature)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,), or (B, ...) positions flattened: one value for each row of probabilities."""
        ours, theirs = _probabilities(student, teacher, self._temperature)
        return self._temperature**2 * pearson_distance(ours, theirs, dim=1)


class BetweenExamples(Objective):
    """DIST's intra-class term: how the examples of a batch relate in each class. It needs batches of many examples.

    Args:
        temperature: > 0.

    Raises:
        RecipeError: the temperature is not positive.
    """

    batch_wide = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self._temperature = _positive("between_examples", temperature)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(C,): one value for each class."""
        ours, theirs = _probabilities(student, teacher, self._temperature)
        return self._temperature**2 * pearson_distance(ours, theirs, dim=0)


def _probabilities(student: Signals, teacher: Signals, temperature: float) -> tuple[Tensor, Tensor]:
    """(rows, C) of both; a position of a map is a row."""
    if student.output.shape != teacher.output.shape:
        raise ValueError(f"student {tuple(student.output.shape)}, teacher {tuple(teacher.output.shape)}")
    ours, theirs = (
        (logits / temperature).softmax(dim=1).movedim(1, -1).reshape(-1, logits.shape[1])
        for logits in (student.output, teacher.output.detach())
    )
    return ours, theirs


def _positive(name: str, temperature: float) -> float:
    if not 0.0 < temperature < float("inf"):
        raise RecipeError(f"{name} has the temperature {temperature}", fix="write a temperature above 0, such as 1.0")
    return temperature
