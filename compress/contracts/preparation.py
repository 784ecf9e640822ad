"""What objectives and strategies may look at before training starts."""

import copy
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
from compress.errors import TeacherError


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
        students, teachers: by name, to be copied: a critic that starts as its student. See `trainable_teacher`.
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

    def trainable_teacher(self, name: str = "teacher") -> nn.Module:
        """A copy of that teacher's network, which the method goes on training; the teacher itself stays as it is.

        It takes what the teacher sees (`World.told`).

        Raises:
            TeacherError: it is a black box, or no single network.
        """
        networks = dict(self.teachers[name].modules())
        if len(networks) != 1:
            raise TeacherError(
                f"the method goes on training its teacher, and this one, {type(self.teachers[name]).__name__}, is "
                f"{f'of {len(networks)} networks' if networks else 'a black box'}",
                fix="give the teacher as Python with its weights, or choose a method that needs outputs alone",
            )
        return copy.deepcopy(next(iter(networks.values()))).requires_grad_(True)

    @property
    def example_output(self) -> Tensor:
        """The student's output on a few examples, for shapes."""
        return self.student_example.output
