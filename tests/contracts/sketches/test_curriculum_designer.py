"""Classes arrive one after another, each once; who was there before teaches what came before.

Source: Singh, Li, Sikarwar, Lei, Gao, Talbot, Sun, Shou, Kreiman, Zhang, "Learning to Learn: How to Continuously Teach
Humans and Machines", ICCV 2023, arXiv:2211.15470, with the score of ZhangLab-DeepNeuroCogLab/Learning2Learn, and
learning without forgetting (LwF). Shows: a continual method, whose stages are epochs, as many as there are classes; an
order that depends on the clock and on the teacher's answers; a teacher that is the student of the epoch before.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Constant, Method, Phase
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.step import Update
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.objectives.soft_targets import SoftTargets
from compress.training.fit import fit


def normalised(distances: Tensor) -> tuple[Tensor, Tensor]:
    """D with rows that sum to 1, and v, the share of each row's variance: (K, K), (K,)."""
    rows = distances / (distances.sum(dim=1, keepdim=True) + 1e-12)
    variance = rows.var(dim=1, unbiased=False)
    return rows, variance / variance.sum()


def curriculum_score(order: Sequence[int], rows: Tensor, variance: Tensor) -> float:
    """First a class as far from all others, then unlike ones, at the end some like the first."""
    count, score, covered, place = len(order), 1.0 - float(variance[order[0]]), 1, 1
    while covered < count:
        here = order[place - 1]
        score += 1.0 - float(rows[here, order[count - place]]) + float(rows[here, order[place]])
        covered, place = covered + 2, place + 1
    return score


def best_order(distances: Tensor) -> tuple[int, ...]:
    rows, variance = normalised(distances)
    return max(permutations(range(len(rows))), key=lambda order: curriculum_score(order, rows, variance))


class ClassByClass(DataStrategy):
    """An epoch has the examples of one class, the classes in the order that the teacher's outputs ask for."""

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0}

    @property
    def deterministic(self) -> bool:
        return True

    def prepare(self, preparation: Preparation) -> None:
        super().prepare(preparation)
        labels, outputs = [], []
        for batch, teacher in preparation.answers("train"):
            assert batch.labels is not None
            labels.append(batch.labels)
            outputs.append(teacher.output)
        self._labels, said = torch.cat(labels), torch.cat(outputs)
        means = torch.stack([said[self._labels == number].mean(0) for number in range(preparation.outputs)])
        unit = nn.functional.normalize(means.double(), dim=1)
        self.classes = best_order((1.0 - unit @ unit.T).clamp(min=0).fill_diagonal_(0.0))

    def order(self, stream: str, length: int, clock: Clock, generator: torch.Generator) -> Tensor:
        mine = (self._labels == self.classes[clock.epoch]).nonzero().flatten()
        return mine[torch.randperm(len(mine), generator=generator)]

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        return batches


class PreviousSelf(Teacher):
    """The student as it was when the epoch before ended."""

    cacheable = False
    fingerprint = "the student of the task before"

    def __init__(self, student: nn.Module) -> None:
        self._before = copy.deepcopy(student).eval().requires_grad_(False)

    def observe(self, batch: Batch) -> Signals:
        with torch.no_grad():
            return Signals(self._before(*batch.inputs))

    def modules(self) -> Mapping[str, nn.Module]:
        return {"before": self._before}

    def after_epoch(self, students: Mapping[str, nn.Module]) -> None:
        self._before.load_state_dict(students["student"].state_dict())


def without_forgetting(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    batch = batches["train"]
    assert batch.labels is not None
    student, before = world.observe("student", batch), world.ask("before", batch)
    hard = world.supervised(student.output, batch.labels).mean()
    kept = world.objectives["kept"](student, before, batch, clock).mean()
    first = kept if clock.starts_epoch else kept.new_zeros(())
    weight = world.weights("kept") * (clock.epoch > 0)
    yield Update(hard + weight * kept, logs={"first": first, "label": batch.labels.float().mean()})


METHOD = Method(
    source="arXiv:2211.15470",
    objectives={"kept": SoftTargets},
    teachers=lambda teacher, students: {"teacher": teacher, "before": PreviousSelf(students["student"])},
    strategy=ClassByClass,
    phases=(Phase("tasks", step=without_forgetting),),
    rates={"student": Constant(1.0)},
)


THREE = torch.tensor([[0.0, 0.2, 0.4], [0.2, 0.0, 0.6], [0.4, 0.6, 0.0]], dtype=torch.float64)
LINE = torch.tensor([0.0, 1.0, 3.0, 6.0, 10.0], dtype=torch.float64)


def test_reference_values() -> None:
    rows, variance = normalised(THREE)
    assert variance.tolist() == pytest.approx([0.31720856, 0.41633624, 0.26645519], abs=5e-9)
    scores = {"012": 1.349458, "021": 2.016125, "102": 1.083664, "120": 2.083664, "201": 1.533545, "210": 1.933545}
    for order, expected in scores.items():
        assert curriculum_score([int(digit) for digit in order], rows, variance) == pytest.approx(expected, abs=5e-7)
    assert best_order(THREE) == (1, 2, 0)
    five = (LINE[:, None] - LINE).abs()
    rows, variance = normalised(five)
    assert best_order(five) == (3, 0, 4, 1, 2)
    for line, expected in (((3, 0, 4, 1, 2), 3.508228), ((0, 1, 2, 3, 4), 2.10008079), ((0, 1, 2, 4, 3), 2.06478667)):
        assert curriculum_score(line, rows, variance) == pytest.approx(expected, abs=5e-7)
    scaled, same = normalised(7.0 * five)
    assert curriculum_score((2, 4, 0, 3, 1), scaled, same) == pytest.approx(3.341827, abs=5e-7)


def test_classes_come_one_by_one_and_the_previous_self_teaches(toy: ModuleType) -> None:
    student, teacher, strategy = toy.network(norm=False), toy.teacher(), ClassByClass()
    outcome = fit(
        method=METHOD, students={"student": student}, teachers=METHOD.teachers(teacher, {"student": student}),
        objectives={"kept": SoftTargets(2.0)}, weights={}, splits=toy.splits(), task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=toy.CLASSES), seed=0, precision="fp32", strategy=strategy,
    )  # fmt: skip
    assert sorted(strategy.classes) == [0, 1, 2]
    assert [point.terms["label"] for point in outcome.curve] == [float(number) for number in strategy.classes]
    assert all(abs(point.terms["first"]) < 1e-6 for point in outcome.curve)  # its first step starts where it stands
    assert outcome.steps == 9
