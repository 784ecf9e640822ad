"""A score that foretells, without any training, how good a student will become."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from compress.contracts.batch import Batch

Score = Callable[[nn.Module, nn.Module | None, Batch], float]
"""(student, teacher, batch) -> score, higher is better; -inf or NaN where it has no value for this student.

Both networks take the batch's inputs, raw, and have the weights that the score is to be taken with; neither is changed.

Raises:
    RecipeError: the score is not defined here (no teacher, no classifier, classifiers of different width).
"""


@dataclass(frozen=True)
class Proxy:
    """What a file of `compress/selection/proxies` ends with. Calling it gives the score.

    Attributes:
        source: paper, with section or equation.
        compares: whether it needs the teacher.
        drawn: whether it depends on the weights, so that it has to be averaged over several draws.
    """

    source: str
    score: Score
    compares: bool = False
    drawn: bool = True

    def __call__(self, student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
        """As `Score`."""
        return self.score(student, teacher, batch)
