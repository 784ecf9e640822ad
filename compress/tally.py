"""A task's metric over many batches: sums are kept, and made into one figure at the end."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from compress.contracts.metric import Metric
from compress.contracts.task import Task
from compress.errors import TaskError

STEP = 1e-5
"""Of a numerical derivative, relative to the sum that is varied."""
SMALL = 1e-3
"""A sum is varied as if it were at least this share of the largest one."""
GROUPS = 200
"""As many groups of examples, at most, are left out one after the other for a standard error."""


class Tally:
    """Adds up `task.score`; in double precision the figure does not depend on how a split is cut into batches."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._batches: list[list[float]] = []
        self.count = 0

    def add(self, output: Tensor, labels: Tensor | None) -> None:
        """One batch.

        Raises:
            TaskError: there are no labels, or the scores are not (B,) or (B, k) with the same k as before.
        """
        if labels is None:
            raise TaskError("the split has no labels to score against", fix="evaluate on a labelled split")
        scores = self._task.score(output, labels)
        if scores.ndim not in (1, 2) or len(scores) != len(labels):
            raise TaskError(
                f"score() of task {self._task.name!r} gives {tuple(scores.shape)} for {len(labels)} examples",
                fix="let it give (B,), or (B, k) with total() to make one figure of the k sums",
            )
        sums = scores.double().reshape(len(labels), -1).sum(dim=0).tolist()
        if self._batches and len(sums) != len(self._batches[0]):
            raise TaskError(
                f"score() of task {self._task.name!r} gives {len(sums)} figures here and "
                f"{len(self._batches[0])} before",
                fix="let it give the same number for every batch",
            )
        self._batches.append(sums)
        self.count += len(labels)

    @property
    def sums(self) -> list[float]:
        """Of each figure over all batches; empty where none was added."""
        return [math.fsum(column) for column in zip(*self._batches, strict=True)]

    def value(self) -> float:
        """The metric of all that was added; NaN of nothing."""
        return total(self._task, self.sums, self.count)


def total(task: Task, sums: list[float], count: int) -> float:
    """The metric that these sums over `count` examples come to; NaN of none."""
    return task.total(torch.tensor(sums, dtype=torch.float64), count) if count else math.nan


def difference(task: Task, first: Tensor, second: Tensor) -> tuple[float, float | None]:
    """The metric of `first` less that of `second`, and its standard error; None of one example.

    The error is the delete-one jackknife's in 200 groups at most; for a mean of as many examples it is the usual one.

    Args:
        first, second: what `task.score` gives for the same n examples, (n,) or (n, k).
    """
    count = len(first)
    parts = [scores.double().reshape(count, -1) for scores in (first, second)]
    sums = [part.sum(dim=0) for part in parts]
    whole = task.total(sums[0], count) - task.total(sums[1], count)
    groups = min(count, GROUPS)
    if groups < 2:
        return whole, None
    left = []
    for index in torch.arange(count).tensor_split(groups):
        rest = [total - part[index].sum(dim=0) for total, part in zip(sums, parts, strict=True)]
        left.append(task.total(rest[0], count - len(index)) - task.total(rest[1], count - len(index)))
    values = torch.tensor(left, dtype=torch.float64)
    return whole, math.sqrt((groups - 1) * float(values.var(correction=0)))


def linearised(task: Task, sums: Tensor, count: int) -> Callable[[Tensor, Tensor], Tensor]:
    """(output, labels) -> (B,) whose mean over a set is the set's metric, to first order around these sums (the delta
    method), so that a metric of a whole set can be taken apart by examples; exact where it is a mean.

    Args:
        sums: of `task.score` over `count` examples of a network that others are compared with, (k,) float64.
    """
    if type(task).total is Task.total and len(sums) == 1:
        return task.score
    centre = sums / count
    base = task.total(sums, count)
    # A sum that is 0 (of numbers that cancel) says nothing of its size; the largest does, where all are small.
    least = min(1.0, SMALL * float(centre.abs().max())) or 1.0
    steps = torch.eye(len(centre), dtype=torch.float64) * STEP * centre.abs().clamp(min=least)
    slopes = torch.tensor(
        [
            (task.total((centre + step) * count, count) - task.total((centre - step) * count, count))
            / float(2 * step.sum())
            for step in steps
        ],
        dtype=torch.float64,
    )
    return lambda output, labels: (
        base + (task.score(output, labels).double().reshape(len(labels), -1) - centre) @ slopes
    )


def metric_of(task: Task) -> Metric:
    """How its metric is written."""
    return Metric(task.metric, task.metric_unit)


def shown(task: Task, value: float) -> str:
    """The metric as people read it: "91.20 %", or "0.912" where it is no fraction."""
    return metric_of(task).value(value)


def shown_gap(task: Task, difference: float) -> str:
    """A difference of two: "1.20 points", or "0.012"."""
    return metric_of(task).gap(difference)


def metric(task: Task, output: Tensor, labels: Tensor) -> float:
    """Of one batch that is all there is."""
    found = Tally(task)
    found.add(output, labels)
    return found.value()
