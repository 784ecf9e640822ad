"""Students that a policy cuts out of the teacher: first it leaves blocks out, then it narrows what stays.

Source: Ashok, Rhinehart, Beainy, Kitani, "N2N Learning: Network to Network Compression via Policy Gradient
Reinforcement Learning", ICLR 2018, arXiv:1709.06030.

What differs from the paper, and why:

- A residual or repeated block goes as a whole, with one decision. Single layers inside a block cannot be left out of
  the space `derived`: a convolution without its normalisation trains badly and its sums may not fit.
- Only numbers of channels shrink, to the widths that the space offers. Padding times a factor breaks residual sums.
- Students start from the weights that the problem gives them. Those of `derived` are the teacher's, where the paper
  trains every student anew.
- A student over the budget first has its widths lowered evenly until it fits (`fits`); the paper's penalty is for those
  that no width saves. Where no student at all would fit, the search is one at a lower resolution. Without a budget it
  is the paper's.
- Advantages, baseline and step are those of the paper's text, not of its code (see `selection/n2n_reward.py`).
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, final

import torch
from torch import Tensor

from compress.contracts.selector import Candidate, Problem, Selection, Trial
from compress.errors import RecipeError
from compress.selection.n2n_layers import CHANNELS, ENTRIES, KERNEL, Layers, describe
from compress.selection.n2n_policy import (
    KEEP,
    MULTIPLIERS,
    Policy,
    RemovalPolicy,
    ShrinkPolicy,
    load_policies,
    save_policies,
)
from compress.selection.n2n_reward import HORIZON
from compress.selection.n2n_search import Judge, Searched, Size, Worth, search
from compress.selection.ranking import capacity
from compress.selection.teacher_score import teacher_score
from compress.spaces.derived import Derived, Plan

P = TypeVar("P", bound=Hashable)
Searches = Searched[Plan]

ITERATIONS = 100  # of the paper, which `HORIZON` belongs to
CHANGED = {ENTRIES[CHANNELS], ENTRIES[KERNEL]}
NARROWEST = 1 / 16  # of the asked widths, where an even scale is looked for that fits the budget


@final
@dataclass(frozen=True)
class N2N:
    """Policy-gradient search over the students of the space `derived`.

    Attributes:
        rollouts: students per iteration.
        iterations: of each of the two searches at most; a small training budget allows fewer.
        share: of the full training that one student gets for its reward.
        longer: part of the training budget that is kept for training the best longer.
        finalists: how many of the best that is; 0 for none.
        removal_rate, shrink_rate: Adam's, of the two policies.
        params_exponent: of the reward's term for parameters; 1 is the paper. 0 where the budget is the only wish for
            size: then the most accurate student that fits is the best.
        latency_exponent: of the same term for latency on the target; 0 is the paper, 1 multiplies it in ("proposed").
        least_ratio: a student below this part of the teacher's accuracy violates a constraint.
        fits: halvings of the interval in which an even width scale is looked for that brings a student within the
            budget; 0 leaves such students as they are, rejected and punished.
        shrinkable: what the second policy changes: "channels", "kernel". The paper's code lets everything shrink.
        policy: file of policies to start from, of this teacher or a smaller one; "" for fresh ones.
        save_policy: file to write the policies to; "" for none.
    """

    rollouts: int = 5
    iterations: int = ITERATIONS
    share: float = 0.05
    longer: float = 0.3
    finalists: int = 3
    removal_rate: float = 3e-3
    shrink_rate: float = 1e-2
    params_exponent: float = 1.0
    latency_exponent: float = 0.0
    least_ratio: float = 0.0
    fits: int = 5
    shrinkable: tuple[str, ...] = ("channels",)
    policy: str = ""
    save_policy: str = ""

    def __post_init__(self) -> None:
        wrong = None
        if self.rollouts < 1 or self.iterations < 0 or self.finalists < 0 or self.fits < 0:
            wrong = "rollouts is at least 1; iterations, finalists and fits are at least 0"
        elif not 0.0 < self.share <= 1.0 or not 0.0 <= self.longer < 1.0:
            wrong = f"share is in (0, 1] and longer in [0, 1); here they are {self.share} and {self.longer}"
        elif self.params_exponent < 0.0 or self.latency_exponent < 0.0 or not 0.0 <= self.least_ratio <= 1.0:
            wrong = "exponents are at least 0, and least_ratio is in [0, 1]"
        elif not self.shrinkable or not set(self.shrinkable) <= CHANGED:
            wrong = f"shrinkable names some of {', '.join(sorted(CHANGED))}; here it is {list(self.shrinkable)}"
        elif self.removal_rate <= 0.0 or self.shrink_rate <= 0.0:
            wrong = "learning rates are positive"
        if wrong:
            raise RecipeError(f"selector n2n: {wrong}", fix="mend [select.settings]")

    def __call__(self, problem: Problem) -> Selection:
        """Students by reward: first those trained longer, then those trained briefly, then the untried of the pool.

        Raises:
            RecipeError: the space `derived` is not there, the teacher's score is not positive, or `policy` is no file
                of policies.
        """
        cutter = Cutter.of(problem, self)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(problem.seed)
            removal, shrink = RemovalPolicy(), ShrinkPolicy()
        if self.policy:
            load_policies(Path(self.policy), {"removal": removal, "shrink": shrink})
        worth = Worth(
            cutter.size(cutter.whole),
            teacher_score(problem, "n2n"),
            self.params_exponent,
            self.latency_exponent,
            self.least_ratio,
        )
        stop = problem.spent + (1.0 - self.longer if self.finalists else 1.0) * (problem.training - problem.spent)
        scores: dict[Plan, float] = {}

        def run(policy: Policy, layers: Layers, decode: Callable[[Tensor], Plan], rate: float, part: float) -> Searches:
            """One search, with this part of what there still is to spend on searching."""
            allowed = part * (stop - problem.spent)
            end = problem.spent + allowed

            def evaluate(plans: Sequence[Plan]) -> Sequence[float] | None:
                if problem.spent + len(plans) * self.share > end * (1.0 + 1e-12):
                    return None
                outcomes = problem.train([Trial(cutter.candidate(plan), self.share) for plan in plans])
                return [outcome.score for outcome in outcomes]

            # As many iterations as there would be if no student came twice; repeats cost nothing and give a few more.
            planned = min(float(self.iterations), allowed / (self.rollouts * self.share))
            eased = replace(worth, horizon=max(1, round(HORIZON * planned / ITERATIONS)))
            judge = Judge(evaluate, cutter.size, eased, scores)
            return self.search(policy, layers, decode, judge, rate, problem.seed)

        removed = shrunk = Searches(())
        layers = cutter.removable()
        if layers.removable.any():
            part = 0.5 if cutter.space.groups else 1.0
            removed = run(removal, layers, partial(cutter.shorter, layers), self.removal_rate, part)
        best = removed.best_for(worth)
        dropped = best.plan.dropped if best and best.plan else ()
        layers = cutter.shrinkable(dropped)
        if layers.shrinkable.any():
            shrunk = run(shrink, layers, partial(cutter.narrower, layers, dropped), self.shrink_rate, 1.0)
        if self.save_policy:
            facts = {"seed": problem.seed, "iterations": [len(removed.means), len(shrunk.means)]}
            save_policies(Path(self.save_policy), {"removal": removal, "shrink": shrink}, facts)
        tried = self.trained_longer(problem, cutter, worth, scores)
        return Selection(cutter.with_the_rest(tried, scores), notes_of(worth, removed, shrunk, tried))

    def search(
        self,
        policy: Policy,
        layers: Layers,
        decode: Callable[[Tensor], P | None],
        judge: Judge[P],
        rate: float,
        seed: int,
    ) -> Searched[P]:
        """One of the two searches with these settings, on students of any kind: N2N without the loop around it.

        Args:
            policy: to start from; it learns in place.
            layers: of the teacher, for the first policy; of what the first one kept, for the second.
            decode: the actions of one rollout -> a plan; None where they describe no network.
            judge: trains, costs and rewards plans.
            rate: of Adam: `removal_rate`, `shrink_rate`.
            seed: of the sampled actions.
        """
        return search(
            policy,
            layers,
            decode,
            judge,
            rate=rate,
            rollouts=self.rollouts,
            iterations=self.iterations,
            generator=torch.Generator().manual_seed(seed),
        )

    def trained_longer(
        self, problem: Problem, cutter: "Cutter", worth: Worth, scores: dict[Plan, float]
    ) -> list[Candidate]:
        """Everybody that was trained, by reward; the best of them after what training there is left."""

        def by_reward(candidate: Candidate) -> tuple[float, float]:
            return -reward_of(candidate, worth), candidate.cost.params

        brief = [replace(cutter.candidate(plan), score=score, fidelity=self.share) for plan, score in scores.items()]
        brief = sorted((c for c in brief if c.score == c.score), key=by_reward)
        finalists = brief[: self.finalists]
        each = min(1.0, (problem.training - problem.spent) / len(finalists)) if finalists else 0.0
        if each <= self.share:
            return brief
        outcomes = problem.train([Trial(candidate, each) for candidate in finalists])
        for candidate, outcome in zip(finalists, outcomes, strict=True):
            if not math.isfinite(outcome.score):
                scores[candidate.plan] = math.nan
        longer = [replace(c, score=o.score, fidelity=each) for c, o in zip(finalists, outcomes, strict=True)]
        longer = sorted((c for c in longer if c.score == c.score), key=by_reward)
        return [*longer, *brief[self.finalists :]]


@dataclass(frozen=True)
class Cutter:
    """Plans of the space `derived`, and what the problem says about them.

    Attributes:
        settings: `fits` and `shrinkable` are read.
        whole: the teacher itself.
        asked: every plan that was costed.
    """

    problem: Problem
    name: str
    space: Derived
    settings: N2N
    whole: Plan
    asked: dict[Plan, Candidate] = field(default_factory=dict)

    @classmethod
    def of(cls, problem: Problem, settings: N2N) -> "Cutter":
        """For the problem's space of students cut out of the teacher."""
        for name, space in problem.spaces.items():
            if isinstance(space, Derived):
                whole = space.plan({group.name: group.channels for group in space.groups}, ())
                return cls(problem, name, space, settings, whole)
        raise RecipeError(
            "the selector n2n cuts students out of the teacher's layers, and the space 'derived' is not among"
            f" {', '.join(problem.spaces) or 'none'}",
            fix="add derived to select.spaces, or choose another selector for a teacher that is a black box",
        )

    @cached_property
    def resolution(self) -> tuple[int, bool]:
        """How many positions become one, and whether the head reads averages, in all students of the search: the
        teacher's resolution, or the highest at which the least student fits the budget."""
        widths = {group.name: self.space.nearest(group, NARROWEST) for group in self.space.groups}
        offered = sorted((shrink, pooled) for pooled, shrinks in self.space.shrinks.items() for shrink in shrinks)
        for shrink, pooled in offered if self.settings.fits else ():
            if self.candidate(self.space.plan(widths, self.space.blocks, None, pooled, shrink)).rejected is None:
                return shrink, pooled
        return offered[0]

    @property
    def features(self) -> Tensor:
        """Something of the shape that the teacher takes: layers are read from shapes, not from values."""
        return torch.zeros(1, *self.space.shape)

    def removable(self) -> Layers:
        """The teacher as the first policy reads it."""
        return describe(self.space.teacher, self.features, self.space.blocks)

    def shorter(self, layers: Layers, actions: Tensor) -> Plan:
        """The first policy's actions, (L,), as a student of the teacher's widths."""
        return self.within_budget([block for block in self.space.blocks if actions[layers.decides[block]] != KEEP], {})

    def shrinkable(self, dropped: Sequence[str]) -> Layers:
        """The teacher without these blocks as the second policy reads it."""
        kept = self.space.build(self.space.plan(dict(self.whole.widths), dropped))
        blocks = [block for block in self.space.blocks if block not in dropped]
        members = {
            group.name: [piece.layer for piece in group.slices if not piece.consumes]
            for group in self.space.present(dropped)
        }
        changed = self.settings.shrinkable
        kernels = self.space.convolutions(dropped) if ENTRIES[KERNEL] in changed else ()
        return describe(kept, self.features, blocks, members if ENTRIES[CHANNELS] in changed else {}, kernels)

    def narrower(self, layers: Layers, dropped: Sequence[str], actions: Tensor) -> Plan:
        """The second policy's actions, (L, 5), as a student without these blocks."""
        taken = actions.tolist()
        names = [group.name for group in self.space.present(dropped) if group.name in layers.decides]
        factors = {name: MULTIPLIERS[taken[layers.decides[name]][CHANNELS]] for name in names}
        kernels = {}
        for place in layers.shrinkable[:, KERNEL].nonzero().flatten().tolist():
            sizes = self.space.kernels[layers.names[place]]
            wanted = MULTIPLIERS[taken[place][KERNEL]] * sizes[-1]
            kernels[layers.names[place]] = min(sizes, key=lambda size: (abs(size - wanted), size))
        return self.within_budget(dropped, factors, kernels)

    def candidate(self, plan: Plan) -> Candidate:
        """The costed plan."""
        if plan not in self.asked:
            self.asked[plan] = self.problem.admit(self.name, plan)
        return self.asked[plan]

    def size(self, plan: Plan) -> Size:
        """What the search wants to know of it."""
        candidate = self.candidate(plan)
        return Size(candidate.cost.params, candidate.cost.latency_ms, candidate.rejected)

    def within_budget(
        self, dropped: Sequence[str], factors: Mapping[str, float], kernels: Mapping[str, int] | None = None
    ) -> Plan:
        """The student with these parts of the teacher's widths, or evenly narrower so that it fits the budget.

        Args:
            dropped: blocks to leave out.
            factors: channel group -> part of the teacher's width; 1 for a group that is not named.
            kernels: convolution -> extent of its window; the teacher's for one that is not named.
        """

        shrink, pooled = self.resolution

        def scaled(scale: float) -> Plan:
            widths = {g.name: self.space.nearest(g, scale * factors.get(g.name, 1.0)) for g in self.space.groups}
            return self.space.plan(widths, dropped, kernels, pooled, shrink)

        asked = scaled(1.0)
        if not self.settings.fits or self.candidate(asked).rejected is None:
            return asked
        best = scaled(NARROWEST)
        if self.candidate(best).rejected is not None:
            return asked
        low, high = math.log(NARROWEST), 0.0
        for _ in range(self.settings.fits):
            middle = 0.5 * (low + high)
            plan = scaled(math.exp(middle))
            if self.candidate(plan).rejected is None:
                low, best = middle, plan
            else:
                high = middle
        return best

    def with_the_rest(self, tried: Sequence[Candidate], scores: Mapping[Plan, float]) -> tuple[Candidate, ...]:
        """Behind those that were tried: the untried of the pool, the dearest first, then whoever is out."""
        known = {candidate.identity: candidate for candidate in (*self.asked.values(), *self.problem.pool)}
        for plan, score in scores.items():
            if score != score:
                candidate = self.candidate(plan)
                known[candidate.identity] = replace(candidate, rejected="its training diverged")
        there = {candidate.identity for candidate in tried}
        rest = [candidate for name, candidate in known.items() if name not in there]
        untried = sorted((c for c in rest if c.rejected is None), key=lambda c: (-capacity(c.cost), c.identity))
        return (*tried, *untried, *(c for c in rest if c.rejected is not None))


def reward_of(candidate: Candidate, worth: Worth) -> float:
    """The reward of a candidate that was trained."""
    score = math.nan if candidate.score is None else candidate.score
    return worth.of(score, Size(candidate.cost.params, candidate.cost.latency_ms), worth.horizon)


def notes_of(worth: Worth, removed: Searches, shrunk: Searches, tried: Sequence[Candidate]) -> dict[str, Any]:
    """What happened, for the report: every rollout, the mean rewards, the Pareto set of accuracy and parameters."""
    return {
        "teacher": {"accuracy": worth.base_accuracy, **asdict(worth.base)},
        "mean_rewards": {"removal": list(removed.means), "shrinkage": list(shrunk.means)},
        "history": {"removal": removed.rows(), "shrinkage": shrunk.rows()},
        "pareto": Searched((*removed.episodes, *shrunk.episodes)).front_rows(),
        "rewards": {candidate.identity: reward_of(candidate, worth) for candidate in tried},
    }


SELECTOR = N2N
