"""A network learns, on validation data, how far each sample should follow the teacher: bilevel optimisation.

Source: Hu et al., "Less or More From Teacher: Exploiting Trilateral Geometry For Knowledge Distillation", ICLR 2024,
arXiv:2312.15112. Shows: a module of the method sized in preparation, class averages of the teacher's answers, a
validation stream, two updates in one step with different groups, a gradient through a gradient.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method, Phase
from compress.contracts.objective import Objective
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.step import Step, Update
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.objectives.soft_targets import soft_target_loss
from compress.training.fit import fit

TAU, INNER_RATE = 4.0, 0.3


class Triangle(Objective):
    """Knows the teacher's class averages; gives the state of section 3 and both losses per sample."""

    def prepare(self, preparation: Preparation) -> None:
        sums, counts = torch.zeros(preparation.outputs, preparation.outputs), torch.zeros(preparation.outputs, 1)
        for batch, teacher in preparation.answers("train"):
            assert batch.labels is not None
            sums.index_add_(0, batch.labels, teacher.output.softmax(1))
            counts.index_add_(0, batch.labels, torch.ones(len(batch), 1))
        self.register_buffer("averages", sums / counts.clamp(min=1))

    def state(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """(B, 9C), without gradient: otherwise the student could buy weight by moving."""
        s, t = student.detach().softmax(1), teacher.softmax(1)
        g, b = F.one_hot(labels, s.shape[1]).to(s), self.averages[labels].to(s)  # type: ignore[index]
        edges = [(b - s).square(), (g - s).square(), (t - s).square(), (t - g).square(), (b - g).square()]
        return torch.cat([s, t, g, b, *edges], dim=1)

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        return soft_target_loss(student.output, teacher.output, TAU)


class WithValidation(DataStrategy):
    """A second stream that the outer loss is taken on."""

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0, "val": 0.5}

    @property
    def deterministic(self) -> bool:
        return True

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        return batches


def mixed(alpha: Tensor, output: Tensor, teacher: Tensor, labels: Tensor, tau: float = TAU) -> Tensor:
    hard = F.cross_entropy(output, labels, reduction="none")
    return (alpha * soft_target_loss(output, teacher, tau) + (1 - alpha) * hard).mean()


def unrolled(student: nn.Module, loss: Tensor, rate: float) -> dict[str, Tensor]:
    """Parameters after one plain gradient step, as a function of whatever the loss depends on."""
    names, values = zip(*student.named_parameters(), strict=True)
    slopes = torch.autograd.grad(loss, values, create_graph=True)
    return {name: value - rate * slope for name, value, slope in zip(names, values, slopes, strict=True)}


def bilevel(every: int | None) -> Step:
    def step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        batch, student, mlp = batches["train"], world.students["student"], world.modules["weighting"]
        assert batch.labels is not None
        triangle = world.objectives["triangle"]
        assert isinstance(triangle, Triangle)
        teacher = world.ask("teacher", batch).output
        if every and clock.step % every == 0:
            held = batches["val"]
            assert held.labels is not None
            still = {name: buffer.clone() for name, buffer in student.named_buffers()}  # statistics must not move
            output = functional_call(student, {**dict(student.named_parameters()), **still}, batch.inputs)
            alpha = torch.sigmoid(mlp(triangle.state(output, teacher, batch.labels))).squeeze(1)
            ahead = unrolled(student, mixed(alpha, output, teacher, batch.labels), INNER_RATE)
            outer = F.cross_entropy(functional_call(student, {**ahead, **still}, held.inputs), held.labels)
            yield Update(outer, groups=("weighting",), logs={"outer": outer})
        output = world.observe("student", batch).output
        with torch.no_grad():
            alpha = torch.sigmoid(mlp(triangle.state(output, teacher, batch.labels))).squeeze(1)
        inner = mixed(alpha, output, teacher, batch.labels)
        yield Update(inner, groups=("student",), logs={"inner": inner, "alpha": alpha.mean()})

    return step


def weighting(preparation: Preparation) -> nn.Module:
    mlp = nn.Sequential(nn.Linear(9 * preparation.outputs, 32), nn.LeakyReLU(), nn.Linear(32, 1))
    nn.init.zeros_(mlp[2].weight)
    nn.init.zeros_(mlp[2].bias)
    return mlp


def method(every: int | None) -> Method:
    return Method(
        source="arXiv:2312.15112",
        objectives={"triangle": Triangle},
        strategy=WithValidation,
        phases=(Phase("distill", step=bilevel(every)),),
        modules={"weighting": weighting},
        rates={"weighting": 3.0},
    )


def train(toy: ModuleType, every: int | None) -> Any:
    return fit(
        method=method(every),
        students={"student": toy.network()},
        teachers={"teacher": toy.teacher()},
        objectives={"triangle": Triangle()},
        weights={},
        splits=toy.splits(),
        task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=8),
        seed=0,
        precision="fp32",
    )


def test_the_outer_loss_moves_the_weights_of_the_samples(toy: ModuleType) -> None:
    learned, fixed = train(toy, 2), train(toy, None)
    assert abs(learned.curve[-1].terms["alpha"] - 0.5) > 0.01
    assert {point.terms["alpha"] for point in fixed.curve} == {0.5}  # a zero last layer, never trained
    assert learned.curve[-1].terms["outer"] < learned.curve[0].terms["outer"]


def test_hypergradient_worked_by_hand() -> None:
    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.theta = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self) -> Tensor:
            return torch.stack([self.theta, torch.zeros_like(self.theta)])[None]

    student, alpha = Scalar(), torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([[0.8, 0.2]], dtype=torch.float64).log()
    ahead = unrolled(student, mixed(alpha, student(), teacher, torch.tensor([0]), tau=1.0), 0.5)
    outer = F.cross_entropy(functional_call(student, ahead, ()), torch.tensor([1]))
    (slope,) = torch.autograd.grad(outer, alpha)
    assert ahead["theta"].item() == pytest.approx(0.47277874, abs=5e-9)
    assert slope.item() == pytest.approx(-0.06160412, abs=5e-9)  # half of the last digit given


def test_class_averages_come_from_the_training_answers(toy: ModuleType) -> None:
    triangle, splits, teacher = Triangle(), toy.splits(), toy.teacher()
    whole = splits.train.batch(torch.arange(len(splits.train)))
    answers = [(whole, teacher.observe(whole))]
    example = Signals(torch.zeros(1, 3))
    triangle.prepare(Preparation(splits, lambda split: iter(answers), example, example, 3, 0, lambda z, y: z[:, 0]))
    expected = answers[0][1].output.softmax(1)[whole.labels == 1].mean(0)
    torch.testing.assert_close(triangle.averages[1], expected)
    assert triangle.state(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([0])).shape == (1, 27)
