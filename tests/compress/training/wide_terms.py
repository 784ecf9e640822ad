"""What one process or several compute of terms over a batch; test_global_batchnorm.py runs it in others."""

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method, Phase
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.contracts.step import Update, weighted_sum
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.objectives.concordance import Concordance
from compress.objectives.correlations import BetweenClasses, BetweenExamples
from compress.objectives.neighbourhood import HighFrequency, LowFrequency
from compress.objectives.regions import Regions
from compress.objectives.relations import Relations
from compress.objectives.semantics import Semantics
from compress.training.fit import fit
from compress.training.whole_batch import whole_batches

COUNT, WIDTH, CLASSES = 13, 5, 3
CLOCK = Clock("distill", 0, 1, 0, 1)


def gradients() -> dict[str, dict[str, Any]]:
    """Objective -> its loss on a batch and the gradient of all weights, however many processes share the batch."""
    processes, rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
    found = {}
    for name, make in {
        "relations": lambda: Relations("narrow", "wide"),
        "semantics": lambda: Semantics("narrow", "wide"),
        "between_examples": lambda: BetweenExamples(2.0),
        "between_classes": BetweenClasses,  # sample by sample
        "concordance": lambda: Concordance(squared_error=0.5),
        "low_frequency": LowFrequency,
        "high_frequency": HighFrequency,
        "regions": Regions,
    }.items():
        torch.manual_seed(5)
        body, head = nn.Linear(4, WIDTH).double(), nn.Linear(WIDTH, CLASSES).double()
        objective = make().double()
        if isinstance(objective, Semantics):
            objective.map = nn.Linear(WIDTH, 7, bias=False).double()
        inputs, theirs, wide = (torch.randn(COUNT, size, dtype=torch.float64) for size in (4, CLASSES, 7))
        labels = torch.randint(CLASSES, (COUNT,))

        def part(rows: Tensor) -> Tensor:
            return rows.tensor_split(processes)[rank]

        features = body(part(inputs)).tanh()
        student = Signals(head(features), taps={"narrow": features})
        teacher = Signals(part(theirs), taps={"wide": part(wide)})
        edges = torch.tensor([[0, 3, 8, 12, 5], [12, 7, 2, 1, 11]])
        common = {"edges": edges, "loops": torch.arange(COUNT)}
        batch = Batch((part(inputs),), part(labels), part(torch.arange(COUNT)), common=common)
        if name == "regions":
            student = Signals(student.output[:, :, None, None] * torch.tensor([[1.0, 0.5], [2.0, 1.0]]))
            maps = labels[:, None, None].expand(COUNT, 2, 2)
            extras = {
                "box_labels": part(maps.roll(1, 0)),
                "image_weight": part(inputs[:, 0]),
                "box_weight": part(inputs[:, 1]),
            }
            batch = replace(batch, labels=part(maps), extras=extras, common={"mask": torch.eye(2)})
        with whole_batches([objective]) if processes > 1 else nullcontext():
            values = objective(student, teacher, batch, CLOCK)
        loss = values.mean() * len(part(inputs)) / COUNT
        weights = [*body.parameters(), *head.parameters(), *objective.parameters()]
        slopes = torch.autograd.grad(loss, weights, materialize_grads=True)
        total = torch.cat([loss.detach().reshape(1), *(slope.flatten() for slope in slopes)])
        if processes > 1:
            dist.all_reduce(total)
        found[name] = {"loss": float(total[0]), "gradient": total[1:].tolist()}
    return found


class Noting(DataStrategy):
    """Keeps what it was told of."""

    streams = {"train": 1.0}  # type: ignore[assignment]  # noqa: RUF012
    deterministic = True  # type: ignore[assignment]

    def __init__(self) -> None:
        self.told: list[tuple[int, float]] = []

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        return batches

    def learn(self, batches: Mapping[str, Batch], feedback: Mapping[str, Tensor]) -> None:
        brightness = batches["train"].inputs[0].mean((1, 2, 3)).tolist()
        assert feedback["brightness"].tolist() == brightness
        self.told += zip(batches["train"].index.tolist(), brightness, strict=True)


def step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    """The usual one, and the batch's spread as a step would compute it."""
    batch = batches["train"]
    usual = weighted_sum(world, batch, clock, tuple(world.objectives))
    spread = world.gather(world.observe("student", batch).output).std(dim=0).mean()
    yield replace(
        usual, loss=usual.loss + 0.1 * spread, logs={**usual.logs, "spread": spread},
        feedback={"brightness": batch.inputs[0].mean((1, 2, 3))},
    )  # fmt: skip


def trained(toy: ModuleType) -> dict[str, Any]:
    """A short training by terms over the batch: its curve, and what the strategy was told of."""
    objectives: dict[str, Objective] = {
        "relations": Relations(("body", "pool"), ("body", "pool")),
        "semantics": Semantics("pool", "pool"),
        "between_examples": BetweenExamples(),
    }
    strategy = Noting()
    outcome = fit(
        method=Method("here", {name: type(one) for name, one in objectives.items()}, phases=(Phase("d", step=step),)),
        students={"student": toy.network(8)}, teachers={"teacher": toy.teacher(taps=("body", "pool"))},
        objectives=objectives, weights={"relations": 30.0}, splits=toy.splits(train=33), task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=2, learning_rate=2e-3), seed=3, precision="fp32", strategy=strategy,
    )  # fmt: skip
    curve = [{"loss": point.loss, **point.terms} for point in outcome.curve]
    answer: dict[str, Any] = json.loads(json.dumps({"curve": curve, "learned": strategy.told}))
    return answer
