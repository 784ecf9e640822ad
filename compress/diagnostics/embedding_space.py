"""How near a student's vectors are to the teacher's, and what searching loses by short and by rounded ones.

Source: Vujanic, Rueckstiess, arXiv:2509.12539 (standard and asymmetric search; truncation and quantisation that follow
the teacher's space). The quantiles are proposed.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.diagnostic import Diagnostic
from compress.contracts.signals import Signals
from compress.retrieval import in_int8, ndcg_at, of_unit_length, prefix, recall_at, signs

QUANTILES = (0.01, 0.1, 0.5)
SIZES = (32, 64, 128, 256)


class EmbeddingSpace(Diagnostic):
    """Cosines of student and teacher to the same text; recall and nDCG where labels grade documents that are there too.

    A label is then a row over documents: grades from 0, -1 where the text is that very document. Standard search has
    both sides by the student, asymmetric search the documents by the teacher. Every text is read as the student reads
    it, so that documents may be cut.
    """

    def measure(self, answers: Iterator[tuple[Batch, Signals, Signals]]) -> Mapping[str, float]:
        """Figures by name; none for outputs that are no vectors."""
        ours, theirs, labels = [], [], []
        for batch, student, teacher in answers:
            ours.append(student.output)
            theirs.append(teacher.output)
            labels.append(batch.labels)
        student_vectors, teacher_vectors = torch.cat(ours), torch.cat(theirs)
        if student_vectors.shape != teacher_vectors.shape or student_vectors.ndim != 2:
            return {}
        cosines = F.cosine_similarity(student_vectors, teacher_vectors)
        found = {"cosine, mean": float(cosines.mean())}
        for share in QUANTILES:
            found[f"cosine, {share:.0%} quantile"] = float(cosines.quantile(share))
        known = [row for row in labels if row is not None]
        if len(known) == len(labels):
            found |= searched(student_vectors, teacher_vectors, torch.cat(known))
        return found


def searched(student: Tensor, teacher: Tensor, labels: Tensor) -> dict[str, float]:
    """Recall of the queries among the documents, and nDCG with the grades as gains.

    Args:
        student, teacher: (N, d).
        labels: (N, D); without figures where they are no grades, or a document is not among the texts.
    """
    if labels.ndim != 2 or labels.is_floating_point():
        return {}
    asked, own = labels.amax(dim=1) > 0, labels == -1
    if not bool(asked.any()) or not bool((own.sum(dim=0) == 1).all()):
        return {}
    places = own.int().argmax(dim=0)  # of each document
    relevant = labels[asked] > 0
    queries, ours, theirs = student[asked], student[places], teacher[places]

    def recall(q: Tensor, d: Tensor, change: Callable[[Tensor], Tensor]) -> float:
        return float(recall_at(change(q) @ change(d).T, relevant).mean())

    found = {
        "recall@10, teacher alone": recall(teacher[asked], theirs, of_unit_length),
        "recall@10, asymmetric": recall(queries, theirs, of_unit_length),
        "recall@10, standard": recall(queries, ours, of_unit_length),
    }
    grades = labels[asked].clamp(min=0)
    for name, q, d in (
        ("teacher alone", teacher[asked], theirs),
        ("asymmetric", queries, theirs),
        ("standard", queries, ours),
    ):
        found[f"nDCG@10, {name}"] = float(ndcg_at(of_unit_length(q) @ of_unit_length(d).T, grades).mean())
    for size in (size for size in SIZES if size < student.shape[1]):
        found[f"recall@10, asymmetric, {size} of {student.shape[1]}"] = recall(
            queries, theirs, partial(prefix, size=size)
        )
        found[f"recall@10, teacher alone, {size} of {student.shape[1]}"] = recall(
            teacher[asked], theirs, partial(prefix, size=size)
        )
    found["recall@10, asymmetric, 8 bits"] = recall(queries, theirs, in_int8)
    found["recall@10, asymmetric, 1 bit"] = recall(queries, theirs, signs)
    found["recall@10, teacher alone, 1 bit"] = recall(teacher[asked], theirs, signs)
    return found


DIAGNOSTIC = EmbeddingSpace
