"""Minus the distance between the teacher's and the student's relations between samples, on their last maps.

Source: arXiv:2303.15678, relation metric (the loss of arXiv:1907.09682).
"""

from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.proxy import Proxy
from compress.selection.observation import observe, required
from compress.similarity import relation_distance


def score(student: nn.Module, teacher: nn.Module | None, batch: Batch) -> float:
    """-M_r, -4 / B to 0."""
    theirs = observe(required(teacher), batch.inputs).features
    return -float(relation_distance(observe(student, batch.inputs).features, theirs))


PROXY = Proxy(source="arXiv:2303.15678, M_r", score=score, compares=True)
