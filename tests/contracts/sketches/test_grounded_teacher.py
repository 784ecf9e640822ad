"""A mean teacher labels weak views for strong ones; a matrix of confusions, kept by the data strategy, weighs the loss.

Source: Ashraf, Manna, Purkayastha, Tariq, Bashir, "Context Aware Grounded Teacher for Source Free Object Detection",
arXiv:2504.15404, with the formulas of Tajamul21/Grounded_Teacher, on classification as its surrogate. Shows: two views
of one example by the task's augmentation, pseudo-labels, running statistics that feedback fills and an objective reads,
a term normalised over the batch, an average that is what ships: validated, and chosen by its own score.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method, Phase
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.contracts.step import Update
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.objectives.labels import Labels
from compress.training.fit import fit

CONTEXT, SURE, RARE = "context", 0.4, 0.001


def inertia(step: int, burn_in: int) -> float:
    """a: 0.5, rising with the cube of the step to 0.99 at half of the burn-in."""
    return 0.5 + 0.49 * min(1.0, step / (burn_in / 2)) ** 3


def confused(context: Tensor, true: Tensor, said: Tensor, a: float) -> Tensor:
    """The moving matrix (K, K), rows true classes: each row that the batch has follows its normalised counts.

    Args:
        true, said: (n,) class indices; K is the background, whose pairs do not count.
    """
    classes = len(context)
    kept = (true < classes) & (said < classes)
    counts = torch.zeros(classes * classes, dtype=context.dtype)
    counts.index_add_(0, true[kept] * classes + said[kept], torch.ones(int(kept.sum()), dtype=context.dtype))
    rows = counts.view(classes, classes)
    share = rows / rows.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.where(rows.sum(dim=1, keepdim=True) > 0, a * context + (1 - a) * share, context)


def transformed(context: Tensor) -> Tensor:
    """c of the specification: how much each pair of true and predicted class shall weigh."""
    classes = len(context)
    whole = torch.where(context.sum(dim=1, keepdim=True) > 0, context, torch.full_like(context, 1 / classes))
    own = whole.diagonal()
    own = torch.where(own > 0, own, torch.full_like(own, 1 / classes))
    off = torch.where(whole > 0, whole, torch.full_like(whole, RARE))
    return torch.where(
        torch.eye(classes, dtype=torch.bool), 1 - (1 - own).clamp(min=0).sqrt(), (off / own[:, None]).sqrt()
    )


def context_weights(context: Tensor, true: Tensor, said: Tensor, regular: float = 1.0) -> Tensor:
    """(n,): 1 with the background; else by the pair, divided by the foreground's mean, drawn towards 1 by `regular`."""
    classes = len(context)
    front = (true < classes) & (said < classes)
    chosen = transformed(context)[true.clamp(max=classes - 1), said.clamp(max=classes - 1)]
    weights = torch.where(true == said, 1 - chosen, chosen)
    mean = weights[front].mean() if bool(front.any()) else weights.new_ones(())
    return torch.where(front, (weights / mean + regular) / (1 + regular), torch.ones_like(weights))


class SemanticAware(Objective):
    """Cross-entropy with the teacher's labels, weighed by the confusions known so far."""

    batch_wide = True

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        assert batch.labels is not None
        weights = context_weights(batch.common[CONTEXT], batch.labels, student.output.argmax(dim=1))
        sure = batch.extras["sure"]
        return weights * sure * F.cross_entropy(student.output, batch.labels, reduction="none")


class Grounded(DataStrategy):
    """Unlabelled examples in two views: the average labels the weak one, the learner gets the strong one."""

    augments = True

    def __init__(self, classes: int = 3, noise: float = 0.3) -> None:
        self._noise = noise
        self.context = torch.zeros(classes, classes)
        self._clock = Clock("", 0, 1, 0, 1)

    @property
    def streams(self) -> Mapping[str, float]:
        return {"unlabelled": 1.0}

    @property
    def deterministic(self) -> bool:
        return False

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        self._clock = clock
        plain = batches["unlabelled"]
        weak, strong = self.augmented(plain, generator), self.augmented(plain, generator)
        noise = self._noise * torch.randn(strong.inputs[0].shape, generator=generator)
        p, labels = teachers["average"].observe(weak).output.softmax(dim=1).max(dim=1)
        seen = strong.with_inputs(strong.inputs[0] + noise)
        extras, common = {"sure": (p > SURE).float()}, {CONTEXT: self.context}
        return {"unlabelled": replace(seen, labels=labels, extras=extras, common=common)}

    def learn(self, batches: Mapping[str, Batch], feedback: Mapping[str, Tensor]) -> None:
        labels = batches["unlabelled"].labels
        assert labels is not None
        a = inertia(self._clock.step, self._clock.steps)
        self.context = confused(self.context, labels, feedback["said"], a)

    def state(self) -> Mapping[str, Tensor]:
        return {CONTEXT: self.context}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.context = state[CONTEXT]


class Shipped(Teacher):
    """The student that ships, asked as a teacher: it is the average of the one that learns."""

    cacheable = False
    fingerprint = "the student's own average"

    def __init__(self, average: nn.Module) -> None:
        self._average = average

    def observe(self, batch: Batch) -> Signals:
        training = self._average.training
        self._average.eval()
        with torch.no_grad():
            answer = Signals(self._average(*batch.inputs))
        self._average.train(training)
        return answer


