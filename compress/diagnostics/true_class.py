"""How often a teacher's probabilities back the labels.

Losses that weigh the label's term by the teacher's probability of the label (PLD, arXiv:2506.12542) learn nothing of
labels that the teacher finds improbable. Below a mean of 0.3 a warning is due (proposed).
"""

from collections.abc import Iterator, Mapping

from compress.contracts.batch import Batch
from compress.contracts.diagnostic import Diagnostic
from compress.contracts.signals import Signals

SEEN = 10_000  # training examples that are looked at
LEAST = 0.3  # mean probability of the label below which a report warns (proposed)


class TrueClass(Diagnostic):
    """`true_class_probability`: the teacher's mean probability of the label, at temperature 1; `true_class_improbable`:
    the share of labels that it gives less than `LEAST`. Both are fractions; nothing without class labels.

    Of the first training examples, whose labels the loss weighs: they may be worse than those of the test data.
    """

    stream = "train"

    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """(batch, student, teacher) triples -> figures by name."""
        total = improbable = 0.0
        count = seen = 0
        for batch, _, teacher in answers:
            labels, logits = batch.labels, teacher.output
            if labels is None or logits.ndim < 2 or labels.shape != (len(logits), *logits.shape[2:]):
                return {}
            p = logits.double().softmax(dim=1).gather(1, labels.unsqueeze(1))
            total, improbable = total + float(p.sum()), improbable + float((p < LEAST).sum())
            count += p.numel()
            seen += len(labels)
            if seen >= SEEN:
                break
        return {"true_class_probability": total / count, "true_class_improbable": improbable / count} if count else {}


DIAGNOSTIC = TrueClass
