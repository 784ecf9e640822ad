"""The search of N2N learning: sample students, train each briefly, credit the policy with what each was worth.

Source: arXiv:1709.06030, algorithm 1. Neither the networks nor their training are known here: whoever searches says how
actions become a plan, what a plan costs and how accurate it gets.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from compress.selection.n2n_layers import Layers
from compress.selection.n2n_policy import Policy, improve
from compress.selection.n2n_reward import (
    DEGENERATE,
    HORIZON,
    Baseline,
    combined_reward,
    per_rollout,
    saving,
    violated_reward,
)
from compress.selection.pareto import pareto_front

P = TypeVar("P", bound=Hashable)


@dataclass(frozen=True)
class Size:
    """What a student costs.

    Attributes:
        params: parameters, > 0.
        latency_ms: of one inference; NaN where nobody asked.
        violates: the limit that it breaks, in words; None where it keeps to all. Such a student is not trained.
    """

    params: int
    latency_ms: float = math.nan
    violates: str | None = None


@dataclass(frozen=True)
class Episode(Generic[P]):
    """One rollout.

    Attributes:
        iteration: from 0.
        plan: the student; None where the actions describe none.
        accuracy: on validation data after the short training; None where it was not trained.
        size: None where there is no student.
        reward: in [-1, 1] or a little above.
    """

    iteration: int
    plan: P | None
    accuracy: float | None
    size: Size | None
    reward: float


@dataclass(frozen=True)
class Worth:
    """What a reward is made of.

    Attributes:
        base: the teacher's cost.
        base_accuracy: the teacher's, on the same validation data, > 0.
        params_exponent: of R_c of the parameters; 1 in the paper.
        latency_exponent: of R_c of the latency; 0 in the paper. Needs latencies.
        least_ratio: a student below this part of the teacher's accuracy violates a constraint; 0 for no such limit.
        horizon: iterations after which a violated constraint gives -1.
    """

    base: Size
    base_accuracy: float
    params_exponent: float = 1.0
    latency_exponent: float = 0.0
    least_ratio: float = 0.0
    horizon: int = HORIZON

    def of(self, accuracy: float, size: Size, step: int) -> float:
        """The reward of a student that was trained, or for one that was not, whose accuracy is guessed.

        A student with as many parameters as the teacher or more is no compression: -1.
        """
        if size.params >= self.base.params:
            return DEGENERATE
        costs = [(saving(size.params, self.base.params), self.params_exponent)]
        if self.latency_exponent > 0.0:
            costs.append((saving(size.latency_ms, self.base.latency_ms), self.latency_exponent))
        ratio = accuracy / self.base_accuracy
        violated = size.violates is not None or ratio < self.least_ratio
        reward = combined_reward(ratio, costs)
        if reward == DEGENERATE or not violated:
            return reward
        return violated_reward(reward, step, self.horizon)


@dataclass
class Judge(Generic[P]):
    """Gives the students of an iteration their rewards; trains each plan once.

    Attributes:
        evaluate: trains some plans briefly -> their accuracies on validation data (NaN: diverged), or None where
            nothing is left to spend on them. It is asked once per plan.
        size: what a plan costs; asked once per plan.
        known: plan -> accuracy.
    """

    evaluate: Callable[[Sequence[P]], Sequence[float] | None]
    size: Callable[[P], Size]
    worth: Worth
    known: dict[P, float] = field(default_factory=dict)
    sizes: dict[P, Size] = field(default_factory=dict)

    def __call__(self, plans: Sequence[P | None], iteration: int) -> list[Episode[P]] | None:
        """Episodes in the order of `plans`; None where some plan would have to be trained and nothing is left."""
        for plan in plans:
            if plan is not None and plan not in self.sizes:
                self.sizes[plan] = self.size(plan)
        fresh = [
            plan
            for plan in dict.fromkeys(plans)
            if plan is not None
            and plan not in self.known
            and self.sizes[plan].violates is None
            and self.sizes[plan].params < self.worth.base.params
        ]
        if fresh:
            found = self.evaluate(fresh)
            if found is None:
                return None
            self.known.update(zip(fresh, found, strict=True))
        return [self.episode(plan, iteration) for plan in plans]

    def episode(self, plan: P | None, iteration: int) -> Episode[P]:
        """What is known of a plan, with its reward at this iteration."""
        if plan is None:
            return Episode(iteration, None, None, None, DEGENERATE)
        size, accuracy = self.sizes[plan], self.known.get(plan)
        guess = self.usual_accuracy() if accuracy is None else accuracy
        return Episode(iteration, plan, accuracy, size, self.worth.of(guess, size, iteration))

    def usual_accuracy(self) -> float:
        """For a student over the budget, on which no training is spent ("proposed"): the mean of those trained so far,
        the teacher's before there are any."""
        finite = [value for value in self.known.values() if math.isfinite(value)]
        return sum(finite) / len(finite) if finite else self.worth.base_accuracy


