"""The gradient through one step of the student, and a ratio that moves along it and only along it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.method import Constant
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.step import distillation_step
from compress.contracts.world import World
from compress.lesson import lesson, trained_objectives
from compress.methods.tgeo_kd import METHOD, Terms, bilevel_step, drawing, hypergradient
from compress.objectives.trilateral import Trilateral
from compress.progress import Quiet
from compress.recipe import DistillPart
from compress.similarity import soft_target_loss
from compress.strategies.held_out import STREAM, HeldOut
from compress.teachers.frozen import FrozenTeacher
from compress.training.fit import fit

HALF_A_DIGIT = 5e-9


def terms_of(teacher: Tensor, labels: Tensor, temperature: float) -> Terms:
    def terms(logits: Tensor) -> tuple[Tensor, Tensor]:
        return soft_target_loss(logits, teacher, temperature), F.cross_entropy(logits, labels, reduction="none")

    return terms


def unrolled(
    student: nn.Module, inputs: Tensor, held: Tensor, known: Tensor, alpha: Tensor, terms: Terms, rate: float
) -> tuple[Tensor, Tensor]:
    """The reference: the held-out loss as a function of the ratios, differentiated by autograd through the step."""
    parameters = dict(student.named_parameters())
    still = {name: value.clone() for name, value in student.named_buffers()}
    soft, hard = terms(functional_call(student, {**parameters, **still}, inputs))
    alpha = alpha.detach().requires_grad_()
    slopes = torch.autograd.grad(
        (alpha * soft + (1 - alpha) * hard).mean(), list(parameters.values()), create_graph=True
    )
    ahead = {name: value - rate * slope for (name, value), slope in zip(parameters.items(), slopes, strict=True)}
    loss = F.cross_entropy(functional_call(student, {**ahead, **still}, held), known)
    return loss.detach(), torch.autograd.grad(loss, alpha)[0]


def cross_entropy(output: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(output, labels, reduction="none")


class Scalar(nn.Module):
    """Logits (theta, 0) whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.stack([self.theta, torch.zeros_like(self.theta)]).expand(len(inputs), 2)


def test_hypergradient_worked_by_hand() -> None:
    student, one = Scalar(), torch.zeros(1, 1)
    teacher = torch.tensor([[0.8, 0.2]], dtype=torch.float64).log()
    alpha, terms = torch.tensor([0.4], dtype=torch.float64), terms_of(teacher, torch.tensor([0]), 1.0)
    seen: list[Tensor] = []

    def outer(logits: Tensor) -> Tensor:
        seen.append(logits.detach())
        return F.cross_entropy(logits, torch.tensor([1]))

    loss, slopes = hypergradient(student, student(one), (one,), (one,), alpha, terms, outer, 0.5)
    assert seen[0][0, 0].item() == pytest.approx(0.47277874, abs=HALF_A_DIGIT)  # theta'
    assert loss.item() == pytest.approx(0.95722012, abs=HALF_A_DIGIT)
    assert slopes.item() == pytest.approx(-0.06160412, abs=HALF_A_DIGIT)
    assert slopes.item() == pytest.approx(-0.5 * (1 - 0.8) * torch.sigmoid(seen[0][0, 0]).item(), abs=1e-12)
    assert student.theta.item() == 0.3


def problem(student: nn.Module, shape: tuple[int, ...], classes: int, dtype: torch.dtype) -> tuple[Any, ...]:
    source = torch.Generator().manual_seed(4)
    inputs, held = (torch.randn(9, *shape, generator=source).to(dtype) for _ in range(2))
    labels, known = (torch.randint(0, classes, (9,), generator=source) for _ in range(2))
    teacher = 2 * torch.randn(9, classes, generator=source).to(dtype)
    alpha = torch.rand(9, generator=source).to(dtype)
    return student.to(dtype), inputs, held, known, alpha, terms_of(teacher, labels, 4.0)


