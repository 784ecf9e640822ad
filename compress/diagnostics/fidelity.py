"""Does the student copy the teacher, or is it merely as good?

Source: Stanton, Izmailov, Kirichenko, Alemi, Wilson, "Does Knowledge Distillation Really Work?", NeurIPS 2021,
arXiv:2106.05945, section 3: top-1 agreement (equation 4) and predictive KL (equation 5), at temperature 1.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.diagnostic import Diagnostic
from compress.contracts.signals import Signals


def agreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Where the most probable classes are the same: (B, C, ...) logits each -> (B, ...) of 0 and 1."""
    return (student.argmax(dim=1) == teacher.argmax(dim=1)).to(torch.float64)


def predictive_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(teacher || student): (B, C, ...) logits each -> (B, ...) nats, float64, >= 0."""
    log_p = teacher.double().log_softmax(dim=1)
    log_q = student.double().log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def agreement_bounds(student: float, teacher: float) -> tuple[float, float]:
    """Least and largest agreement that two accuracies (fractions) allow: what lies inside shows nothing by itself."""
    return max(0.0, student + teacher - 1.0), 1.0 - abs(student - teacher)


class Fidelity(Diagnostic):
    """`agreement` (a fraction) and `predictive_kl` (nats) over all examples.

    With labels also `student_accuracy`, `teacher_accuracy` and the bounds `agreement_least` and `agreement_most` that
    follow from these. Figures are sums over examples, so the batch size does not change them. Answers that are not
    class logits (one output, or none to compare) give no figures.
    """

    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """(batch, student, teacher) triples -> figures by name.

        Raises:
            ValueError: student and teacher differ in shape.
        """
        same = divergence = ours = theirs = 0.0
        count = labelled = 0
        for batch, student, teacher in answers:
            if student.output.shape != teacher.output.shape:
                raise ValueError(f"student {tuple(student.output.shape)}, teacher {tuple(teacher.output.shape)}")
            if student.output.ndim < 2 or student.output.shape[1] < 2:
                return {}
            agreed = agreement(student.output, teacher.output)
            same += float(agreed.sum())
            divergence += float(predictive_kl(student.output, teacher.output).sum())
            count += agreed.numel()
            labels = batch.labels
            if labels is not None and labels.shape == agreed.shape and not labels.is_floating_point():
                ours += float((student.output.argmax(dim=1) == labels).sum())
                theirs += float((teacher.output.argmax(dim=1) == labels).sum())
                labelled += labels.numel()
        if count == 0:
            return {}
        figures = {"agreement": same / count, "predictive_kl": divergence / count}
        if labelled == count:
            least, most = agreement_bounds(ours / count, theirs / count)
            figures |= {
                "student_accuracy": ours / count,
                "teacher_accuracy": theirs / count,
                "agreement_least": least,
                "agreement_most": most,
            }
        return figures


DIAGNOSTIC = Fidelity