def step(decay: float) -> Callable[[World, Mapping[str, Batch], Clock], Iterator[Update]]:
    def follow(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        batch = batches["unlabelled"]
        answer = world.observe("learner", batch)
        loss = world.objectives["semantic_aware"](answer, answer, batch, clock).mean()
        yield Update(loss, groups=("learner",), feedback={"said": answer.output.argmax(dim=1)})
        with torch.no_grad():  # the loop has stepped: "student", which ships, follows
            for ours, theirs in zip(
                world.students["student"].state_dict().values(),
                world.students["learner"].state_dict().values(),
                strict=True,
            ):
                ours.lerp_(theirs, 1 - decay) if ours.is_floating_point() else ours.copy_(theirs)

    return follow


def method(decay: float) -> Method:
    return Method(
        source="arXiv:2504.15404",
        objectives={"semantic_aware": SemanticAware},
        students=lambda build: {"student": build(), "learner": build()},
        teachers=lambda teacher, students: {"average": Shipped(students["student"])},
        strategy=Grounded,
        phases=(Phase("adapt", step=step(decay)),),
    )


def adapted(toy: ModuleType, decay: float, epochs: int = 3) -> tuple[dict[str, nn.Module], Grounded, float]:
    """Students that start from one that knows the labels, what the strategy knows, and the validation score."""
    chosen, strategy = method(decay), Grounded()
    students = dict(chosen.students(lambda: toy.network(8)))
    fit(
        method=Method("labels", {"labels": Labels}), students={"student": students["student"]}, teachers={},
        objectives={"labels": Labels()}, weights={}, splits=toy.splits(), task=toy.NoisyTask(), numbers=toy.NUMBERS,
        seed=0, precision="fp32",
    )  # fmt: skip
    students["learner"].load_state_dict(students["student"].state_dict())
    outcome = fit(
        method=chosen, students=students, teachers=chosen.teachers(toy.teacher(), students),
        objectives={"semantic_aware": SemanticAware()}, weights={}, splits=toy.splits(extras=toy.streams()),
        task=toy.NoisyTask(), numbers=replace(toy.NUMBERS, epochs=epochs, keep_best=True), seed=0, precision="fp32",
        strategy=strategy,
    )  # fmt: skip
    assert outcome.validation is not None
    return students, strategy, outcome.validation


M = torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)


def test_reference_values() -> None:
    pairs = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 0], [1, 3], [3, 2]]).T
    moved = confused(M, pairs[0], pairs[1], 0.9)
    expected = [[0.78666667, 0.12333333, 0.09], [0.37, 0.54, 0.09], [0.2, 0.2, 0.6]]
    torch.testing.assert_close(moved, torch.tensor(expected, dtype=torch.float64), rtol=0.0, atol=5e-9)
    torch.testing.assert_close(moved.sum(1), torch.ones(3, dtype=torch.float64))
    weights = [
        [0.55278640, 0.35355339, 0.35355339],
        [0.70710678, 0.36754447, 0.40824829],
        [0.57735027, 0.57735027, 0.36754447],
    ]
    torch.testing.assert_close(transformed(M), torch.tensor(weights, dtype=torch.float64), rtol=0.0, atol=5e-9)
    true, said = torch.tensor([0, 0, 1, 1, 2, 3]), torch.tensor([0, 1, 1, 0, 2, 3])
    for regular, found in (
        (1.0, [0.90321700, 0.81877103, 1.07023495, 1.13754206, 1.07023495, 1.0]),
        (0.0, [0.80643401, 0.63754206, 1.14046991, 1.27508412, 1.14046991, 1.0]),
    ):
        values = context_weights(M, true, said, regular)
        torch.testing.assert_close(values, torch.tensor(found, dtype=torch.float64), rtol=0.0, atol=5e-9)
        assert values[:5].mean().item() == pytest.approx(1.0)
    assert [round(inertia(n, 20000), 6) for n in (0, 2500, 5000, 7500, 10000)] == [
        0.5,
        0.507656,
        0.56125,
        0.706719,
        0.99,
    ]
    assert torch.isfinite(context_weights(torch.eye(3, dtype=torch.float64), true, said)).all()
    assert (context_weights(M, torch.full((2,), 3), torch.full((2,), 3)) == 1.0).all()


def test_what_ships_is_the_average_of_what_learns(toy: ModuleType) -> None:
    copied, _, _ = adapted(toy, decay=0.0, epochs=1)
    for name, value in copied["learner"].state_dict().items():
        torch.testing.assert_close(copied["student"].state_dict()[name], value)
    still, _, _ = adapted(toy, decay=1.0, epochs=1)
    assert not torch.equal(still["learner"].state_dict()["head.weight"], still["student"].state_dict()["head.weight"])


def test_confusions_are_gathered_and_the_average_goes_on_knowing(toy: ModuleType) -> None:
    _, strategy, score = adapted(toy, decay=0.9)
    rows = strategy.context.sum(dim=1)
    assert ((rows > 0.5) & (rows < 1.0 + 1e-6)).any()
    assert float(strategy.context.diagonal().sum()) > 0.5 * float(strategy.context.sum())
    assert score > 0.6  # a third is chance
