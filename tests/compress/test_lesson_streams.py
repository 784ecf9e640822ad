"""Which answers of the teacher a lesson keeps on disk, and what it says where a task lacks a stream."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress import lesson
from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.strategy import DataStrategy
from compress.errors import RecipeError
from compress.recipe import DistillPart
from compress.strategies.distillation_data import DistillationData
from compress.strategies.graph_edges import GraphEdges
from compress.strategies.held_out import HeldOut
from compress.strategies.plain import Plain
from compress.teachers.cached import CachedTeacher
from compress.teachers.frozen import FrozenTeacher


class Counting(nn.Module):
    """Counts what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += len(x)
        return x


def job(tmp_path: Path, network: nn.Module, *extras: str) -> Any:
    def examples(count: int, name: str) -> TensorExamples:
        return TensorExamples(torch.rand(count, 2), torch.zeros(count, dtype=torch.int64), name)

    splits = Splits(examples(3, "a"), examples(3, "b"), examples(3, "c"), tuple((n, examples(5, n)) for n in extras))
    return SimpleNamespace(
        splits=splits,
        teacher=SimpleNamespace(teacher=FrozenTeacher(network, fingerprint="t")),
        task=SimpleNamespace(name="plain"),
        recipe=SimpleNamespace(distill=SimpleNamespace(method="ff_g2m")),
        store=SimpleNamespace(folder=tmp_path),
    )


def test_the_strategys_streams_are_answered_from_disk(tmp_path: Path) -> None:
    network = Counting()
    given = job(tmp_path, network, "graph", "unused")
    teacher = lesson._teacher(given, GraphEdges(), ())
    assert isinstance(teacher, CachedTeacher)
    assert network.asked == 3 + 5  # the training split, which objectives may look at, and the stream; not "unused"
    for name in ("train", "graph"):
        examples = given.splits.named()[name]
        index = torch.tensor([2, 0])
        bare = Batch((torch.zeros(2, 2),), None, index, stream=name)
        torch.testing.assert_close(teacher.observe(bare).output, examples.batch(index).inputs[0])
    assert network.asked == 3 + 5


def test_a_task_without_the_stream_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="ff_g2m trains on the stream 'graph', and task plain has train, val, test"):
        lesson._teacher(job(tmp_path, Counting()), GraphEdges(), ())


@pytest.mark.parametrize(
    ("part", "kind", "message"),
    [
        (DistillPart("wav2small"), "classification", "wav2small is for tasks of the kind regression, and plain is of"),
        (DistillPart("ff_g2m"), "classification", "trains on the stream 'graph', and task plain has train, val, test"),
        (DistillPart("tgeo_kd", strategy={"source": "checked"}), "classification", "there is no stream 'checked'"),
        (DistillPart("tgeo_kd", strategy={"shar": 0.1}), "classification", "the data strategy refuses its numbers"),
        (DistillPart("vanilla_kd", objectives={"hints": {}}), "segmentation", "vanilla_kd has no objective 'hints'"),
        (
            DistillPart("tgeo_kd", objectives={"trilateral": {"temperature": -1.0}}),
            "classification",
            "temperature = -1",
        ),
    ],
)
def test_what_no_lesson_could_do_is_refused_before_a_teacher_is_trained(
    tmp_path: Path, part: DistillPart, kind: str, message: str
) -> None:
    task: Any = SimpleNamespace(name="plain", kind=kind)
    with pytest.raises(RecipeError, match=message):
        lesson.check_lesson(part, task, job(tmp_path, Counting()).splits)


def test_what_a_lesson_can_do_is_not_refused(tmp_path: Path) -> None:
    task: Any = SimpleNamespace(name="plain", kind="classification")
    part = DistillPart("tgeo_kd", strategy={"source": "checked", "share": 1.0})
    lesson.check_lesson(part, task, job(tmp_path, Counting(), "checked").splits)


@pytest.mark.parametrize(("strategy", "augments", "cached"), [
    (Plain(), True, False),
    (Plain(), False, True),
    (Plain(augment=False), True, True),
    (HeldOut(), True, False),
    (HeldOut(augment=False), True, True),
    (DistillationData(mixed=0.5), False, False),
])  # fmt: skip
def test_augmented_examples_are_not_answered_from_disk(
    tmp_path: Path, strategy: DataStrategy, augments: bool, cached: bool
) -> None:
    given = job(tmp_path, Counting())
    given.task.augments = augments
    given.splits = replace(given.splits, train=TensorExamples(torch.rand(20, 2), torch.zeros(20), "longer"))
    assert isinstance(lesson._teacher(given, strategy, ()), CachedTeacher) is cached
