"""What a report says about how student and teacher relate."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals


class Diagnostic(ABC):
    """Reads answers of student and teacher to the same batches; changes nothing."""

    @abstractmethod
    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """(batch, student, teacher) triples -> figures by name."""
