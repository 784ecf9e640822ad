"""One student per part of the conditions, each with a fake denoiser that is trained on another time scale.

Source: Song, Lorraine, Nie, Kreis, Lucas, "Multi-student Diffusion Distillation for Better One-step Generators",
arXiv:2410.23274, with the losses of DMD2. Shows: K students, modules with rates of their own, a phase that copies
weights, a teacher that is a formula, a generator that is updated less often than its critic.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits
from compress.contracts.method import Method, Phase
from compress.contracts.preparation import Preparation
from compress.contracts.signals import Signals
from compress.contracts.step import Update
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.training.curve import Outcome
from compress.training.fit import fit

CONDITIONS, STUDENTS, RATIO, SPREAD, SIGMA_MAX = 4, ("student", "second"), 5, 0.25, 2.0
CENTRES = torch.tensor([-3.0, -1.0, 1.0, 3.0])


def part_of(condition: Tensor, parts: int) -> Tensor:
    """Equal consecutive blocks."""
    return condition * parts // CONDITIONS


def denoised(noisy: Tensor, sigma: Tensor, mean: Tensor, spread: float) -> Tensor:
    """Optimal denoiser of a Gaussian N(mean, spread^2)."""
    return (spread**2 * noisy + sigma**2 * mean) / (spread**2 + sigma**2)


def direction(x: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """(mu_F - mu_T) / mean|x - mu_T| per sample, (B, D); descending along it moves from fake to real."""
    scale = (x - real).abs().mean(dim=1, keepdim=True).clamp(min=1e-3)
    return (fake - real) / scale


def matching_loss(x: Tensor, slope: Tensor) -> Tensor:
    """A loss whose gradient with respect to x is `slope` / numel."""
    return 0.5 * (x - (x - slope).detach()).square().mean()


class Mixture(Teacher):
    """The data's own denoiser: inputs are (noisy, sigma, condition)."""

    cacheable = True
    fingerprint = "mixture"

    def observe(self, batch: Batch) -> Signals:
        noisy, sigma, condition = batch.inputs
        return Signals(denoised(noisy, sigma, CENTRES[condition][:, None], SPREAD))


class Denoiser(nn.Module):
    """(noisy, sigma, condition) -> clean, all (B, 1) but the condition (B,)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2 + CONDITIONS, 24), nn.SiLU(), nn.Linear(24, 1))

    def forward(self, noisy: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        hot = nn.functional.one_hot(condition, CONDITIONS).to(noisy)
        answer: Tensor = self.layers(torch.cat([noisy, sigma.expand_as(noisy), hot], dim=1))
        return answer


def own(batch: Batch, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, conditions and real samples of one student's conditions."""
    latent, _, condition = batch.inputs
    assert batch.labels is not None
    mine = part_of(condition, len(STUDENTS)) == number
    return latent[mine], condition[mine], batch.labels[mine]


def noised(x: Tensor) -> tuple[Tensor, Tensor]:
    sigma = torch.empty(len(x), 1).uniform_(0.1, SIGMA_MAX)
    return x + sigma * torch.randn_like(x), sigma


