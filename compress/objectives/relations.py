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
from compress.contracts.signals import Signals
from compress.errors import RecipeError
from compress.similarity import relation_rows


class Relations(Objective):
    """`relation_rows` between pairs of tapped modules, whose widths and sizes may differ. Nothing is trained but the
    student. The values are small, about 1 / B, so that its weight is large.

    Args:
        student: names of the student's modules, (B, ...) each: the last map before pooling.
        teacher: names of the teacher's, one for each of the student's.

    Raises:
        RecipeError: the two lists are empty or differ in length.
    """

    def __init__(self, student: Sequence[str] | str, teacher: Sequence[str] | str) -> None:
        super().__init__()
        self.student_taps = (student,) if isinstance(student, str) else tuple(student)
        self.teacher_taps = (teacher,) if isinstance(teacher, str) else tuple(teacher)
        if not self.student_taps or len(self.student_taps) != len(self.teacher_taps):
            raise RecipeError(
                f"relations pairs {len(self.student_taps)} student modules with {len(self.teacher_taps)} of the"
                " teacher",
                fix="name as many modules of the teacher as of the student, and one at least",
            )

    @classmethod
    def example(cls) -> Self:
        """Between the feature maps."""
        return cls("body", "body")

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,): each sample's part of the distance, whose mean is M_r; the mean over the pairs."""
        rows = [
            relation_rows(student.taps[ours], teacher.taps[theirs].detach())
            for ours, theirs in zip(self.student_taps, self.teacher_taps, strict=True)
        ]
        return torch.stack(rows).mean(dim=0)
