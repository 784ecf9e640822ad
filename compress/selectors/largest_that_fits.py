"""The candidate with the most capacity that the budget admits, untrained: what a search has to beat."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from compress.contracts.selector import Candidate
from compress.selection.ranking import capacity, expense


@final
@dataclass(frozen=True)
class LargestThatFits:
    """Orders by capacity (`ranking.capacity`), ties to the cheaper. Evaluates nothing.

    Attributes:
        finalists, share, seed: unused; every selector takes them.
    """

    finalists: int = 0
    share: float = 0.0
    seed: int = 0

    def __call__(
        self, candidates: Sequence[Candidate], evaluate: Callable[[Candidate, float], float]
    ) -> Sequence[Candidate]:
        """Affordable candidates, the largest first, then the rejected ones."""
        affordable = [candidate for candidate in candidates if candidate.rejected is None]
        rejected = [candidate for candidate in candidates if candidate.rejected is not None]
        return sorted(affordable, key=lambda c: (-capacity(c.cost), expense(c.cost))) + rejected


SELECTOR = LargestThatFits
