"""The candidate with the most capacity that the budget admits, untrained: what a search has to beat."""

import random
from dataclasses import dataclass
from typing import final

from compress.contracts.selector import Problem, Selection
from compress.selection.short_trials import opening, ranking


@final
@dataclass(frozen=True)
class LargestThatFits:
    """Orders by capacity (`ranking.capacity`), ties to the cheaper. Trains nothing."""

    def __call__(self, problem: Problem) -> Selection:
        """Affordable candidates, the largest first, then the rejected ones."""
        return Selection(ranking(opening(problem, random.Random(problem.seed)), ()))


SELECTOR = LargestThatFits
