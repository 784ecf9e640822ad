"""How well the numbers of a regression agree: the student's with the teacher's, and both with the labels.

Source: Kounadis-Bastian et al. 2024, arXiv:2408.13920, reports concordance coefficients (Lin 1989) of whole sets. A
student that learns from its teacher alone is told apart by the two: near the teacher and far from the labels, the
teacher is at fault.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from compress.coefficients import concordance_of, concordance_sums
from compress.contracts.batch import Batch
from compress.contracts.diagnostic import Diagnostic
from compress.contracts.signals import Signals


class ConcordanceWithTeacher(Diagnostic):
    """Coefficients over all examples, mean over outputs, in [-1, 1]; the last figure is that of the output on which
    student and teacher agree least.

    No figures for answers that are not (B, outputs), and none with labels where they are no such numbers.
    """

    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """(batch, student, teacher) triples -> figures by name."""
        sums: dict[str, Tensor] = {}
        count, labelled = 0, True
        for batch, student, teacher in answers:
            ours, theirs, labels = student.output, teacher.output, batch.labels
            if ours.ndim != 2 or ours.shape != theirs.shape:
                return {}
            pairs = {"student and teacher": (ours, theirs)}
            labelled = labelled and labels is not None and labels.shape == ours.shape and labels.is_floating_point()
            if labelled and labels is not None:
                pairs |= {"student and labels": (ours, labels), "teacher and labels": (theirs, labels)}
            for name, (first, second) in pairs.items():
                found = concordance_sums(first, second).sum(dim=0).cpu()
                sums[name] = sums.get(name, torch.zeros_like(found)) + found
            count += len(ours)
        if not count:
            return {}
        kept = sums if labelled else {name: total for name, total in sums.items() if "labels" not in name}
        figures = {name: float(concordance_of(total, count).mean()) for name, total in kept.items()}
        least = float(concordance_of(sums["student and teacher"], count).min())
        return figures | {"student and teacher, least of outputs": least}


DIAGNOSTIC = ConcordanceWithTeacher
