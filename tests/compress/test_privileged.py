"""Inputs of the teacher alone: who gets them, who does not, and what is said where they are missing."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import check_splits
from compress.errors import TaskError
from compress.privileged import Knowing, PrivilegedModel, told, told_splits
from compress.teachers.cached import CachedTeacher
from compress.teachers.frozen import FrozenTeacher
from compress.training.evaluate import evaluate
from compress.training.supervised import train

HINT, TABLE = "hint", "table"


class Hinted:
    """Noise, and beside it the answer: as a row of a table that only the teacher has."""

    def __init__(self, seed: int, count: int = 32) -> None:
        source = torch.Generator().manual_seed(seed)
        self.noise = torch.rand(count, 4, generator=source)
        self.labels = torch.randint(3, (count,), generator=source)
        self.seed = seed

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor) -> Batch:
        table = 5 * torch.eye(3)
        return Batch(
            (self.noise[index],), self.labels[index], index, {HINT: self.labels[index]}, {TABLE: table, "more": table}
        )

    def fingerprint(self) -> str:
        return str(self.seed)


class Informed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.seen: list[int] = []

    def forward(self, features: Tensor, hint: Tensor, table: Tensor) -> Tensor:
        self.seen.append(len(features))
        answer: Tensor = table[hint] + self.bias + features.sum(dim=1, keepdim=True)
        return answer


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class HintedTask(Task):
    name = "hinted"
    labels = ("a", "b", "c")
    input_shape = (4,)
    privileged: ClassVar[tuple[str, ...]] = (HINT, TABLE)

    def load(self, data: Path | None) -> Splits:
        return Splits(Hinted(0), Hinted(1), Hinted(2), (("extra", Hinted(3)),))

    def frontend(self) -> nn.Module:
        return Doubled()

    def teacher(self) -> nn.Module:
        return Informed()


TASK = HintedTask()


def model() -> PrivilegedModel:
    return PrivilegedModel(TASK.frontend(), TASK.teacher(), 1)


def test_they_stand_behind_the_inputs_in_the_tasks_order() -> None:
    batch = Hinted(0).batch(torch.tensor([3, 1]))
    seen = told(batch, TASK.privileged)
    assert [tuple(one.shape) for one in seen.inputs] == [(2, 4), (2,), (3, 3)]
    assert len(batch.inputs) == 1  # what a student gets
    assert told(batch, ()) is batch


def test_the_front_end_is_for_the_raw_inputs_alone() -> None:
    batch = told(Hinted(0).batch(torch.tensor([3, 1])), TASK.privileged)
    noise, hint, table = batch.inputs
    expected = table[hint] + 2 * noise.sum(dim=1, keepdim=True)
    torch.testing.assert_close(model()(*batch.inputs), expected)
    torch.testing.assert_close(Knowing(model(), (hint, table))(noise), expected)


def test_a_missing_one_is_named_with_those_there_are() -> None:
    batch = replace(Hinted(0).batch(torch.arange(2)), stream="night")
    with pytest.raises(TaskError, match=r"takes 'sound'.*'night' has 'hint', 'table', 'more' beside"):
        told(batch, ("sound",))

    class Wants(HintedTask):
        privileged = (HINT, "sound")

    with pytest.raises(TaskError, match="split 'train': the teacher takes 'sound'"):
        check_splits(Wants(), TASK.load(None))
    check_splits(TASK, TASK.load(None))


def test_a_frozen_teacher_takes_them_from_the_batch() -> None:
    teacher = FrozenTeacher(model(), fingerprint="x", privileged=TASK.privileged)
    batch = Hinted(0).batch(torch.arange(5))
    torch.testing.assert_close(
        teacher.observe(batch).output, model()(*told(batch, TASK.privileged).inputs), atol=0, rtol=0
    )


def test_its_answers_can_be_cached(tmp_path: Path) -> None:
    network = Informed()
    frozen = FrozenTeacher(PrivilegedModel(TASK.frontend(), network, 1), fingerprint="x", privileged=TASK.privileged)
    examples = Hinted(3)
    cached = CachedTeacher(frozen, examples, "extra", tmp_path)
    asked = len(network.seen)
    index = torch.tensor([7, 0, 31])
    batch = replace(examples.batch(index), stream="extra")
    bare = replace(batch, extras={}, common={})  # from disk: nothing but the position is needed
    answer = cached.observe(bare).output
    assert len(network.seen) == asked
    torch.testing.assert_close(answer, frozen.observe(batch).output, atol=0, rtol=0)


def test_a_reference_teacher_learns_with_the_loop_of_students() -> None:
    splits = told_splits(TASK.load(None), TASK.privileged)
    assert splits.named().keys() == {"train", "val", "test", "extra"}
    assert splits.train.fingerprint() == "0"
    network = model()
    outcome = train(network, TASK, splits, TrainingNumbers(2, 16, 1e-3), seed=0, precision="fp32")
    assert outcome.validation == 1.0  # the table tells; the noise does not
    assert evaluate(network, splits.test, TASK).score == 1.0
    assert told_splits(splits, ()) is splits
