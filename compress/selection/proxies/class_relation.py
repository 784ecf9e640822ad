"""Minus the distance between the relations that both classifiers' gradients have between classes: for any widths.

Source: proposed, as a stand-in for the semantic metric of arXiv:2303.15678 where widths differ. On published accuracies
its sign depends on the initialiser: for reports, not for decisions.
"""

from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.selection.observation import observe, required
from compress.similarity import class_relation_distance


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """-4 / K to 0."""
    theirs = observe(required(teacher), batch.inputs).gradient(batch.labels)
    return -float(class_relation_distance(observe(student, batch.inputs).gradient(batch.labels), theirs))


PROXY = Proxy(source="proposed, after arXiv:2303.15678", score=score, compares=True)
