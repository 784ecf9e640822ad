"""FitNets: the annealed weight, the temperature, and the two stages."""

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from compress import lesson as lessons
from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method
from compress.contracts.signals import Signals
from compress.methods.hints import METHOD, annealed
from compress.progress import Quiet
from compress.recipe import DistillPart

STUDENT = torch.tensor([[1.0, 2.0, 0.5]], dtype=torch.float64)
TEACHER = torch.tensor([[3.0, 1.0, 2.0]], dtype=torch.float64)


def test_the_teachers_weight_falls_from_four_to_one() -> None:
    weights = [9.0 * annealed(Clock("distill", step, 100, 0, 1)) for step in (0, 50, 100)]  # 9: temperature squared
    assert weights == pytest.approx([4.0, 2.5, 1.0])
    assert METHOD.weights == {"soft_targets": annealed}


def slope(method: Method, weight: float) -> torch.Tensor:
    """Of the teacher's term as it is weighed, on the student's logits."""
    student = STUDENT.clone().requires_grad_()
    term = method.objectives["soft_targets"]()
    batch = Batch((student,), torch.tensor([0]), torch.arange(1))
    (weight * term(Signals(student), Signals(TEACHER), batch, Clock("distill", 0, 1, 0, 1)).mean()).backward()
    assert student.grad is not None
    return student.grad


def test_the_teachers_term_is_that_of_equation_2() -> None:
    """Lambda times the cross-entropy between softmaxes at temperature 3, with no factor for the temperature."""
    student = STUDENT.clone().requires_grad_()
    F.cross_entropy(student / 3, (TEACHER / 3).softmax(1)).backward()
    assert student.grad is not None
    torch.testing.assert_close(slope(METHOD, annealed(Clock("distill", 0, 1, 0, 1))), 4 * student.grad)
    assert METHOD.quantized is not None
    weight = METHOD.quantized.weights["soft_targets"]
    assert isinstance(weight, float)
    torch.testing.assert_close(slope(METHOD.quantized, weight), student.grad)
    assert set(METHOD.quantized.objectives) == {"soft_targets", "labels"}


@pytest.mark.parametrize(("given", "expected"), [({}, 1.0 / 9), ({"soft_targets": {"weight": 0.7}}, 0.7)])
def test_the_quantised_student_does_not_begin_the_descent_anew(
    toy: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: dict[str, Any], expected: float
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(lessons, "fit", lambda **how: asked.update(how))
    job: Any = SimpleNamespace(
        recipe=SimpleNamespace(distill=DistillPart(method="hints", objectives=given), seed=0),
        task=toy.ToyTask(),
        splits=toy.splits(),
        teacher=SimpleNamespace(teacher=toy.teacher()),
        store=SimpleNamespace(folder=tmp_path),
        progress=Quiet(),
    )
    lessons.lesson(job, toy.network(), toy.NUMBERS, title=None, checkpoint=None, precision="fp32", quantized=True)
    assert (asked["method"].weights | asked["weights"])["soft_targets"] == pytest.approx(expected)
    assert set(asked["objectives"]) == {"soft_targets", "labels"}


def test_the_regressor_is_trained_in_the_first_stage_alone() -> None:
    hint, distill = METHOD.phases
    assert hint.groups is None
    assert distill.groups == ("student",)
    assert (hint.share, distill.share) == (0.3, 0.7)


def test_each_stage_minimises_its_own_equation(toy: ModuleType) -> None:
    student, batch = toy.network(), toy.splits().train.batch(torch.arange(4))
    asked: list[str] = []

    def term(name: str) -> Any:
        def value(*_: Any) -> torch.Tensor:
            asked.append(name)
            return torch.ones(4)

        return value

    def observe(name: str, batch: Batch) -> Signals:
        return Signals(student(*batch.inputs))

    world: Any = SimpleNamespace(
        teachers={"teacher": None},
        objectives={name: term(name) for name in METHOD.objectives},
        weights=lambda name: 1.0,
        observe=observe,
        ask=observe,
    )
    for phase, expected in zip(METHOD.phases, (["features"], ["soft_targets", "labels"]), strict=True):
        asked.clear()
        (update,) = phase.step(world, {"train": batch}, Clock(phase.name, 0, 1, 0, 1))
        assert asked == expected
        assert update.loss.item() == len(expected)