def slopes_of(
    student: nn.Module, inputs: Tensor, held: Tensor, known: Tensor, alpha: Tensor, terms: Terms, draws: int = 0
) -> tuple[Tensor, Tensor]:
    with drawing(draws, inputs.device):
        output = student(inputs)

    def outer(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, known)

    return hypergradient(student, output, (inputs,), (held,), alpha, terms, outer, 0.3, draws)


def test_equals_autograd_through_the_step_of_a_linear_student() -> None:
    torch.manual_seed(0)
    given = problem(nn.Linear(7, 4), (7,), 4, torch.float64)
    loss, slopes = slopes_of(*given)
    expected_loss, expected = unrolled(*given, 0.3)
    torch.testing.assert_close(loss, expected_loss, atol=1e-12, rtol=0)
    torch.testing.assert_close(slopes, expected, atol=1e-10, rtol=0)
    assert expected.abs().max() > 1e-3


class Attention(nn.Module):
    """Pieces of a picture look at each other: the fused kernel has no second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(8, 24), nn.Linear(64, 3)

    def forward(self, pictures: Tensor) -> Tensor:
        q, k, v = self.mix(pictures.flatten(1, 2)).chunk(3, dim=-1)
        output: Tensor = self.head(F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None]).flatten(1))
        return output


def networks(toy: ModuleType) -> Iterator[nn.Module]:
    yield toy.network()
    yield Attention()


@pytest.mark.parametrize("number", range(2))
def test_equals_autograd_with_batch_norm_and_attention_and_leaves_the_student_alone(
    toy: ModuleType, number: int
) -> None:
    torch.manual_seed(1)
    student = list(networks(toy))[number].train()
    given = problem(student, (1, 8, 8), 3, torch.float64)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
        expected_loss, expected = unrolled(*given, 0.3)
    _, inputs, held, known, alpha, terms = given
    output = student(inputs)  # statistics move in this pass, and in no other
    before = toy.weights_of(student)
    loss, slopes = hypergradient(
        student, output, (inputs,), (held,), alpha, terms, lambda logits: F.cross_entropy(logits, known), 0.3
    )
    torch.testing.assert_close(loss, expected_loss, atol=1e-12, rtol=0)
    torch.testing.assert_close(slopes, expected, atol=1e-10, rtol=0)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(parameter.grad is None for parameter in student.parameters())


def test_dropout_takes_the_same_units_in_both_passes() -> None:
    torch.manual_seed(2)
    student = nn.Sequential(nn.Linear(7, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)).train()
    student, inputs, held, known, alpha, terms = problem(student, (7,), 3, torch.float64)
    values = []
    for more in (0.0, 1e-5):
        torch.manual_seed(3)
        values.append(slopes_of(student, inputs, held, known, alpha + more, terms, draws=11))
    difference = (values[1][0] - values[0][0]) / 1e-5  # all ratios move together
    assert difference.item() == pytest.approx(values[0][1].sum().item(), rel=1e-4)


def test_a_step_moves_the_ratio_along_the_exact_gradient_and_then_the_student_alone() -> None:
    """Of the held-out loss at theta', with respect to the network behind the ratio: by autograd through everything."""
    torch.manual_seed(4)
    student, source = nn.Linear(7, 3).double(), torch.Generator().manual_seed(5)
    inputs, held, answers = (torch.randn(6, n, generator=source, dtype=torch.float64) for n in (7, 7, 3))
    labels, known = (torch.randint(0, 3, (6,), generator=source) for _ in range(2))
    objective, example, nothing = Trilateral(every=2, inner_rate=0.3), Signals(torch.zeros(1, 3)), inputs[:0]
    none = TensorExamples(nothing, labels[:0], "nothing")
    objective.prepare(
        Preparation(Splits(none, none, none), lambda split: iter(()), example, example, 3, 0, cross_entropy)
    )
    nn.init.normal_(objective.network[-1].weight)  # type: ignore[arg-type]
    objective.double()
    world = World(
        {"student": student},
        {},
        {"trilateral": objective},
        {},
        lambda name: 0.25,
        lambda name, batch: Signals(student(batch.inputs[0])),
        lambda name, batch: Signals(answers),
        {},
        cross_entropy,
    )
    batches = {"train": Batch((inputs,), labels, torch.arange(6)), STREAM: Batch((held,), known, torch.arange(6))}
    clock = Clock("distill", 0, 10, 0, 1)
    outer, inner = bilevel_step(world, batches, clock)
    assert (outer.groups, inner.groups) == (("objectives",), ("student",))
    ratio = objective.ratios(student(inputs), answers, labels)
    soft, hard = objective.terms(student(inputs), answers, labels)
    weights = list(student.parameters())
    slopes = torch.autograd.grad((ratio * soft + (1 - ratio) * hard).mean(), weights, create_graph=True)
    ahead = [value - 0.3 * slope for value, slope in zip(weights, slopes, strict=True)]
    loss = cross_entropy(F.linear(held, *ahead), known).mean()
    omega = list(objective.parameters())
    expected = torch.autograd.grad(loss, omega)
    torch.testing.assert_close(outer.loss, loss, atol=1e-12, rtol=0)
    found = torch.autograd.grad(outer.loss, [*omega, *weights], allow_unused=True)
    torch.testing.assert_close(found[: len(omega)], expected, atol=1e-12, rtol=0)
    assert max(float(slope.abs().max()) for slope in expected) > 1e-4
    assert found[len(omega) :] == (None, None)
    mixed = 0.25 * (ratio.detach() * soft + (1 - ratio.detach()) * hard).mean()
    torch.testing.assert_close(inner.loss, mixed, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        torch.autograd.grad(inner.loss, weights), torch.autograd.grad(mixed, weights), atol=1e-12, rtol=0
    )
    (only,) = bilevel_step(world, batches, replace(clock, step=1))
    assert only.groups == ("student",)


