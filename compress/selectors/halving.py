"""Successive halving over short distillations.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016,
arXiv:1502.07943, figure 3; shares double while the field halves, so each round costs the same.
"""

import random
from dataclasses import dataclass
from typing import final

from compress.contracts.selector import Candidate, Problem, Selection
from compress.errors import RecipeError
from compress.selection.first_field import first_field
from compress.selection.short_trials import by_score, opening, ranking, scored, with_ties


@final
@dataclass(frozen=True)
class Halving:
    """Trains a few candidates a little, keeps the better half, doubles the share, until one is left.

    Each round costs about as many full trainings as the first, `finalists * share`. How many start is what
    `problem.training` pays for: 6 at 0.1 and 3 at 0.2 are 1.2 of them in all.

    Attributes:
        share: of the full training, in the first round.
        finalists: candidates of the first round at most; 0 for as many as may be spent on.
        tie: scores this close to the best of the last round count as equal, and the cheapest of these wins.
    """

    share: float = 0.1
    finalists: int = 0
    tie: float = 0.0

    def __post_init__(self) -> None:
        if self.finalists < 0 or not 0.0 < self.share <= 1.0 or self.tie < 0.0:
            raise RecipeError(
                f"halving has finalists = {self.finalists}, share = {self.share}, tie = {self.tie}",
                fix="give finalists 0 or more, a share in (0, 1] and a tie of 0 or more",
            )

    def __call__(self, problem: Problem) -> Selection:
        """The last round's first, then those that left earlier, the untried, the rejected."""
        pool = opening(problem, random.Random(problem.seed))
        left_to_spend = problem.training - problem.spent
        most = self.finalists or len(pool)
        count = max((n for n in range(1, most + 1) if total(n, self.share) <= left_to_spend + 1e-9), default=0)
        admitted = [candidate for candidate in pool if candidate.rejected is None]
        field = first_field(admitted, count) if count and admitted else []
        if len(field) < 2:  # nobody to compare with
            return Selection(ranking(pool, field), {"rounds": []})
        left: list[Candidate] = []
        rounds: list[dict[str, float]] = []
        share = self.share
        while True:
            rounds.append({"students": len(field), "share": share})
            ranked = sorted(scored(problem, field, share), key=by_score)
            keep = len(ranked) // 2
            if keep < 2 or share >= 1.0:
                return Selection(ranking(pool, [*with_ties(ranked, self.tie), *left]), {"rounds": rounds})
            field, left = ranked[:keep], [*ranked[keep:], *left]
            share = min(1.0, 2.0 * share)


def total(count: int, share: float) -> float:
    """Full trainings that all rounds take together."""
    spent = 0.0
    while count >= 2 and share < 1.0:
        spent += count * share
        count, share = count // 2, min(1.0, 2.0 * share)
    return spent + (count * share if count >= 2 else 0.0)


SELECTOR = Halving
