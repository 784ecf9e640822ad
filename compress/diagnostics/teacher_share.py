"""How far a method with a ratio per sample followed the teacher: against the label, and where the student was far off.

Source: Hu et al., ICLR 2024, arXiv:2312.15112, table 4, which shows the mean ratio by whether the teacher is right and
by the length of the edge between student and teacher; quartiles are ours. Beside labels that are not to be trusted it
is not known whether the teacher is right: what is known, and what the groups say, is whether it confirms the label.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.diagnostic import Diagnostic
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals

SEEN = 10_000  # training examples that are looked at
QUARTILES = ("nearest", "second", "third", "farthest")


def share_by_group(ratio: Tensor, student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, float]:
    """Mean ratio of those samples whose teacher confirms the label, and contradicts it, by quartile of ||T - S||.

    Args:
        ratio: the teacher's share of each sample's loss, (N,).
        student, teacher: logits, (N, C).
        labels: class indices, (N,).

    Returns:
        "teacher_share" (of all), "teacher_share_confirming" and "teacher_share_contradicting", and these by quartile
        ("teacher_share_confirming_nearest", ...); groups without samples are left out. Quartiles are of all samples, so
        that both columns share their bounds. "contradicted_labels" is the share of the second group.
    """
    edge = (teacher.softmax(dim=1) - student.softmax(dim=1)).norm(dim=1)
    quarter = torch.empty(len(edge), dtype=torch.int64)
    quarter[edge.argsort(stable=True)] = torch.arange(len(edge)) * len(QUARTILES) // max(1, len(edge))
    confirmed = teacher.argmax(dim=1) == labels
    figures = {"teacher_share": ratio, "contradicted_labels": (~confirmed).float()}
    for name, members in (("teacher_share_confirming", confirmed), ("teacher_share_contradicting", ~confirmed)):
        figures[name] = ratio[members]
        figures |= {f"{name}_{text}": ratio[members & (quarter == place)] for place, text in enumerate(QUARTILES)}
    return {name: float(values.mean()) for name, values in figures.items() if len(values)}


class TeacherShare(Diagnostic):
    """`share_by_group` of the first objective that has a ratio; nothing where none has, or without class labels.

    Of the first training examples: the ratio weighs these, and their labels may be worse than those of the test data.
    """

    stream = "train"

    def __init__(self) -> None:
        self._objectives: tuple[Objective, ...] = ()

    def learned(self, objectives: Sequence[Objective]) -> None:
        """Take what the student was trained by."""
        self._objectives = tuple(objectives)

    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """(batch, student, teacher) triples -> figures by name."""
        rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for batch, student, teacher in answers:
            labels = batch.labels
            if labels is None or labels.is_floating_point() or labels.ndim != 1:
                return {}
            ratio = next((r for o in self._objectives if (r := o.ratio(student, teacher, batch)) is not None), None)
            if ratio is None:
                return {}
            rows.append((ratio.cpu(), student.output.cpu(), teacher.output.cpu(), labels.cpu()))
            if sum(len(row[0]) for row in rows) >= SEEN:
                break
        if not rows:
            return {}
        ratio, ours, theirs, known = (torch.cat(column) for column in zip(*rows, strict=True))
        return share_by_group(ratio, ours, theirs, known)


DIAGNOSTIC = TeacherShare
