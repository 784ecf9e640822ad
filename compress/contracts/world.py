"""Everything one training step may touch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.contracts.teacher import Teacher


def seen(batch: Batch) -> Batch:
    """What a teacher sees of a task without privileged inputs."""
    return batch


def whole(rows: Tensor) -> Tensor:
    """What one process has is all there is."""
    return rows


@dataclass(frozen=True)
class World:
    """Students, teachers and objectives by name.

    Attributes:
        students: usually one, "student", which is shipped; a method may train several (mutual learning).
        teachers: usually one, "teacher".
        objectives: by the names that recipes give weights to.
        weights: objective -> its weight now (constants and schedules of the recipe, already evaluated).
        modules: the method's further trainable parts, by name.
        observe: runs the student or module of that name and collects its taps; mixed precision is inside, answers are
            float32.
        ask: the answers of the teacher of that name, float32, without gradient; mixed precision is inside.
        groups: optimiser groups by name: each student's name, "objectives", and those a method adds.
        supervised: the task's own loss on labels, (output, labels) -> (B,).
        told: a batch as the given teacher sees it: what no student does (`Task.privileged`) stands behind its inputs.
        gather: rows of this process's part of the batch, (b, ...), -> those of the whole batch, (B, ...), through which
            gradients flow; for what a step computes over the batch. The same tensor where one process trains.
    """

    students: Mapping[str, nn.Module]
    teachers: Mapping[str, Teacher]
    objectives: Mapping[str, Objective]
    modules: Mapping[str, nn.Module]
    weights: Callable[[str], float]
    observe: Callable[[str, Batch], Signals]
    ask: Callable[[str, Batch], Signals]
    groups: Mapping[str, tuple[nn.Parameter, ...]]
    supervised: Callable[[Tensor, Tensor], Tensor]
    told: Callable[[Batch], Batch] = seen
    gather: Callable[[Tensor], Tensor] = whole
