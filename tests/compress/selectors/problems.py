"""A problem whose students are numbers and whose trainings are a function: nothing trains, everything is recorded."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.selector import Candidate, Outcome, Problem, Trial, identity_of
from compress.contracts.space import Space, SpaceContext
from compress.contracts.task import Task
from profiles.cost import Cost


@dataclass(frozen=True)
class Number:
    """A plan of one decision, or of two with a kind."""

    value: int
    kind: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {"number": self.value, "kind": self.kind}


def cost_of(macs: int, latency_ms: float = 0.05) -> Cost:
    interval = (0.8 * latency_ms, 1.2 * latency_ms)
    return Cost("t", "r", 1, "int8", macs, macs // 20, macs // 20, 1, latency_ms, interval, "predicted")


def candidate(
    value: int,
    macs: int = 0,
    space: str = "a",
    rejected: str | None = None,
    kind: str | None = None,
    latency_ms: float = 0.05,
) -> Candidate:
    return Candidate(space, Number(value, kind), cost_of(macs or 100_000 * (value + 1), latency_ms), rejected)


@final
class Numbers(Space[Number]):
    """0 to `most`."""

    def __init__(self, context: SpaceContext | None = None, most: int = 31) -> None:
        self.most = most

    def sample(self, rng: random.Random) -> Number:
        return Number(rng.randint(0, self.most))

    def corners(self) -> Sequence[Number]:
        return (Number(0), Number(self.most))

    def mutate(self, plan: Number, rng: random.Random) -> Number:
        near = [value for value in (plan.value - 1, plan.value + 1) if 0 <= value <= self.most]
        return Number(rng.choice(near))

    def crossover(self, plan: Number, other: Number, rng: random.Random) -> Number:
        return rng.choice((plan, other))

    def from_json(self, data: Mapping[str, Any]) -> Number:
        return Number(data["number"], data["kind"])

    def build(self, plan: Number) -> nn.Module:
        return nn.Linear(2, 2)


class Toy(Task):
    name = "toy"
    labels = ("0", "1")
    input_shape = (2,)

    def load(self, data: Any) -> Splits:
        examples = TensorExamples(torch.zeros(8, 2), torch.arange(8) % 2, "toy")
        return Splits(examples, examples, examples)

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Linear(2, 2)


@final
class Numbered(Problem):
    """Scores come from `score(number, share, seed)`.

    Attributes:
        asked: every trial in the order it was asked for, as (number, share, seed).
        charged: what the selector trained itself.
    """

    def __init__(
        self,
        pool: Sequence[Candidate],
        score: Callable[[int, float, int], float],
        *,
        training: float = 1e9,
        seed: int = 0,
        epochs: int = 20,
        spaces: Mapping[str, Space[Any]] | None = None,
        reject: Callable[[int], str | None] = lambda number: None,
        backwards: bool = False,
    ) -> None:
        self.seed, self.training, self.pool, self.epochs = seed, training, tuple(pool), epochs
        self.spaces = spaces or {}
        self.task = Toy()
        self.splits = self.task.load(None)
        self.teacher = None
        self.score, self.reject, self.backwards = score, reject, backwards
        self.asked: list[tuple[int, float, int]] = []
        self.charged: list[tuple[float, str]] = []
        self.known = {c.identity: c for c in pool}

    @property
    def spent(self) -> float:
        return sum(share for _, share, _ in self.asked) + sum(share for share, _ in self.charged)

    def admit(self, space: str, plan: Number) -> Candidate:
        identity = identity_of(space, plan)
        if identity not in self.known:
            self.known[identity] = candidate(plan.value, space=space, rejected=self.reject(plan.value), kind=plan.kind)
        return self.known[identity]

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Outcome]]:
        total = sum(trial.share for trial in trials)
        if self.spent + total > self.training * (1 + 1e-9):
            raise ValueError(f"{self.spent} and {total} more are over {self.training}")
        places = range(len(trials))
        for trial in trials:
            if trial.candidate.rejected is not None:
                raise ValueError(f"{trial.candidate.plan} was rejected: {trial.candidate.rejected}")
            self.asked.append((trial.candidate.plan.value, trial.share, trial.seed))
        for place in reversed(places) if self.backwards else places:  # results may come in any order
            trial = trials[place]
            yield place, Outcome(self.score(trial.candidate.plan.value, trial.share, trial.seed), trial.share)

    def student(self, candidate: Candidate, seed: int = 0) -> nn.Module:
        torch.manual_seed(seed)
        return self.spaces[candidate.space].build(candidate.plan)

    def charge(self, share: float, what: str) -> None:
        if self.spent + share > self.training * (1 + 1e-9):
            raise ValueError(f"{self.spent} and {share} more are over {self.training}")
        self.charged.append((share, what))
