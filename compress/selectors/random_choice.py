"""Random search: short trainings of candidates drawn at random, and the best of them; what a selector has to beat.

Source: Bergstra and Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 13, 2012.
"""

import random
from dataclasses import dataclass
from typing import final

from compress.contracts.selector import Problem, Selection
from compress.errors import RecipeError
from compress.selection.short_trials import affordable, by_score, opening, ranking, scored


@final
@dataclass(frozen=True)
class RandomChoice:
    """Spends all that may be spent on equal trainings of candidates drawn at random.

    Attributes:
        share: of the full training, for each; in (0, 1]. Where not even one such training may be spent, the first
            candidate of the random order is the answer.
    """

    share: float = 0.125

    def __post_init__(self) -> None:
        if not 0.0 < self.share <= 1.0:
            raise RecipeError(f"random_choice has share = {self.share}", fix="give a share in (0, 1]")

    def __call__(self, problem: Problem) -> Selection:
        """The trained by score, the untrained in random order, then the rejected ones."""
        rng = random.Random(f"random_choice/{problem.seed}")
        pool = opening(problem, rng)
        order = sorted((c for c in pool if c.rejected is None), key=lambda c: c.identity)
        rng.shuffle(order)
        count = affordable(problem, self.share)
        tried = sorted(scored(problem, order[:count], self.share), key=by_score)
        return Selection(ranking(pool, [*tried, *order[count:]]))


SELECTOR = RandomChoice
