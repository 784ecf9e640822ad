"""A value that is not finite is named: where it arose first, in which tensor, for which example."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.errors import TrainingError
from compress.methods.vanilla_kd import METHOD
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.teachers.frozen import FrozenTeacher
from compress.training.fit import fit

NAN, INF = float("nan"), float("inf")


class Overflows(nn.Module):
    """NaN for images whose first pixel is 77."""

    def forward(self, x: Tensor) -> Tensor:
        marked = x[:, 0, 0, 0] == 77.0
        return torch.where(marked.view(-1, 1, 1, 1), torch.full_like(x, NAN), x)


class Steep(nn.Module):
    """Infinite where its input is large, as exp is."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.where(x.amax(dim=(1, 2, 3), keepdim=True) > 50.0, torch.full_like(x, INF), x)


class RootOfDistance(Objective):
    """Its value at 0 is 0 and its gradient there infinite."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,)."""
        return (student.output - student.output.detach()).square().sum(dim=1).sqrt()


class Cancels(Objective):
    """inf - inf in the term itself."""

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        """(B,)."""
        large = student.output.sum(dim=1) * 0 + INF
        return large - large


def marked(toy: ModuleType, value: float, place: int = 41) -> Splits:
    splits: Splits = toy.splits()
    pixels = torch.stack([splits.train.batch(torch.tensor([n])).inputs[0][0] for n in range(96)])
    labels = torch.cat([splits.train.batch(torch.tensor([n])).labels for n in range(96)])  # type: ignore[misc]
    pixels[place, 0, 0, 0] = value
    return Splits(TensorExamples(pixels, labels, "marked"), splits.val, splits.test, ())


def refused(toy: ModuleType, **changes: Any) -> str:
    call: dict[str, Any] = {
        "method": METHOD,
        "students": {"student": toy.network()},
        "teachers": {"teacher": toy.teacher()},
        "objectives": {"soft_targets": SoftTargets(2.0), "labels": Labels()},
        "weights": {},
        "splits": toy.splits(),
        "task": toy.ToyTask(),
        "numbers": toy.NUMBERS,
        "seed": 3,
        "precision": "fp32",
    }
    with pytest.raises(TrainingError) as caught:
        fit(**{**call, **changes})
    return caught.value.what


@pytest.mark.parametrize(("value", "told"), [(NAN, "has 1 NaN of 2,048"), (-INF, "has 1 infinite of 2,048")])
def test_an_input(toy: ModuleType, value: float, told: str) -> None:
    assert f"; input 0 of example 41 of 'train' {told} values" in refused(toy, splits=marked(toy, value))


def test_the_teachers_answer(toy: ModuleType) -> None:
    teacher = nn.Sequential(Overflows(), toy.network(6))
    said = refused(toy, splits=marked(toy, 77.0), teachers={"teacher": FrozenTeacher(teacher, fingerprint="odd")})
    assert "the output of 'teacher' for example 41 of 'train' has 3 NaN of 96 values" in said


def test_the_students_module(toy: ModuleType) -> None:
    student = toy.network(norm=False)
    student.body = Steep()
    said = refused(toy, splits=marked(toy, 1e6), students={"student": student})
    assert "module 'body' of 'student' gives a value that has" in said
    assert "for example 41 of 'train'" in said
    assert all(torch.isfinite(parameter).all() for parameter in student.parameters())


def test_a_stored_weight(toy: ModuleType) -> None:
    student = toy.network()
    with torch.no_grad():
        student.head.bias[1] = NAN
    assert "weights of the student are not finite: student.head.bias" in refused(toy, students={"student": student})


@pytest.mark.parametrize(
    ("objective", "told"),
    [
        (RootOfDistance, "every value is finite and a gradient is not: that of student."),
        (Cancels, "inputs, weights and answers are finite: it arises in a term of the loss"),
    ],
)
def test_a_gradient_and_a_term(toy: ModuleType, objective: Callable[[], Objective], told: str, tmp_path: Path) -> None:
    student = toy.network()
    path = tmp_path / "checkpoint.pt"
    said = refused(toy, students={"student": student}, objectives={"odd": objective()}, checkpoint=path)
    assert told in said
    assert "the last good checkpoint is kept" in said
    assert all(torch.isfinite(parameter).all() for parameter in student.parameters())
    assert not path.exists()  # the first step was bad already: nothing good could be kept
