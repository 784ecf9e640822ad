"""Spending a search's trainings: short trials of many, then finals of the best few, within what the problem allows."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compress.contracts.selector import Candidate, Problem, Trial
from compress.errors import RecipeError
from compress.selection.ranking import capacity, expense

GROWTH = 4.0  # of the share from one round of finals to the next; 1/16, 1/4, 1
DRAWS = 32  # samples of each space where a problem brings no pool
ROUNDING = 1e-9  # of a count: 0.3 / 0.1 is three trials


@dataclass(frozen=True)
class Spending:
    """How a selector divides its trainings.

    Attributes:
        share: of the full training, of one short trial; in (0, 1].
        trials: short trials at most, however much may be spent.
        finalists: how many of the best are compared again; 0 or 1 for no finals.
        reserve: of what may be spent, kept for the finals; in [0, 1).
    """

    share: float
    trials: int
    finalists: int
    reserve: float

    def check(self, selector: str) -> None:
        """
        Raises:
            RecipeError: a number out of its range; `selector` is named in it.
        """
        wrong = []
        if not 0.0 < self.share <= 1.0:
            wrong.append(f"share = {self.share}; write a share of the full training above 0, up to 1, such as 0.0625")
        if self.trials < 1:
            wrong.append(f"trials = {self.trials}; allow at least 1 short trial, such as 64")
        if self.finalists < 0:
            wrong.append(f"finalists = {self.finalists}; write 0 for no finals, or how many, such as 4")
        if not 0.0 <= self.reserve < 1.0:
            wrong.append(f"reserve = {self.reserve}; write the share of all trainings for the finals, 0 to below 1")
        refuse(selector, wrong)


def refuse(selector: str, wrong: Sequence[str]) -> None:
    """
    Args:
        wrong: "setting = value; what to write", for each setting that is out of its range.

    Raises:
        RecipeError: there is one.
    """
    if wrong:
        found, _, advice = wrong[0].partition("; ")
        raise RecipeError(f"the selector {selector} has {found}", fix=f"in select.settings {advice}")


def opening(problem: Problem, rng: random.Random) -> tuple[Candidate, ...]:
    """The pool; where the budget admits none of it, with what corners and `DRAWS` samples of the spaces add."""
    pool = {candidate.identity: candidate for candidate in problem.pool}
    if all(candidate.rejected is not None for candidate in problem.pool):
        for name, space in problem.spaces.items():
            for plan in (*space.corners(), *(space.sample(rng) for _ in range(DRAWS))):
                candidate = problem.admit(name, plan)
                pool.setdefault(candidate.identity, candidate)
    return tuple(pool.values())


def affordable(problem: Problem, share: float, reserve: float = 0.0) -> int:
    """How many trials of this share may still be asked for when `reserve` of the whole stays unspent."""
    left = problem.training * (1.0 - reserve) - problem.spent
    return max(0, math.floor(min(left / share * (1.0 + ROUNDING) + ROUNDING, 1e12)))


def short_trials(problem: Problem, spending: Spending) -> int:
    """How many short trials there are in all. Without a second one there is nobody to compare in finals, so that the
    reserve is given up where it would leave fewer than two."""
    reserve = spending.reserve if spending.finalists > 1 else 0.0
    first = affordable(problem, spending.share, reserve)
    return min(spending.trials, first if first >= 2 else affordable(problem, spending.share))


def scored(problem: Problem, candidates: Sequence[Candidate], share: float) -> list[Candidate]:
    """The candidates in their order, each with the score that it reached after `share` of the full training."""
    found: dict[int, float] = {}
    for place, outcome in problem.stream([Trial(candidate, share) for candidate in candidates]):
        found[place] = outcome.score
    return [replace(candidate, score=found[place], fidelity=share) for place, candidate in enumerate(candidates)]


def by_score(candidate: Candidate) -> tuple[float, float, str]:
    """Sorts the best score first, ties to the cheaper, a training that diverged last."""
    score = candidate.score
    worth = math.inf if score is None or math.isnan(score) else -score
    return (worth, expense(candidate.cost), candidate.identity)


def by_capacity(candidate: Candidate) -> tuple[float, float, str]:
    """Sorts most capacity first, ties to the cheaper."""
    return (-capacity(candidate.cost), expense(candidate.cost), candidate.identity)


def finals(problem: Problem, tried: Sequence[Candidate], spending: Spending) -> list[Candidate]:
    """All of `tried`, the best first: the best few trained again with growing shares while trainings are left.

    Each round multiplies the share by `GROWTH` and keeps the better half (in the manner of successive halving, Jamieson
    and Talwalkar, 2016); what remains when the last round is over leads, in the order of its last scores.
    """
    field = sorted(tried, key=by_score)
    share, finalists = spending.share, spending.finalists
    left: list[Candidate] = []
    while share < 1.0:
        share = min(1.0, GROWTH * share)
        finite = [candidate for candidate in field if not math.isinf(by_score(candidate)[0])]
        count = min(finalists, len(finite), affordable(problem, share))
        if count < 2:
            break
        again, left = scored(problem, field[:count], share), [*field[count:], *left]
        field = sorted(again, key=by_score)
        finalists = max(1, count // 2)
    return [*field, *left]


def ranking(known: Sequence[Candidate], order: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """What a selector answers: `order` of the tried ones, then the untried by capacity, then the rejected."""
    tried = {candidate.identity for candidate in order}
    rest = [candidate for candidate in known if candidate.identity not in tried]
    untried = sorted((candidate for candidate in rest if candidate.rejected is None), key=by_capacity)
    return (*order, *untried, *(candidate for candidate in rest if candidate.rejected is not None))


def spread(candidates: Sequence[Candidate], count: int, top: float = 1.0) -> list[Candidate]:
    """`count` of them from the largest capacity down, evenly by position; the largest is always there.

    Args:
        top: only this share of them, those of most capacity, and at least `count`: what is far smaller than the budget
            allows learns too little to be worth a trial.
    """
    order = sorted(candidates, key=by_capacity)
    order = order[: max(count, math.ceil(top * len(order)))]
    if count >= len(order):
        return order
    if count < 2:
        return order[:count]
    return [order[round(place * (len(order) - 1) / (count - 1))] for place in range(count)]


def with_ties(candidates: Sequence[Candidate], tie: float) -> list[Candidate]:
    """Best first; of those within `tie` of the best score the cheapest leads."""
    ranked = sorted(candidates, key=by_score)
    best = ranked[0].score if ranked else None
    if best is None or math.isnan(best):
        return ranked
    near = [candidate for candidate in ranked if candidate.score is not None and candidate.score >= best - tie]
    return sorted(near, key=lambda candidate: (expense(candidate.cost), by_score(candidate))) + ranked[len(near) :]


def best_of(finalists: Sequence[Candidate], examples: int) -> list[Candidate]:
    """Best first; those within one of `examples` of the best count as equal, and the cheapest of them leads."""
    return with_ties(finalists, 1.0 / examples)
