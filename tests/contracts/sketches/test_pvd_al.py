"""The data strategy learns from the loss: what the student renders worst comes back.

Source: Fang et al., "PVD-AL: Progressive Volume Distillation with Active Learning", arXiv:2304.04012 (the pools of hard
poses, rays and points, on samples here). Shows: feedback of a step to the strategy, and its state in checkpoints; a
weight that decays at every step.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.method import Method, Phase
from compress.contracts.step import Update
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.objectives.soft_targets import SoftTargets
from compress.training.fit import fit
from compress.training.schedule import Decay


class HardPool(DataStrategy):
    """Keeps the worst quarter of each batch, and appends a few of what it keeps to the next ones."""

    def __init__(self, size: int = 24, drawn: int = 4) -> None:
        self.size, self._drawn = size, drawn
        self.pool: dict[str, Tensor] = {}

    @property
    def streams(self) -> Mapping[str, float]:
        return {"train": 1.0}

    @property
    def deterministic(self) -> bool:
        return False

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        batch = batches["train"]
        if not self.pool:
            return batches
        chosen = torch.randint(0, len(self.pool["index"]), (self._drawn,), generator=generator)
        assert batch.labels is not None
        return {
            "train": Batch(
                (torch.cat([batch.inputs[0], self.pool["inputs"][chosen]]),),
                torch.cat([batch.labels, self.pool["labels"][chosen]]),
                torch.cat([batch.index, self.pool["index"][chosen]]),
            )
        }

    def learn(self, batches: Mapping[str, Batch], feedback: Mapping[str, Tensor]) -> None:
        batch = batches["train"]
        worst = feedback["loss"].topk(len(batch) // 4).indices
        assert batch.labels is not None
        fresh = {"inputs": batch.inputs[0][worst], "labels": batch.labels[worst], "index": batch.index[worst]}
        self.pool = {
            name: torch.cat([value, self.pool.get(name, value[:0])])[: self.size] for name, value in fresh.items()
        }

    def state(self) -> Mapping[str, Tensor]:
        return self.pool

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.pool = dict(state)


def step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    batch = batches["train"]
    student, teacher = world.observe("student", batch), world.ask("teacher", batch)
    losses = world.objectives["colour"](student, teacher, batch, clock)
    yield Update(
        world.weights("colour") * losses.mean(),
        logs={"weight": torch.tensor(world.weights("colour"))},
        feedback={"loss": losses},
    )


METHOD = Method("arXiv:2304.04012", {"colour": SoftTargets}, strategy=HardPool, phases=(Phase("distill", step=step),))


def train(toy: ModuleType, student: Any, pool: HardPool, **changes: Any) -> Any:
    return fit(
        method=METHOD,
        students={"student": student},
        teachers={"teacher": toy.teacher()},
        objectives={"colour": SoftTargets(1.0)},
        weights={"colour": Decay(1.0, 0.995)},
        splits=toy.splits(),
        task=toy.ToyTask(),
        numbers=replace(toy.NUMBERS, epochs=4),
        seed=0,
        precision="fp32",
        strategy=pool,
        **changes,
    )


def test_the_pool_holds_the_worst_and_the_weight_decays(toy: ModuleType) -> None:
    pool = HardPool(size=8)
    outcome = train(toy, toy.network(), pool)
    assert len(pool.pool["index"]) == 8
    assert outcome.curve[0].terms["weight"] == pytest.approx((1 + 0.995 + 0.995**2) / 3, rel=1e-6)  # float32 logs
    batch, loss = toy.splits().train.batch(torch.arange(8)), torch.tensor([0.0, 5, 1, 2, 9, 3, 0, 1])
    fresh = HardPool()
    fresh.learn({"train": batch}, {"loss": loss})
    assert fresh.pool["index"].tolist() == [4, 1]


def test_a_resumed_training_takes_its_pool_along(toy: ModuleType, tmp_path: Path) -> None:
    class HereError(Exception):
        pass

    def stop(clock: Clock) -> None:
        if clock.epoch == 2:
            raise HereError

    path, whole, resumed = tmp_path / "c.pt", toy.network(), toy.network(seed=3)
    train(toy, whole, HardPool())
    with pytest.raises(HereError):
        train(toy, toy.network(), HardPool(), checkpoint=path, checkpoint_every_s=0.0, before_epoch=stop)
    train(toy, resumed, HardPool(), checkpoint=path)
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
