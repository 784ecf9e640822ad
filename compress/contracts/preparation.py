"""What objectives and strategies may look at before training starts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits
from compress.contracts.signals import Signals
from compress.contracts.stages import Stage
from compress.contracts.teacher import Teacher


class Answers(Protocol):
    """Every answer of the teacher on one split, batch by batch, in order, without augmentation."""

    def __call__(self, split: str) -> Iterator[tuple[Batch, Signals]]: ...


def as_it_is(batch: Batch, generator: torch.Generator) -> Batch:
    """The augmentation of a task that has none."""
    return batch


def no_companions() -> Mapping[str, nn.Module]:
    """Those of a task that has none."""
    return {}


@dataclass(frozen=True)
class Preparation:
    """The data, the teacher's answers to it, and one example of what student and teacher say.

    Attributes:
        supervised: the task's own loss on labels, (output, labels) -> (B,).
        student_stages, teacher_stages: where the stages end that taps asked for, of the first of each.
        augment: the task's augmentation, for data strategies that say `augments`; its batches belong to no stream, so
            that no cache answers for them. The batch as it is where the task has none.
        students, teachers: the networks themselves, to be copied: a critic that starts as the teacher, a teacher that
            the method goes on training (`copy.deepcopy(...).requires_grad_(True)`).
        companions: makes the task's further networks by name (`Task.companions`).
    """

    splits: Splits
    answers: Answers
    student_example: Signals
    teacher_example: Signals
    outputs: int
    seed: int
    supervised: Callable[[Tensor, Tensor], Tensor]
    student_stages: Mapping[str, Stage] = field(default_factory=dict)
    teacher_stages: Mapping[str, Stage] = field(default_factory=dict)
    augment: Callable[[Batch, torch.Generator], Batch] = as_it_is
    students: Mapping[str, nn.Module] = field(default_factory=dict)
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    companions: Callable[[], Mapping[str, nn.Module]] = no_companions

    @property
    def example_output(self) -> Tensor:
        """The student's output on a few examples, for shapes."""
        return self.student_example.output