def test_while_the_student_is_quantised_there_is_no_outer_step_and_the_report_shows_the_ratio() -> None:
    assert METHOD.quantized is not None
    assert [phase.step for phase in METHOD.quantized.phases] == [distillation_step]
    assert METHOD.quantized.strategy is HeldOut  # the same examples are kept from the student
    assert "teacher_share" in METHOD.diagnostics
    assert METHOD.rates == {"objectives": Constant(2.5)}  # 1e-2 beside 4e-3


def train(toy: ModuleType, every: int) -> tuple[Trilateral, Any]:
    objective = Trilateral(every=every)
    outcome = fit(
        method=METHOD,
        students={"student": toy.network()},
        teachers={"teacher": toy.teacher()},
        objectives={"trilateral": objective},
        weights={},
        splits=toy.splits(),
        task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=14),  # 3 steps each: 21 outer ones
        seed=0,
        precision="fp32",
    )
    return objective, outcome


def test_the_outer_loss_trains_the_ratio_and_nothing_else_does(toy: ModuleType) -> None:
    learned, outcome = train(toy, 2)
    still, _ = train(toy, 0)
    s, t, y = torch.randn(8, 3), torch.randn(8, 3), torch.randint(0, 3, (8,))
    assert still.ratios(s, t, y).tolist() == [0.5] * 8
    assert (learned.ratios(s, t, y) - 0.5).abs().max() > 0.01
    moved = [not torch.equal(a, b) for a, b in zip(learned.parameters(), still.parameters(), strict=True)]
    assert all(moved)
    assert {"held_out", "teacher's share", "trilateral"} == set(outcome.curve[-1].terms)