@dataclass(frozen=True)
class Searched(Generic[P]):
    """What a search saw, in order."""

    episodes: tuple[Episode[P], ...]

    def rows(self) -> list[dict[str, Any]]:
        """The history as plain data, one row per rollout that gave a student."""
        return [row(episode) for episode in self.episodes if episode.plan is not None]

    def front_rows(self) -> list[dict[str, Any]]:
        """The Pareto set as plain data."""
        return [row(episode) for episode in self.pareto]

    @property
    def means(self) -> tuple[float, ...]:
        """Mean reward of each iteration."""
        by_iteration: dict[int, list[float]] = {}
        for episode in self.episodes:
            by_iteration.setdefault(episode.iteration, []).append(episode.reward)
        return tuple(sum(rewards) / len(rewards) for rewards in by_iteration.values())

    @property
    def trained(self) -> tuple[Episode[P], ...]:
        """The first episode of each student that was trained, in order."""
        first: dict[P, Episode[P]] = {}
        for episode in self.episodes:
            if episode.plan is not None and episode.accuracy is not None:
                first.setdefault(episode.plan, episode)
        return tuple(first.values())

    @property
    def best(self) -> Episode[P] | None:
        """The trained student with the highest reward, the earlier of equal ones; None where none was trained."""
        return max(self.trained, key=lambda episode: episode.reward, default=None)

    def best_for(self, worth: Worth) -> Episode[P] | None:
        """The same by what rewards become in the end: early students that violate a constraint were eased then."""

        def lasting(episode: Episode[P]) -> float:
            assert episode.accuracy is not None
            assert episode.size is not None
            return worth.of(episode.accuracy, episode.size, worth.horizon)

        return max(self.trained, key=lasting, default=None)

    @property
    def pareto(self) -> tuple[Episode[P], ...]:
        """Trained students that no other beats in both accuracy and parameters."""
        points = [(-(e.accuracy or 0.0), float(e.size.params)) for e in self.trained if e.size is not None]
        return tuple(self.trained[place] for place in pareto_front(points))


def row(episode: Episode[Any]) -> dict[str, Any]:
    """One rollout as plain data, with the keys of `Episode` and `Size`; the plan's own `to_json` for the plan."""
    return {
        "iteration": episode.iteration,
        "plan": episode.plan.to_json() if episode.plan is not None else None,
        "accuracy": episode.accuracy,
        **(asdict(episode.size) if episode.size is not None else {}),
        "reward": episode.reward,
    }


def search(
    policy: Policy,
    layers: Layers,
    decode: Callable[[Tensor], P | None],
    judge: Callable[[Sequence[P | None], int], list[Episode[P]] | None],
    *,
    rate: float,
    rollouts: int,
    iterations: int,
    generator: torch.Generator,
    credit: Callable[[Tensor, float], Tensor] = per_rollout,
) -> Searched[P]:
    """Improve `policy` in place for some iterations, one averaged Adam step each.

    Args:
        layers: what the policy reads.
        decode: one rollout's actions, (L,) or (L, 5) -> a plan; None for a student that cannot be.
        judge: plans and the iteration -> episodes; None ends the search before its step.
        rate: of Adam.
        rollouts: students per iteration, >= 1.
        iterations: at most.
        generator: of every sampled action.
        credit: rewards (N,) and the baseline -> advantages (N,).
    """
    optimizer = torch.optim.Adam(policy.parameters(), lr=rate)
    baseline = Baseline()
    episodes: list[Episode[P]] = []
    for iteration in range(iterations):
        rolled = policy.sample(layers, rollouts, generator)
        judged = judge([decode(actions) for actions in rolled.actions], iteration)
        if judged is None:
            break
        episodes.extend(judged)
        rewards = torch.tensor([episode.reward for episode in judged])
        mean = float(rewards.mean())
        improve(optimizer, rolled.log_p, credit(rewards, baseline.against(mean)))
        baseline = baseline.after(mean)
    return Searched(tuple(episodes))
