"""What objectives and strategies may look at before training starts."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits
from compress.contracts.signals import Signals
from compress.contracts.stages import Stage


class Answers(Protocol):
    """Every answer of the teacher on one split, batch by batch, in order, without augmentation."""

    def __call__(self, split: str) -> Iterator[tuple[Batch, Signals]]: ...


@dataclass(frozen=True)
class Preparation:
    """The data, the teacher's answers to it, and one example of what student and teacher say.

    Attributes:
        supervised: the task's own loss on labels, (output, labels) -> (B,).
        student_stages: where the student's stages end, for taps that asked for stages.
    """

    splits: Splits
    answers: Answers
    student_example: Signals
    teacher_example: Signals
    outputs: int
    seed: int
    supervised: Callable[[Tensor, Tensor], Tensor]
    student_stages: Mapping[str, Stage] = field(default_factory=dict)

    @property
    def example_output(self) -> Tensor:
        """The student's output on a few examples, for shapes."""
        return self.student_example.output
