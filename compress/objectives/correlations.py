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
from compress.similarity import widened
from compress.terms import positive_temperature

EPSILON = 1e-8  # beside the product of lengths in the denominator, as in the authors' code


def pearson_distance(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """1 - Pearson's correlation along `dim`.

    Args:
        student, teacher: any numbers, of one shape.

    Returns:
        The shape without `dim`, in [0, 2]; 1 without gradient where either does not vary: a student whose last
        layer begins at zero would otherwise get one of the size of 1 / EPSILON.
    """
    ours, theirs = (values - values.mean(dim=dim, keepdim=True) for values in (student, teacher))
    product = (ours * theirs).sum(dim=dim)
    lengths = torch.linalg.vector_norm(ours, dim=dim) * torch.linalg.vector_norm(theirs, dim=dim)
    return torch.where(_vary(student, teacher, dim), 1.0 - product / (lengths + EPSILON), 1.0)


class BetweenClasses(Objective):
    """DIST's inter-class term: how each example's class probabilities relate.

    Args:
        temperature: > 0; the paper takes 1 on ImageNet and 4 on CIFAR-100.

    Raises:
        RecipeError: the temperature is not positive.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self._temperature = positive_temperature("between_classes", temperature, 1.0)

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
        self._temperature = positive_temperature("between_examples", temperature, 1.0)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(C,), whose mean is that of the classes which vary over the batch in both networks. Of the others, such as
        all of them in a batch of one, nothing can be said: their value is 0."""
        ours, theirs = _probabilities(student, teacher, self._temperature)
        there = _vary(ours, theirs, dim=0)
        share = len(there) / there.sum().clamp(min=1)
        return self._temperature**2 * share * torch.where(there, pearson_distance(ours, theirs, dim=0), 0.0)


def _probabilities(student: Signals, teacher: Signals, temperature: float) -> tuple[Tensor, Tensor]:
    """(rows, C) of both, in float32 or wider; a position of a map is a row."""
    if student.output.shape != teacher.output.shape:
        raise ValueError(f"student {tuple(student.output.shape)}, teacher {tuple(teacher.output.shape)}")
    ours, theirs = (
        (widened(logits) / temperature).softmax(dim=1).movedim(1, -1).reshape(-1, logits.shape[1])
        for logits in (student.output, teacher.output.detach())
    )
    return ours, theirs


def _vary(student: Tensor, teacher: Tensor, dim: int) -> Tensor:
    """Whether both hold different numbers along `dim`."""
    one, other = (values.amax(dim=dim) > values.amin(dim=dim) for values in (student, teacher))
    return one & other
