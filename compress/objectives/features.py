"""Let a student's inner features predict the teacher's, through a trainable projection.

Source: Romero, Ballas, Ebrahimi Kahou, Chassang, Gatta, Bengio, "FitNets: Hints for Thin Deep Nets", ICLR 2015,
arXiv:1412.6550, equation 3. The regressor here is 1x1 (or linear), which costs less than the paper's k x k kernel.
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.stages import stage
from compress.errors import RecipeError
from compress.structure.tap_pairs import TapPairs

MIDDLE = stage(2, 4)


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of features.

    Args:
        student: projected features, (B, C, ...).
        teacher: (B, C, ...); maps of another size are averaged or interpolated to the student's. No gradient.

    Returns:
        (B,), >= 0: the mean over everything but the batch, so that a layer's size does not change its weight.

    Raises:
        ValueError: the numbers of channels or of dimensions differ.
    """
    if student.shape[1] != teacher.shape[1] or student.ndim != teacher.ndim:
        raise ValueError(f"student features {tuple(student.shape)}, teacher features {tuple(teacher.shape)}")
    target = teacher.detach()
    if student.shape[2:] != target.shape[2:]:
        target = F.interpolate(target, size=student.shape[2:], mode="area")
    return (student - target).square().flatten(1).mean(dim=1)


def projection(student: Tensor, teacher: Tensor) -> nn.Module:
    """A 1x1 convolution or linear layer that turns the student's number of channels into the teacher's.

    Args:
        student, teacher: example features, (B, C) or (B, C, ...), with equally many dimensions.

    Raises:
        ValueError: the numbers of dimensions differ, or there are more than three spatial ones.
    """
    if student.ndim != teacher.ndim or not 2 <= student.ndim <= 5:
        raise ValueError(f"student features {tuple(student.shape)}, teacher features {tuple(teacher.shape)}")
    narrow, wide = student.shape[1], teacher.shape[1]
    if student.ndim == 2:
        return nn.Linear(narrow, wide)
    convolution = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[student.ndim]
    return convolution(narrow, wide, kernel_size=1)


class Features(Objective):
    """`hint_loss` between pairs of tapped modules, each pair with a projection of its own.

    Args:
        student: names of the student's modules or stages; the middle by default, which needs no names.
        teacher: the same of the teacher, one for each of the student's.

    Raises:
        RecipeError: the two lists are empty or differ in length.
    """

    def __init__(self, student: Sequence[str] | str = MIDDLE, teacher: Sequence[str] | str = MIDDLE) -> None:
        super().__init__()
        self._pairs = TapPairs.read("features", student, teacher)
        self.student_taps, self.teacher_taps = self._pairs.student, self._pairs.teacher
        self.projections = nn.ModuleList()

    @classmethod
    def example(cls) -> Self:
        """Between the feature maps."""
        return cls("body", "body")

    def prepare(self, preparation: Preparation) -> None:
        """Size the projections, one for each pair; where a network has fewer stages, fewer pairs.

        Raises:
            RecipeError: a pair's features cannot be compared.
        """
        self.projections = nn.ModuleList()
        self._pairs = self._pairs.once(preparation)
        for ours, theirs in self._pairs:
            narrow, wide = preparation.student_example.taps[ours], preparation.teacher_example.taps[theirs]
            try:
                self.projections.append(projection(narrow, wide))
            except ValueError as error:
                raise RecipeError(
                    f"{ours!r} gives {tuple(narrow.shape)} and {theirs!r} of the teacher {tuple(wide.shape)}",
                    fix="pair modules whose outputs have as many dimensions, (B, C) or (B, C, ...)",
                ) from error

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,): the mean over the pairs."""
        losses = [
            hint_loss(project(student.taps[ours]), teacher.taps[theirs])
            for project, (ours, theirs) in zip(self.projections, self._pairs, strict=True)
        ]
        return torch.stack(losses).mean(dim=0)
