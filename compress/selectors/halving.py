"""Successive halving over short distillations: many a little, then fewer with longer and longer trainings.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016,
arXiv:1502.07943, figure 3. Two departures, proposed here: the field shrinks faster than the shares grow, so that the
first round can see every family of students (`selection/first_field.py`) and the last ones are long enough to compare
families; and the last round is a comparison of two, not a single one left over.
"""

import math
import random
from dataclasses import dataclass
from typing import final

from compress.contracts.selector import Candidate, Problem, Selection
from compress.errors import RecipeError
from compress.selection.first_field import first_field
from compress.selection.short_trials import by_score, opening, ranking, scored, with_ties

LAST = 2  # students of the last round


@final
@dataclass(frozen=True)
class Halving:
    """Trains some candidates a little, keeps the best part, doubles the share, until two were compared.

    How many start is what `problem.training` pays for: 7 at 1/16, 3 at 1/8 and 2 at 1/4 are 1.31 trainings in all.

    Attributes:
        share: of the full training, in the first round; in (0, 1].
        keep: of each round's candidates, rounded up, that go into the next; in (0, 1). At least two do.
        finalists: candidates of the first round at most; 0 for as many as may be spent on.
        tie: scores this close to the best of the last round count as equal, and the cheapest of these wins.
    """

    share: float = 1 / 16
    keep: float = 1 / 3
    finalists: int = 0
    tie: float = 0.0

    def __post_init__(self) -> None:
        if self.finalists < 0 or not 0.0 < self.share <= 1.0 or not 0.0 < self.keep < 1.0 or self.tie < 0.0:
            raise RecipeError(
                f"halving has share = {self.share}, keep = {self.keep}, finalists = {self.finalists}, tie = {self.tie}",
                fix="give a share in (0, 1], keep in (0, 1), finalists of 0 or more and a tie of 0 or more",
            )

    def __call__(self, problem: Problem) -> Selection:
        """The last round's first, then those that left earlier, the untried, the rejected."""
        pool = opening(problem, random.Random(problem.seed))
        admitted = [candidate for candidate in pool if candidate.rejected is None]
        left_to_spend = problem.training - problem.spent
        most = min(self.finalists or len(admitted), len(admitted))
        sizes = (n for n in range(2, most + 1) if total(n, self.share, self.keep) <= left_to_spend + 1e-9)
        count = max(sizes, default=0)
        if count == 0:  # nobody to compare with
            return Selection(ranking(pool, ()), {"rounds": []})
        field = first_field(admitted, count)
        tried: list[Candidate] = []
        for students, share in rounds(count, self.share, self.keep):
            tried = [*field[students:], *tried]
            field = sorted(scored(problem, field[:students], share), key=by_score)
        notes = {"rounds": [{"students": n, "share": share} for n, share in rounds(count, self.share, self.keep)]}
        return Selection(ranking(pool, [*with_ties(field, self.tie), *tried]), notes)


def rounds(count: int, share: float, keep: float) -> list[tuple[int, float]]:
    """(students, share of the full training) of each round, for `count` >= 2 that start."""
    found = [(count, share)]
    while found[-1][0] > LAST and found[-1][1] < 1.0:
        students, length = found[-1]
        # Rounding: a third of three is one, whatever 1/3 is in binary.
        found.append((max(LAST, math.ceil(students * keep - 1e-9)), min(1.0, 2.0 * length)))
    return found


def total(count: int, share: float, keep: float) -> float:
    """Full trainings that all rounds take together."""
    return sum(students * length for students, length in rounds(count, share, keep))


SELECTOR = Halving
