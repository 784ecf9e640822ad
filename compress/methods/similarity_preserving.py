"""Samples that look alike to the teacher shall look alike to the student.

Source: Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv:1907.09682, equations 2 to 5; the
weight of 3000 is that of its experiments, for one pair of layers: the last ones before the classifier.

The labels and the inner features alone teach; the teacher's logits do not. Only the batch's own samples are compared,
so teacher and student may differ in channels and in map size, and nothing is trained but the student. The pair here is
the ends of both networks' last stages. A recipe names others, whose terms are summed, each with the whole weight:
[distill.objectives.similarity] student = [...], teacher = [...]. The term's value depends on the batch size, and so
does its best weight. The quantised student goes on with the labels.
"""

from collections.abc import Sequence
from typing import Self

from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method
from compress.contracts.signals import Signals
from compress.contracts.stages import stage
from compress.objectives.labels import Labels
from compress.objectives.relations import Relations

LAST = stage(1, 1)


class Similarity(Relations):
    """`Relations`, summed over the pairs.

    Source: arXiv:1907.09682, equation 4.

    Args:
        student: names of the student's modules or stages, (B, ...) each; the end of the last stage by default.
        teacher: the same of the teacher, one for each of the student's.

    Raises:
        RecipeError: the two lists are empty or differ in length.
    """

    def __init__(self, student: Sequence[str] | str = LAST, teacher: Sequence[str] | str = LAST) -> None:
        super().__init__(student, teacher)

    @classmethod
    def example(cls) -> Self:
        """Between the feature maps and between the vectors."""
        return cls(("body", "pool"), ("body", "pool"))

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,), in [0, 4 * pairs / B]: each sample's part, whose mean over the batch is the paper's term.

        Raises:
            ValueError: a pair's features are of different batches, or have no dimension beside the batch.
        """
        return super().forward(student, teacher, batch, clock) * len(self.pairs)


METHOD = Method(
    source="arXiv:1907.09682 eq. 5",
    objectives={"similarity": Similarity, "labels": Labels},
    weights={"similarity": 3000.0},
    tasks=("classification",),
)
