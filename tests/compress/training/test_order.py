"""Orders: every example once, equal batches, the same again from the same seed."""

from collections.abc import Mapping
from types import ModuleType

import pytest
import torch

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.strategy import DataStrategy
from compress.contracts.teacher import Teacher
from compress.training.order import EpochPlan, derived_seed, steps_per_epoch


class TwoStreams(DataStrategy):
    """Half as many "few" as "train"."""

    streams = {"train": 1.0, "few": 0.5}  # type: ignore[assignment]  # noqa: RUF012
    deterministic = True  # type: ignore[assignment]

    def transform(
        self, batches: Mapping[str, Batch], teachers: Mapping[str, Teacher], clock: Clock, generator: torch.Generator
    ) -> Mapping[str, Batch]:
        return batches


def draw(toy: ModuleType, train: int, few: int, batch: int, epoch: int = 0, seed: int = 1) -> EpochPlan:
    streams = {"train": toy.images(train, 1), "few": toy.images(few, 2)}
    return EpochPlan.draw(TwoStreams(), streams, batch, steps_per_epoch(train, batch), seed, Clock("p", 0, 1, epoch, 9))


@pytest.mark.parametrize(("length", "batch", "steps"), [(100, 32, 4), (96, 32, 3), (5, 32, 1), (1, 1, 1)])
def test_an_epoch_has_every_example_once_in_equal_batches(toy: ModuleType, length: int, batch: int, steps: int) -> None:
    cuts = draw(toy, length, 7, batch).positions["train"]
    assert len(cuts) == steps
    assert max(map(len, cuts)) - min(map(len, cuts)) <= 1
    assert max(map(len, cuts)) <= batch
    assert sorted(torch.cat(cuts).tolist()) == list(range(length))


def test_a_short_second_stream_starts_over_in_a_new_order(toy: ModuleType) -> None:
    cuts = draw(toy, 96, 24, 32).positions["few"]
    assert [len(cut) for cut in cuts] == [16, 16, 16]
    flat = torch.cat(cuts).tolist()
    assert sorted(flat[:24]) == sorted(flat[24:48]) == list(range(24))
    assert flat[:24] != flat[24:48]


def test_orders_depend_on_seed_and_epoch_alone(toy: ModuleType) -> None:
    first, again = draw(toy, 96, 24, 32), draw(toy, 96, 24, 32)
    for name in ("train", "few"):
        assert torch.equal(torch.cat(first.positions[name]), torch.cat(again.positions[name]))
        for other in (draw(toy, 96, 24, 32, epoch=1), draw(toy, 96, 24, 32, seed=2)):
            assert not torch.equal(torch.cat(first.positions[name]), torch.cat(other.positions[name]))


def test_parts_put_together_are_the_batch(toy: ModuleType) -> None:
    streams = {"train": toy.images(33, 1), "few": toy.images(9, 2)}
    plan = EpochPlan.draw(TwoStreams(), streams, 33, 1, 1, Clock("p", 0, 1, 0, 1))
    whole = plan.batches(streams, 0)["train"]
    parts = [plan.batches(streams, 0, part, 2)["train"] for part in range(2)]
    assert [len(part) for part in parts] == [17, 16]
    assert torch.equal(torch.cat([part.inputs[0] for part in parts]), whole.inputs[0])
    assert torch.equal(whole.part(1, 2).inputs[0], parts[1].inputs[0])
    assert whole.stream == "train"


def test_seeds_differ_by_every_part() -> None:
    seeds = {derived_seed(*parts) for parts in ((1, "a"), (1, "b"), (2, "a"), ("1", "a"), (1, "a", 0), (11, "a"))}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)
