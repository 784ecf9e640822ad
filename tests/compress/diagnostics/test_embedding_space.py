"""Cosines and searches of a made-up collection."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.diagnostics.embedding_space import EmbeddingSpace, searched
from compress.retrieval import of_unit_length

QUERIES, DOCUMENTS, WIDTH = 12, 30, 40


def collection() -> tuple[Tensor, Tensor]:
    """Vectors of queries and documents, (42, 40): query i lies near document i; and labels."""
    generator = torch.Generator().manual_seed(0)
    documents = torch.randn(DOCUMENTS, WIDTH, generator=generator)
    queries = documents[:QUERIES] + 0.5 * torch.randn(QUERIES, WIDTH, generator=generator)
    grades = torch.zeros(QUERIES, DOCUMENTS, dtype=torch.int8)
    grades[torch.arange(QUERIES), torch.arange(QUERIES)] = 1
    labels = torch.cat([grades, -torch.eye(DOCUMENTS, dtype=torch.int8)])
    return of_unit_length(torch.cat([queries, documents])), labels


def answers(student: Tensor, teacher: Tensor, labels: Tensor | None) -> Iterator[tuple[Batch, Signals, Signals]]:
    for part in torch.split(torch.arange(len(student)), 10):
        given = None if labels is None else labels[part]
        yield Batch((part[:, None],), given, part), Signals(student[part]), Signals(teacher[part])


def test_a_copy_of_the_teacher_searches_alike_both_ways() -> None:
    vectors, labels = collection()
    found = EmbeddingSpace().measure(answers(vectors, vectors, labels))
    assert found["cosine, mean"] == pytest.approx(1.0)
    assert found["cosine, 1% quantile"] == pytest.approx(1.0)
    assert found["recall@10, asymmetric"] == found["recall@10, standard"] == found["recall@10, teacher alone"] == 1.0
    assert found["recall@10, asymmetric, 32 of 40"] == found["recall@10, teacher alone, 32 of 40"]
    assert "recall@10, asymmetric, 64 of 40" not in found


def test_a_turned_student_fails_the_asymmetric_search_alone() -> None:
    vectors, labels = collection()
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1))).Q
    found = searched(vectors @ turn, vectors, labels)
    assert found["recall@10, standard"] == 1.0
    assert found["recall@10, asymmetric"] < 0.75  # chance is a third


def test_every_search_uses_the_sides_and_the_rounding_that_its_name_says() -> None:
    vectors, labels = collection()
    mirrored = vectors.clone()
    mirrored[QUERIES:] *= -1  # the student's queries are right, its documents are the wrong way round
    found = searched(mirrored, vectors, labels)
    assert found["recall@10, standard"] == 0.0
    of_teacher = found["recall@10, teacher alone, 1 bit"]
    assert found["recall@10, asymmetric"] == found["recall@10, asymmetric, 8 bits"] == 1.0
    assert found["recall@10, asymmetric, 1 bit"] == of_teacher > 0.5
    assert found["recall@10, asymmetric, 32 of 40"] == found["recall@10, teacher alone, 32 of 40"] > 0.5
    mirrored = vectors.clone()
    mirrored[:QUERIES] *= -1  # now its queries are
    found = searched(mirrored, vectors, labels)
    assert {value for name, value in found.items() if "teacher" not in name} == {0.0}
    assert found["recall@10, teacher alone, 1 bit"] == of_teacher


def test_one_bit_forgets_how_large_a_coordinate_is() -> None:
    vectors, labels = collection()
    vectors[:, 0] *= 50.0  # nearly all of a vector's length, and all of one bit
    found = searched(vectors, vectors, labels)
    assert found["recall@10, asymmetric, 1 bit"] > found["recall@10, asymmetric"] + 0.2


def test_quantiles_are_of_the_cosines() -> None:
    teacher = of_unit_length(torch.eye(4))
    student = teacher.clone()
    student[0] = torch.tensor([0.6, 0.8, 0.0, 0.0])
    found = EmbeddingSpace().measure(answers(student, teacher, None))
    assert found["cosine, mean"] == pytest.approx(0.9)
    assert found["cosine, 50% quantile"] == pytest.approx(1.0)
    assert found["cosine, 1% quantile"] == pytest.approx(0.6 + 0.03 * 0.4)
    assert not [name for name in found if "recall" in name]


def test_class_indices_and_documents_that_are_absent_give_no_search() -> None:
    vectors, labels = collection()
    assert searched(vectors, vectors, torch.zeros(len(vectors), dtype=torch.int64)) == {}
    assert searched(vectors[:-1], vectors[:-1], labels[:-1]) == {}


def test_grades_are_gains_worked_by_hand() -> None:
    texts = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]])  # a query, and three documents
    labels = torch.tensor([[1, 3, 0], [-1, 0, 0], [0, -1, 0], [0, 0, -1]], dtype=torch.int8)
    found = searched(texts, texts, labels)
    second = 1.0 / torch.tensor(3.0).log2().item()
    assert found["recall@10, standard"] == 1.0
    assert found["nDCG@10, standard"] == pytest.approx((1 + 3 * second) / (3 + second), abs=1e-6)
    assert found["nDCG@10, asymmetric"] == found["nDCG@10, teacher alone"] == found["nDCG@10, standard"]
    exchanged = texts[[0, 2, 1, 3]]  # the teacher has the better document in front
    mixed = searched(texts, exchanged, labels)
    assert mixed["nDCG@10, teacher alone"] == mixed["nDCG@10, asymmetric"] == pytest.approx(1.0)
    assert mixed["nDCG@10, standard"] == found["nDCG@10, standard"]
