"""Let a student see the same similarities between the examples of a batch as the teacher does.

Source: Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv:1907.09682, equations 2 to 4;
the relation term of arXiv:2303.15678.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.similarity import relation_rows
from compress.structure.tap_pairs import TapPairs


class Relations(Objective):
    """`relation_rows` between pairs of tapped modules, whose widths and sizes may differ. Nothing is trained but the
    student. The values are small, about 1 / B, so that its weight is large.

    Args:
        student: names of the student's modules, (B, ...) each: the last map before pooling.
        teacher: names of the teacher's, one for each of the student's.

    Raises:
        RecipeError: the two lists are empty or differ in length.
    """

    batch_wide = True

    def __init__(self, student: Sequence[str] | str, teacher: Sequence[str] | str) -> None:
        super().__init__()
        self.pairs = TapPairs.read("relations", student, teacher)
        self.student_taps, self.teacher_taps = self.pairs.student, self.pairs.teacher

    @classmethod
    def example(cls) -> Self:
        """Between the feature maps."""
        return cls("body", "body")

    def prepare(self, preparation: Preparation) -> None:
        """Compare each stage once, where a network has fewer of them."""
        self.pairs = self.pairs.once(preparation)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,): each sample's part of the distance, whose mean is M_r; the mean over the pairs."""
        rows = [relation_rows(student.taps[ours], teacher.taps[theirs].detach()) for ours, theirs in self.pairs]
        return torch.stack(rows).mean(dim=0)
