"""Successive halving over short distillations: many a little, then the best few with longer trainings.

Source: Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter Optimization", AISTATS 2016,
arXiv:1502.07943, figure 3. Two departures, proposed here: the first round sees the largest student of every family
(`selection/first_field.py`), and rounds rank by what a short score foretells (`selection/foresight.py`).
"""

import math
import random
from dataclasses import dataclass
from typing import final

from compress.contracts.selector import Candidate, Problem, Selection
from compress.errors import RecipeError
from compress.selection.first_field import first_field
from compress.selection.foresight import foretold
from compress.selection.ranking import expense
from compress.selection.short_trials import opening, ranking, scored

LEAST = 2  # students of a round


@final
@dataclass(frozen=True)
class Halving:
    """Trains some candidates a little, keeps the best part, trains these longer.

    How many start is what `problem.training` pays for: 9 at 1/16 and 3 at 1/4 are 1.31 trainings in all.

    Attributes:
        share: of the full training, in the first round; in (0, 1].
        growth: of the share from round to round; > 1.
        keep: of each round's candidates, rounded up, that go into the next; in (0, 1). At least two do.
        longest: share at which the rounds end; in (0, 1]. Longer comparisons are those of the finalists.
        slope: log-odds that a factor e of multiply-accumulates is worth beyond what a short training shows; >= 0.
        finalists: candidates of the first round at most; 0 for as many as may be spent on.
    """

    share: float = 1 / 16
    growth: float = 4.0
    keep: float = 1 / 3
    longest: float = 1 / 4
    slope: float = 0.2
    finalists: int = 0

    def __post_init__(self) -> None:
        wrong = (
            self.finalists < 0
            or not 0.0 < self.share <= 1.0
            or not self.growth > 1.0
            or not 0.0 < self.keep < 1.0
            or not 0.0 < self.longest <= 1.0
            or not self.slope >= 0.0
        )
        if wrong:
            raise RecipeError(
                f"halving has share = {self.share}, growth = {self.growth}, keep = {self.keep}, longest = "
                f"{self.longest}, slope = {self.slope}, finalists = {self.finalists}",
                fix="give share and longest in (0, 1], growth above 1, keep in (0, 1), slope and finalists 0 or more",
            )

    def __call__(self, problem: Problem) -> Selection:
        """The last round's first, then those that left earlier, the untried, the rejected."""
        pool = opening(problem, random.Random(problem.seed))
        admitted = [candidate for candidate in pool if candidate.rejected is None]
        left_to_spend = problem.training - problem.spent
        most = min(self.finalists or len(admitted), len(admitted))
        count = max((n for n in range(LEAST, most + 1) if self.total(n) <= left_to_spend + 1e-9), default=0)
        if count == 0:  # nobody to compare with
            return Selection(ranking(pool, ()), {"rounds": []})
        field = first_field(admitted, count)
        tried: list[Candidate] = []
        for students, share in self.rounds(count):
            tried = [*field[students:], *tried]
            field = sorted(
                scored(problem, field[:students], share),
                key=lambda c: (-foretold(c, self.slope, problem.shared_macs(c.space)), expense(c.cost)),
            )
        notes = {"rounds": [{"students": n, "share": share} for n, share in self.rounds(count)]}
        return Selection(ranking(pool, [*field, *tried]), notes)

    def rounds(self, count: int) -> list[tuple[int, float]]:
        """(students, share of the full training) of each round, where `count` start."""
        found = [(count, self.share)]
        while found[-1][0] > LEAST and found[-1][1] < self.longest:
            students, length = found[-1]
            # Rounding: a third of three is one, whatever 1/3 is in binary.
            kept = max(LEAST, math.ceil(students * self.keep - 1e-9))
            found.append((kept, min(self.longest, self.growth * length)))
        return found

    def total(self, count: int) -> float:
        """Full trainings that all rounds take together."""
        return sum(students * length for students, length in self.rounds(count))


SELECTOR = Halving
