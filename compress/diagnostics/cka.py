"""How similar what the stages of two networks compute is, whatever their widths and families.

Sources: Kornblith, Norouzi, Lee, Hinton, "Similarity of Neural Network Representations Revisited", ICML 2019,
arXiv:1905.00414 (linear CKA); Song et al., "Feature Selection via Dependence Maximization", JMLR 2012 (the unbiased
estimator of HSIC); Nguyen, Raghu, Kornblith, "Do Wide and Deep Networks Learn the Same Things?", ICLR 2021,
arXiv:2010.15327 (HSIC averaged over batches before the ratio); used by arXiv:2310.19444 to show that features of
different families differ.

With fewer examples than channels the biased form saturates: two random (32, 64) matrices give 0.68, unbiased 0.05.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.diagnostic import Diagnostic
from compress.contracts.signals import Signals
from compress.contracts.stages import stages
from compress.structure.tap_pairs import matched

COUNT = 4  # stages of each network
FEWEST = 4  # examples that the unbiased estimator needs


def linear_cka(student: Tensor, teacher: Tensor) -> float:
    """||X'Y||^2 / (||X'X|| ||Y'Y||) of centred columns, biased upwards.

    Args:
        student: (N, P).
        teacher: (N, Q), of the same examples.

    Returns:
        0 to 1. Unchanged by rotations, one factor on all columns, and shifts; 0 where a side is constant.

    Raises:
        ValueError: not two matrices with as many rows.
    """
    x, y = _centred(student, teacher)
    own = float((x.T @ x).norm() * (y.T @ y).norm())
    return float((x.T @ y).square().sum()) / own if own > 0.0 else 0.0


def unbiased_cka(student: Tensor, teacher: Tensor) -> float:
    """The same with `hsic` of one batch; may be negative. NaN where the estimate for one side is not positive."""
    sums = _Sums()
    sums.add(student, teacher)
    return sums.ratio()


def hsic(student: Tensor, teacher: Tensor) -> float:
    """Unbiased estimate of HSIC with linear kernels.

    [tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 / (n - 2) 1'K L 1] / (n (n - 3)), K and L without their diagonals.

    Args:
        student: (N, P), N > 3.
        teacher: (N, Q), of the same examples.

    Raises:
        ValueError: fewer than four examples, or not two matrices with as many rows.
    """
    x, y = _centred(student, teacher)  # changes nothing but the rounding
    count = len(x)
    if count < FEWEST:
        raise ValueError(f"{count} examples; the unbiased estimator needs {FEWEST}")
    k, l = (rows @ rows.T for rows in (x, y))  # noqa: E741
    k.fill_diagonal_(0.0)
    l.fill_diagonal_(0.0)
    both = (k * l).sum() + k.sum() * l.sum() / ((count - 1) * (count - 2))
    both -= 2.0 / (count - 2) * (k.sum(0) * l.sum(0)).sum()
    return float(both) / (count * (count - 3))


def vectors(feature: Tensor) -> Tensor:
    """(B, C, ...) -> (B, C): the mean over positions."""
    return feature.flatten(2).mean(2) if feature.ndim > 2 else feature


class _Sums:
    """HSIC of two sides with each other and themselves, over batches."""

    def __init__(self) -> None:
        self.both = self.ours = self.theirs = 0.0

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """One more batch, weighted by its size."""
        self.both += len(student) * hsic(student, teacher)
        self.ours += len(student) * hsic(student, student)
        self.theirs += len(student) * hsic(teacher, teacher)

    def ratio(self) -> float:
        """CKA; NaN where a side's own estimate is not positive."""
        own = self.ours * self.theirs
        return self.both / own**0.5 if self.ours > 0.0 and self.theirs > 0.0 and own > 0.0 else float("nan")


class CKA(Diagnostic):
    """`unbiased_cka` between all stages of student and teacher, over all batches; features are means over positions.

    Figures are called `teacher_1_student_1` and so on; `diagonal` is the mean of those that correspond. Low ones say
    that hints between these stages ask for what the student's family cannot give. Of a network with fewer stages each
    is there once, by the last of its numbers. Nothing is said of a black box, or of batches of fewer than four
    examples.
    """

    student_taps: ClassVar[tuple[str, ...]] = stages(COUNT)
    teacher_taps: ClassVar[tuple[str, ...]] = stages(COUNT)

    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """(batch, student, teacher) triples -> figures by name."""
        sums: dict[tuple[int, int], _Sums] = {}
        diagonal: tuple[int, ...] = ()
        for _, student, teacher in answers:
            if not student.taps or not teacher.taps or len(student.output) < FEWEST:
                continue
            ours = [vectors(student.taps[name]) for name in self.student_taps]
            theirs = [vectors(teacher.taps[name]) for name in self.teacher_taps]
            if not sums:
                a = _ends(student.taps[name] for name in self.student_taps)
                b = _ends(teacher.taps[name] for name in self.teacher_taps)
                diagonal = matched(a, b)
                rows, places = ({*matched(side, side), *diagonal} for side in (b, a))
                sums = {(row, place): _Sums() for row in sorted(rows) for place in sorted(places)}
            for row, place in sums:
                sums[row, place].add(ours[place], theirs[row])
        if not sums:
            return {}
        ratios = {f"teacher_{row + 1}_student_{place + 1}": total.ratio() for (row, place), total in sums.items()}
        mean = sum(sums[place, place].ratio() for place in diagonal) / len(diagonal)
        return {name: value for name, value in {**ratios, "diagonal": mean}.items() if math.isfinite(value)}


def _ends(features: Iterable[Tensor]) -> list[int]:
    """What tells stages apart: several names for one end of a network share one tensor."""
    return [feature.data_ptr() for feature in features]


def _centred(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """float64, columns of mean 0."""
    if student.ndim != 2 or teacher.ndim != 2 or len(student) != len(teacher) or not len(student):
        raise ValueError(f"student features {tuple(student.shape)}, teacher features {tuple(teacher.shape)}")
    x, y = (side.detach().to(torch.float64) for side in (student, teacher))
    return x - x.mean(0), y - y.mean(0)


DIAGNOSTIC = CKA
