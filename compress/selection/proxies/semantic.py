"""Minus the distance between what the teacher's and the student's classifiers would learn from the batch.

Source: arXiv:2303.15678, semantic metric.
"""

from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.errors import RecipeError
from compress.selection.observation import USE_RELATIONS, observe, required
from compress.similarity import semantic_distance


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """-M_s, -4 to 0; defined for classifiers of the teacher's width."""
    theirs = observe(required(teacher), batch.inputs).gradient(batch.labels)
    ours = observe(student, batch.inputs).gradient(batch.labels)
    try:
        return -float(semantic_distance(ours, theirs))
    except ValueError as error:
        raise RecipeError(str(error), fix=USE_RELATIONS) from error


PROXY = Proxy(source="arXiv:2303.15678, M_s", score=score, compares=True)
