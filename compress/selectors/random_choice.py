"""Any candidate that the budget admits: the control that every selector has to beat."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from compress.contracts.selector import Candidate


@final
@dataclass(frozen=True)
class RandomChoice:
    """A random order of what is affordable. Evaluates nothing.

    Attributes:
        finalists, share: unused; nothing is trained.
        seed: the same seed gives the same order of the same candidates.
    """

    finalists: int = 0
    share: float = 0.0
    seed: int = 0

    def __call__(
        self, candidates: Sequence[Candidate], evaluate: Callable[[Candidate, float], float]
    ) -> Sequence[Candidate]:
        """Affordable candidates in random order, then the rejected ones."""
        affordable = [candidate for candidate in candidates if candidate.rejected is None]
        rejected = [candidate for candidate in candidates if candidate.rejected is not None]
        random.Random(self.seed).shuffle(affordable)
        return affordable + rejected


SELECTOR = RandomChoice
