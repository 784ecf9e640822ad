"""What objectives and strategies may look at before training starts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits
from compress.contracts.signals import Signals


class Answers(Protocol):
    """Every answer of the teacher on one split, batch by batch, in order, without augmentation."""

    def __call__(self, split: str) -> Iterator[tuple[Batch, Signals]]: ...


@dataclass(frozen=True)
class Preparation:
    """The data, the teacher's answers to it, and one example of what student and teacher say.

    Attributes:
        supervised: the task's own loss on labels, (output, labels) -> (B,).
    """

    splits: Splits
    answers: Answers
    student_example: Signals
    teacher_example: Signals
    outputs: int
    seed: int
    supervised: Callable[[Tensor, Tensor], Tensor]

    @property
    def example_output(self) -> Tensor:
        """The student's output on a few examples, for shapes."""
        return self.student_example.output
