"""LEAF on made-up texts: what a student inherits by the loss alone. Its exact values are in test_l2_align."""

from pathlib import Path
from typing import final

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.errors import TaskError
from compress.experiments import leaf as experiment
from compress.frontends.unchanged import Unchanged
from compress.methods.leaf import METHOD
from compress.objectives.l2_align import l2_align
from compress.reproduction.bed import seeded, taught
from compress.retrieval import in_int8, of_unit_length, prefix
from compress.spaces.token_encoder import Encoder, Plan
from compress.structure.embedding_head import masked_mean
from compress.teachers.remembered import RememberedTeacher
from compress.training.evaluate import outputs_of

WORDS, LENGTH, WIDTH = 60, 6, 16
PLAN = Plan(16, 0, 1, 1, 32)


class Teacher(nn.Module):
    """Mean of the words' vectors, of length 1; the first coordinates hold most of it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WIDTH)
        with torch.no_grad():
            self.table.weight.mul_(0.75 ** torch.arange(WIDTH))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(B, n) and (B, n) -> (B, 16)."""
        return F.normalize(masked_mean(self.table(ids), mask))


@final
class Texts(Task):
    """Random words."""

    name, kind = "texts", "embedding"
    labels = tuple(map(str, range(WIDTH)))
    input_names = ("ids", "mask")
    input_shapes = ((LENGTH,), (LENGTH,))
    input_values = (WORDS, 2)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return Unchanged()

    def teacher(self) -> nn.Module:
        return Teacher()


def texts(count: int, seed: int) -> TensorExamples:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(LENGTH) < torch.randint(2, LENGTH + 1, (count, 1), generator=generator)).long()
    ids = torch.randint(1, WORDS, (count, LENGTH), generator=generator) * mask
    return TensorExamples((ids, mask), torch.zeros(count), f"texts {seed}", scale=None)


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, nn.Module]:
    """A teacher, and a student of another architecture that saw its answers to 600 texts."""
    teacher = seeded(0, Teacher).eval()
    train = texts(600, 1)
    none = TensorExamples(torch.zeros(0, LENGTH), torch.zeros(0), "none")
    student = taught(
        seeded(1, lambda: Encoder(PLAN, WORDS, LENGTH, WIDTH, True)),
        Splits(train, none, none),
        TrainingNumbers(epochs=30, batch_size=32, learning_rate=1e-2, weight_decay=0.0),
        0,
        method=METHOD,
        teachers={"teacher": RememberedTeacher({"train": outputs_of(teacher, train)})},
        task=Texts(),
    )
    return teacher, student


def test_unseen_texts_lie_where_the_teacher_has_them(pair: tuple[nn.Module, nn.Module]) -> None:
    theirs, ours = (outputs_of(network, texts(200, 2)) for network in pair)
    assert float(F.cosine_similarity(ours, theirs).mean()) > 0.9
    mixed, standard = ours @ theirs.T, ours @ ours.T
    own = torch.arange(200)
    assert float((mixed.argmax(dim=1) == own).float().mean()) > 0.5  # chance is 1 / 200
    # No inner product moves by more than the distance, as the method promises.
    away = l2_align(ours, theirs).sqrt()
    assert bool(((mixed - theirs @ theirs.T).abs() <= away[:, None] + 1e-5).all())
    assert bool(((standard - theirs @ theirs.T).abs() <= away[:, None] + away[None] + 1e-5).all())


def test_short_and_rounded_vectors_stay_near_without_a_term_for_them(pair: tuple[nn.Module, nn.Module]) -> None:
    theirs, ours = (outputs_of(network, texts(200, 2)) for network in pair)
    for size in (4, 8):
        assert float((prefix(ours, size) * prefix(theirs, size)).sum(dim=1).mean()) > 0.9
    away = (in_int8(ours) - theirs).norm(dim=1)
    step = ours.abs().amax(dim=1) / 127
    assert bool((away <= (ours - theirs).norm(dim=1) + 0.5 * step * WIDTH**0.5 + 1e-6).all())


def test_a_copy_of_the_teacher_loses_nothing_and_searches_alike(pair: tuple[nn.Module, nn.Module]) -> None:
    vectors = outputs_of(pair[0], texts(50, 3))
    assert float(l2_align(vectors, vectors.clone()).max()) <= 1e-10
    torch.testing.assert_close(vectors @ vectors.clone().T, vectors @ vectors.T, rtol=0, atol=0)


def test_the_method_is_for_embeddings_and_needs_no_labels() -> None:
    assert METHOD.tasks == ("embedding",)
    assert list(METHOD.objectives) == ["l2_align"]


def test_rotations_of_the_experiment_change_no_cosine_and_order_one_set_of_axes() -> None:
    vectors = of_unit_length(torch.randn(500, 384, generator=torch.Generator().manual_seed(0)) * torch.rand(384))
    for turn in experiment.rotations(vectors, 0).values():
        torch.testing.assert_close(turn @ turn.T, torch.eye(384), rtol=0, atol=1e-4)
    spread = (vectors @ experiment.rotations(vectors, 0)[experiment.ORDERED]).var(dim=0)
    assert bool((spread.diff() <= 1e-7).all())


def test_sentences_of_the_experiment_are_pairs_of_this_library() -> None:
    found = experiment.sentences()
    assert len(found) >= experiment.PAIRS + experiment.TESTED
    assert len({first for first, _ in found}) == len(found)
    with pytest.raises(TaskError, match="cuts its own"):
        experiment.Sentences().load(None)
