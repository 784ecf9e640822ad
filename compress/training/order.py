"""Which examples each step sees: a function of seed, phase, epoch and step alone, so a resumed run sees the same."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Examples
from compress.contracts.strategy import DataStrategy


def derived_seed(*parts: int | str) -> int:
    """A 63-bit seed that any change of any part changes."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by the parts."""
    return torch.Generator().manual_seed(derived_seed(*parts))


def steps_per_epoch(length: int, batch_size: int) -> int:
    """ceil(length / batch_size), so that every example is seen once and no batch is larger than asked for."""
    return max(1, math.ceil(length / batch_size))


@dataclass(frozen=True)
class EpochPlan:
    """Positions of one epoch by stream, cut into its steps.

    The first stream's positions are cut into equal parts (sizes differ by one at most: no ragged last batch); the
    others give the same number to every step and start over, in a new order, when they run out.
    """

    positions: Mapping[str, tuple[Tensor, ...]]

    @staticmethod
    def draw(
        strategy: DataStrategy,
        streams: Mapping[str, Examples],
        batch_size: int,
        steps: int,
        seed: int,
        clock: Clock,
    ) -> "EpochPlan":
        """Positions of the epoch whose first step `clock` stands at.

        A first stream whose order is shorter or longer than its length keeps `steps`.
        """
        positions = {}
        for number, (name, factor) in enumerate(strategy.streams.items()):
            source = generator(seed, "order", clock.phase, clock.epoch, name)
            length = len(streams[name])
            order = strategy.order(name, length, clock, source)
            if number == 0:
                wanted = len(order) if steps <= len(order) <= steps * batch_size else min(steps * batch_size, length)
            else:
                wanted = steps * max(1, round(factor * batch_size))
            parts = [order]
            while sum(map(len, parts)) < wanted:
                parts.append(strategy.order(name, length, clock, source))
            positions[name] = torch.cat(parts)[:wanted].tensor_split(steps)
        return EpochPlan(positions)

    def batches(self, streams: Mapping[str, Examples], step: int, part: int = 0, parts: int = 1) -> dict[str, Batch]:
        """The batch of every stream at `step`, or the given one of its consecutive parts."""
        return {
            name: replace(streams[name].batch(cuts[step].tensor_split(parts)[part]), stream=name)
            for name, cuts in self.positions.items()
        }