def test_the_ratio_sinks_where_the_teacher_is_wrong(toy: ModuleType) -> None:
    """Half of the classes' answers are rotated; only the label leads to what is held out."""

    class Rotated(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            means = images.mean(dim=(1, 2, 3))
            right = -4.0 * (means[:, None] - torch.arange(3.0)).square()
            wrong = (images[:, 0, 0, 0] > means)[:, None]  # a half that has nothing to do with the class
            return torch.where(wrong, right.roll(1, dims=1), right)

    network = Rotated()
    objective = Trilateral()
    fit(
        method=METHOD,
        students={"student": toy.network(8)},
        teachers={"teacher": FrozenTeacher(network, fingerprint="rotated")},
        objectives={"trilateral": objective},
        weights={},
        splits=toy.splits(train=384),
        task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=12),
        seed=0,
        precision="fp32",
    )
    batch: Batch = toy.splits(train=384).train.batch(torch.arange(384))
    assert batch.labels is not None
    answers = network(batch.inputs[0])
    ratios = objective.ratios(answers, answers, batch.labels).detach()
    right = answers.argmax(1) == batch.labels
    assert ratios[right].mean() > ratios[~right].mean() + 0.05


def test_examples_that_are_held_out_reach_neither_the_student_nor_the_averages(toy: ModuleType) -> None:
    """With labels that only the held-out examples have, their class has no average."""
    splits = toy.splits()
    held = HeldOut().splits(splits).named()[STREAM]
    labels = splits.train.labels.clone() % 2
    labels[held.positions] = 2
    objective = Trilateral()
    fit(
        method=METHOD,
        students={"student": toy.network()},
        teachers={"teacher": toy.teacher()},
        objectives={"trilateral": objective},
        weights={},
        splits=replace(splits, train=replace(splits.train, labels=labels)),
        task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=1),
        seed=0,
        precision="fp32",
    )
    assert objective.averages[2].tolist() == [0.0, 0.0, 0.0]
    assert (objective.averages[:2].sum(dim=1) - 1.0).abs().max() < 1e-5


@dataclass(frozen=True)
class Given:
    """What a lesson reads of a run."""

    recipe: Any
    task: Any
    splits: Any
    teacher: Any
    store: Any
    progress: Any


def test_the_learned_ratio_is_kept_beside_the_student_and_stays_while_it_is_quantised(
    toy: ModuleType, tmp_path: Path
) -> None:
    part = DistillPart(method="tgeo_kd", objectives={"trilateral": {"hidden": [8]}}, strategy={"share": 0.2})
    job: Any = Given(
        SimpleNamespace(distill=part, seed=0),
        toy.ToyTask(),
        toy.splits(),
        SimpleNamespace(teacher=toy.teacher()),
        SimpleNamespace(folder=tmp_path),
        Quiet(),
    )
    student, first, second = toy.network(), tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    numbers = replace(toy.NUMBERS, epochs=4)
    taught = lesson(job, student, numbers, title=None, checkpoint=None, precision="fp32", keep=first)
    learned = load_file(first)
    assert learned["trilateral/network.2.weight"].abs().max() > 0.0
    assert "held_out" in taught.curve[-1].terms
    tuned = lesson(
        job, student, numbers, title=None, checkpoint=None, precision="fp32", quantized=True, keep=second, learned=first
    )
    assert set(tuned.curve[-1].terms) == {"trilateral"}
    assert all(torch.equal(value, learned[name]) for name, value in load_file(second).items())
    (objective,) = trained_objectives(job, first).values()
    s, t, y = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    batch = Batch((s,), y, torch.arange(4))
    shares = objective.ratio(Signals(s), Signals(t), batch)
    assert shares is not None
    assert (shares - 0.5).abs().max() > 0.0


def test_a_method_that_learns_nothing_beside_the_student_leaves_no_file(toy: ModuleType, tmp_path: Path) -> None:
    job: Any = Given(
        SimpleNamespace(distill=DistillPart(method="vanilla_kd"), seed=0),
        toy.ToyTask(),
        toy.splits(),
        SimpleNamespace(teacher=toy.teacher()),
        SimpleNamespace(folder=tmp_path),
        Quiet(),
    )
    path = tmp_path / "nothing.safetensors"
    numbers = replace(toy.NUMBERS, epochs=1)
    lesson(job, toy.network(), numbers, title=None, checkpoint=None, precision="fp32", keep=path)
    assert not path.exists()