def score_matching(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    """Small students first learn to denoise as the teacher does."""
    batch = batches["train"]
    for number, name in enumerate(STUDENTS):
        _, condition, real = own(batch, number)
        noisy, sigma = noised(real)
        seen = Batch((noisy, sigma, condition), None, torch.arange(len(noisy)))
        loss = (world.observe(name, seen).output - world.ask("teacher", seen).output).square().mean()
        yield Update(loss, groups=(name,), logs={f"tsm_{name}": loss})


def start_fakes(world: World) -> None:
    for name in STUDENTS:
        world.modules[f"fake_{name}"].load_state_dict(world.students[name].state_dict())


def distribution_matching(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    batch = batches["train"]
    for number, name in enumerate(STUDENTS):
        fake = f"fake_{name}"
        latent, condition, _ = own(batch, number)
        start = Batch(
            (SIGMA_MAX * latent, torch.full_like(latent, SIGMA_MAX), condition), None, torch.arange(len(latent))
        )
        if clock.step % RATIO == 0:
            x = world.observe(name, start).output
            noisy, sigma = noised(x.detach())
            with torch.no_grad():
                seen = Batch((noisy, sigma, condition), None, start.index)
                slope = direction(x, world.ask("teacher", seen).output, world.observe(fake, seen).output)
            yield Update(matching_loss(x, slope), groups=(name,), logs={f"dm_{name}": slope.abs().mean()})
        with torch.no_grad():
            x = world.observe(name, start).output
        noisy, sigma = noised(x)
        said = world.observe(fake, Batch((noisy, sigma, condition), None, start.index)).output
        loss = ((sigma**-2 + SPREAD**-2) * (said - x).square()).mean()
        yield Update(loss, groups=(fake,), logs={fake: loss})


def fake_of(name: str) -> Callable[[Preparation], nn.Module]:
    """A denoiser of the student's own kind, whatever the search chose that to be."""
    return lambda preparation: copy.deepcopy(preparation.students[name])


METHOD = Method(
    source="arXiv:2410.23274",
    objectives={},
    students=lambda build: {name: build() for name in STUDENTS},
    phases=(
        Phase("tsm", 0.4, score_matching, STUDENTS),
        Phase("dm", 0.6, distribution_matching, begin=start_fakes),
    ),
    modules={f"fake_{name}": fake_of(name) for name in STUDENTS},
    rates={f"fake_{name}": 2.0 for name in STUDENTS},
)


@dataclass(frozen=True)
class Conditions:
    """Latents and conditions in, a real sample of that condition as label."""

    count: int
    seed: int
    allowed: tuple[int, ...] = tuple(range(CONDITIONS))

    def __len__(self) -> int:
        return self.count

    def batch(self, index: Tensor) -> Batch:
        source = torch.Generator().manual_seed(self.seed)
        latent = torch.randn(self.count, 1, generator=source)
        condition = torch.arange(self.count) % CONDITIONS
        real = CENTRES[condition][:, None] + SPREAD * torch.randn(self.count, 1, generator=source)
        sigma = torch.full((self.count, 1), SIGMA_MAX)
        return Batch(((SIGMA_MAX * latent)[index], sigma[index], condition[index]), real[index], index)

    def fingerprint(self) -> str:
        return f"conditions-{self.count}-{self.seed}"


class Generation(Task):
    """Scores the first student on its own conditions by how near it comes to their centres."""

    name = "generation"
    kind = "generation"
    labels = ("x",)
    input_shape = (1,)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return Denoiser()

    def score(self, output: Tensor, labels: Tensor) -> Tensor:
        return -(output - labels).abs().mean(dim=1)


def train(**changes: Any) -> tuple[Outcome, Mapping[str, nn.Module]]:
    torch.manual_seed(0)
    students = METHOD.students(Denoiser)
    call: dict[str, Any] = {
        "method": METHOD, "students": students, "teachers": {"teacher": Mixture()}, "objectives": {}, "weights": {},
        "splits": Splits(Conditions(512, 1), Conditions(32, 2), Conditions(8, 3)), "task": Generation(),
        "numbers": TrainingNumbers(epochs=30, batch_size=64, learning_rate=1e-2), "seed": 0, "precision": "fp32",
    }  # fmt: skip
    return fit(**{**call, **changes}), students


def test_reference_values() -> None:
    for sigma, expected in ((0.1, 0.076923077), (0.5, 1.0), (2.0, 1.882352941)):
        x, s = torch.zeros(1, dtype=torch.float64), torch.tensor(sigma, dtype=torch.float64)
        gap = denoised(x, s, torch.tensor(3.0), 0.5) - denoised(x, s, torch.tensor(1.0), 0.5)
        assert gap.item() == pytest.approx(expected, abs=5e-10)
    x = torch.tensor([[2.0, 4.0]], dtype=torch.float64, requires_grad=True)
    real, fake = torch.tensor([[1.3, 1.4]], dtype=torch.float64), torch.tensor([[2.9, 3.0]], dtype=torch.float64)
    slope = direction(x.detach(), real, fake)
    loss = matching_loss(x, slope)
    loss.backward()
    assert slope.tolist()[0] == pytest.approx([0.969696970] * 2, abs=5e-10)
    assert loss.item() == pytest.approx(0.470156107, abs=5e-10)
    assert x.grad is not None
    assert x.grad.tolist()[0] == pytest.approx([0.484848485] * 2, abs=5e-10)


def test_every_condition_has_one_student() -> None:
    assert part_of(torch.arange(CONDITIONS), 2).tolist() == [0, 0, 1, 1]


def test_students_move_towards_their_conditions() -> None:
    outcome, students = train()
    assert [point.phase for point in outcome.curve] == ["tsm"] * 12 + ["dm"] * 18
    assert outcome.curve[11].terms["tsm_student"] < outcome.curve[0].terms["tsm_student"]
    with torch.no_grad():
        for number, name in enumerate(STUDENTS):
            for condition in (2 * number, 2 * number + 1):
                latent = SIGMA_MAX * torch.randn(64, 1)
                made = students[name](latent, torch.full((64, 1), SIGMA_MAX), torch.full((64,), condition))
                assert abs(float(made.mean()) - float(CENTRES[condition])) < 1.0  # centres are 2 apart


def test_generators_move_once_in_five_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, int] = {}
    original = METHOD.phases[1].step

    def counted(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        for update in original(world, batches, clock):
            made[update.groups[0]] = made.get(update.groups[0], 0) + 1
            yield update

    method = Method(
        "toy", {}, students=METHOD.students, phases=(Phase("dm", 1.0, counted),), modules=METHOD.modules
    )  # fmt: skip
    train(method=method, numbers=TrainingNumbers(epochs=5, batch_size=256, learning_rate=1e-3))
    assert made == {"student": 2, "second": 2, "fake_student": 10, "fake_second": 10}
