"""Small runs for the law of capacity gap: a few sizes of network teach a few smaller ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.examples import Examples
from compress.contracts.selector import Candidate, Problem
from compress.errors import TaskError
from compress.selection.capacity_gap import FEWEST_TEACHERS, Pilot

STUDENTS = 3


@dataclass(frozen=True)
class Grid:
    """Who teaches whom.

    Attributes:
        students, teachers: candidates by size, ascending, evenly in the logarithm as far as there are such.
        seeds: of each pair.
    """

    students: tuple[Candidate, ...]
    teachers: tuple[Candidate, ...]
    seeds: int

    @property
    def runs(self) -> int:
        """Trainings in all: each teacher, and each student by each teacher, per seed."""
        return runs(self.seeds, len(self.students), len(self.teachers))


def runs(seeds: int, students: int = STUDENTS, teachers: int = FEWEST_TEACHERS) -> int:
    """Trainings of a grid."""
    return seeds * teachers * (1 + students)


def grid(pool: Sequence[Candidate], most: int) -> Grid | None:
    """The largest grid of at most `most` trainings.

    Teachers span the pool's sizes, those that the budget rejects too: they stay on this machine. Students span the
    lower half, in the logarithm, of what the budget admits.

    Returns:
        None where the pool has too few sizes, or `most` does not pay for one seed.
    """
    sizes = {candidate.cost.params: candidate for candidate in sorted(pool, key=lambda c: c.identity)}
    admitted = {c.cost.params: c for c in sorted(pool, key=lambda c: c.identity) if c.rejected is None}
    seeds = most // runs(1)
    if seeds < 1 or len(sizes) < FEWEST_TEACHERS or len(admitted) < STUDENTS:
        return None
    low, high = min(sizes), max(sizes)
    teachers = even(sizes, low, high, FEWEST_TEACHERS)
    students = even(admitted, min(admitted), max(math.sqrt(low * high), min(admitted)), STUDENTS)
    return Grid(students, teachers, seeds)


def even(sizes: dict[int, Candidate], low: float, high: float, count: int) -> tuple[Candidate, ...]:
    """`count` different sizes nearest to even steps of the logarithm from `low` to `high`, ascending."""
    chosen: list[int] = []
    for place in range(count):
        wanted = math.log(low) + (math.log(high) - math.log(low)) * place / max(1, count - 1)
        left = [size for size in sizes if size not in chosen]
        chosen.append(min(left, key=lambda size: (abs(math.log(size) - wanted), size)))
    return tuple(sizes[size] for size in sorted(chosen))


def run(problem: Problem, grid: Grid, epochs: int, alpha: float) -> list[Pilot]:
    """Train the grid: teachers on labels, students on labels and their teacher's probabilities.

    Args:
        alpha: weight of the teacher's probabilities beside the labels.

    Returns:
        One pilot per student, teacher and seed; losses on the validation labels. Diverged ones are left out.
    """
    pilots = []
    for seed in range(grid.seeds):
        for teacher in grid.teachers:
            taught = problem.student(teacher, seed)
            train(problem, taught, None, epochs, seed, alpha)
            own = loss_on(problem, taught, problem.splits.val)
            for student in grid.students:
                learner = problem.student(student, seed)
                train(problem, learner, taught, epochs, seed, alpha)
                loss = loss_on(problem, learner, problem.splits.val)
                if math.isfinite(loss):
                    sizes = (student.cost.params / 1e6, teacher.cost.params / 1e6)
                    pilots.append(Pilot(*sizes, loss, seed, own))
    return pilots


def train(
    problem: Problem, network: nn.Module, teacher: nn.Module | None, epochs: int, seed: int, alpha: float
) -> None:
    """AdamW with the task's own numbers, the rate falling to 0; without augmentation."""
    numbers, examples = problem.task.teacher_numbers, problem.splits.train
    generator = torch.Generator().manual_seed(problem.seed + seed)
    optimiser = torch.optim.AdamW(
        (p for p in network.parameters() if p.requires_grad),
        numbers.learning_rate,
        weight_decay=numbers.weight_decay,
    )
    steps = epochs * -(-len(examples) // numbers.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(examples), generator=generator)
        for index in torch.split(order, numbers.batch_size):
            if len(index) < 2:  # batch norm cannot train on one
                continue
            batch = examples.batch(index)
            output: Tensor = network(*batch.inputs)
            loss = problem.task.loss(output, labels_of(batch))
            if teacher is not None:
                with torch.no_grad():
                    p = F.softmax(teacher(*batch.inputs), dim=1)
                loss = (1 - alpha) * loss - alpha * (p * F.log_softmax(output, dim=1)).sum(dim=1)
            optimiser.zero_grad(set_to_none=True)
            loss.mean().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    network.eval()


def labels_of(batch: Batch) -> Tensor:
    """
    Raises:
        TaskError: there are none.
    """
    if batch.labels is None:
        raise TaskError(
            "small runs for the law of capacity gap learn from labels, and these data have none",
            fix="write pilot = 0 in select.settings",
        )
    return batch.labels


def loss_on(problem: Problem, network: nn.Module, examples: Examples) -> float:
    """The task's mean loss on labels."""
    total = 0.0
    with torch.no_grad():
        for index in torch.split(torch.arange(len(examples)), 256):
            batch = examples.batch(index)
            total += float(problem.task.loss(network(*batch.inputs), labels_of(batch)).sum())
    return total / len(examples)
