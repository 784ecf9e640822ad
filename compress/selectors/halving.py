"""Successive halving over short distillations.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016,
arXiv:1502.07943, figure 3; shares double while the field halves, so each round costs the same.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import final

from compress.contracts.selector import Candidate
from compress.errors import RecipeError
from compress.selection.pareto import pareto_layers
from compress.selection.ranking import capacity, expense

SPAN = math.log(4.0)  # what is four times cheaper than the dearest that fits learns too little to be worth a trial


def strata(field: Sequence[Candidate], count: int) -> list[Candidate]:
    """`count` of the field, ordered from dear to cheap.

    Expense is cut into as many equal steps, from the dearest down to the cheapest or `SPAN` below the dearest. Each
    step gives the one with most capacity; an empty step's place goes to the one with most capacity that is left.
    """
    high = max(expense(c.cost) for c in field)
    span = min(SPAN, high - min(expense(c.cost) for c in field))
    best: dict[int, Candidate] = {}
    for candidate in sorted(field, key=by_capacity):
        below = high - expense(candidate.cost)
        if below <= span:
            best.setdefault(min(count - 1, int(count * below / max(span, 1e-9))), candidate)
    chosen = [best[place] for place in sorted(best)]
    chosen += [candidate for candidate in sorted(field, key=by_capacity) if candidate not in chosen]
    return chosen[:count]


def by_capacity(candidate: Candidate) -> tuple[float, float]:
    """Sorts most capacity first, ties to the cheaper."""
    return (-capacity(candidate.cost), expense(candidate.cost))


def family(candidate: Candidate) -> tuple[str, ...]:
    """The space with the plan's named decisions (a kind of block): capacity compares only within one."""
    return (candidate.space, *(value for value in candidate.plan.to_json().values() if isinstance(value, str)))


def first_field(candidates: Sequence[Candidate], count: int) -> list[Candidate]:
    """Who is tried at all: about the same number from each family, from dear to cheap.

    In each family those come first that no other beats in both expense and capacity, then those that only these beat,
    and so on, until there are three times as many as needed; from these, one per step of expense.
    """
    families: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in candidates:
        families.setdefault(family(candidate), []).append(candidate)
    orders: list[list[Candidate]] = []
    for members in families.values():
        share = min(len(members), max(1, math.ceil(count / len(families))))
        shortlist: list[Candidate] = []
        for layer in pareto_layers([(expense(c.cost), -capacity(c.cost)) for c in members]):
            shortlist += [members[place] for place in layer]
            if len(shortlist) >= 3 * share:
                break
        chosen = strata(shortlist, share)
        orders.append(chosen + [c for c in sorted(members, key=by_capacity) if c not in chosen])
    orders.sort(key=lambda order: by_capacity(order[0]))  # where places are fewer than families
    field: list[Candidate] = []
    for place in range(max(len(order) for order in orders)):
        field += [order[place] for order in orders if place < len(order)]
    return field[:count]


def by_score(candidate: Candidate) -> tuple[float, float]:
    """Sorts the best score first, ties to the cheaper, a training that diverged last."""
    score = candidate.score
    return (math.inf if score is None or math.isnan(score) else -score, expense(candidate.cost))


def with_ties(candidates: Sequence[Candidate], tie: float) -> list[Candidate]:
    """Best first; of those within `tie` of the best score the cheapest leads."""
    ranked = sorted(candidates, key=by_score)
    best = ranked[0].score if ranked else None
    if best is None or math.isnan(best):
        return ranked
    near = [candidate for candidate in ranked if candidate.score is not None and candidate.score >= best - tie]
    return sorted(near, key=lambda candidate: (expense(candidate.cost), by_score(candidate))) + ranked[len(near) :]


@final
@dataclass(frozen=True)
class Halving:
    """Trains a few candidates a little, keeps the better half, doubles the share, until one is left.

    Each round costs about `finalists * share` full trainings: 6 at 0.1 and 3 at 0.2 are 1.2 of them in all.

    Attributes:
        finalists: candidates of the first round.
        share: of the full training, in the first round.
        seed: unused; nothing here is random.
        tie: scores this close to the best of the last round count as equal, and the cheapest of these wins.
    """

    finalists: int = 8
    share: float = 0.05
    seed: int = 0
    tie: float = 0.005

    def __post_init__(self) -> None:
        if self.finalists < 1 or not 0.0 < self.share <= 1.0 or self.tie < 0.0:
            raise RecipeError(
                f"halving has finalists = {self.finalists}, share = {self.share}, tie = {self.tie}",
                fix="give at least 1 finalist, a share in (0, 1] and a tie of 0 or more",
            )

    def __call__(
        self, candidates: Sequence[Candidate], evaluate: Callable[[Candidate, float], float]
    ) -> Sequence[Candidate]:
        """All candidates, the best first: the last round's, those that left earlier, the untried, the rejected."""
        affordable = [candidate for candidate in candidates if candidate.rejected is None]
        rejected = [candidate for candidate in candidates if candidate.rejected is not None]
        if not affordable:
            return rejected
        field = first_field(affordable, self.finalists)
        tried = {(candidate.space, candidate.plan) for candidate in field}
        untried = sorted((c for c in affordable if (c.space, c.plan) not in tried), key=by_capacity)
        if len(field) == 1:  # nobody to compare with
            return [*field, *untried, *rejected]
        left: list[Candidate] = []
        share = self.share
        while True:
            field = [replace(c, score=evaluate(c, share), fidelity=share) for c in field]
            ranked = sorted(field, key=by_score)
            keep = len(ranked) // 2
            if keep < 2 or share >= 1.0:
                return [*with_ties(ranked, self.tie), *left, *untried, *rejected]
            field, left = ranked[:keep], [*ranked[keep:], *left]
            share = min(1.0, 2.0 * share)


SELECTOR = Halving
