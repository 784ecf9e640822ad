"""What a report says about how student and teacher relate."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from compress.contracts.batch import Batch
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals


class Diagnostic(ABC):
    """Reads answers of student and teacher to the same batches; changes nothing.

    Attributes:
        student_taps, teacher_taps: what it wants in the answers' taps, as objectives say it. Both are empty where the
            teacher is a black box.
        stream: the split, or further stream of the task, whose answers it reads; without figures where a task has none.
    """

    student_taps: ClassVar[tuple[str, ...]] = ()
    teacher_taps: ClassVar[tuple[str, ...]] = ()
    stream: ClassVar[str] = "test"

    def learned(self, objectives: Sequence[Objective]) -> None:
        """Called before `measure`: what the student was trained by, as its training left it."""
        return

    @abstractmethod
    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """(batch, student, teacher) triples -> figures by name."""
