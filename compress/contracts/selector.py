"""How a student is chosen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from profiles.cost import Cost


@dataclass(frozen=True)
class Candidate:
    """A plan with what is known of it. `rejected` says why it left the race; None while it is in."""

    space: str
    plan: Any
    cost: Cost
    rejected: str | None = None
    score: float | None = None  # after a short distillation, on validation data; higher is better
    fidelity: float = 0.0  # share of the full training that the score rests on


class Selector(Protocol):
    """Ranks affordable candidates; training is what it must be sparing with.

    Args:
        candidates: costed; those that break the budget are already rejected.
        evaluate: (candidate, share of the full training) -> validation score. Expensive.

    Returns:
        all candidates, scored where evaluated; the best first.
    """

    def __call__(
        self, candidates: Sequence[Candidate], evaluate: Callable[[Candidate, float], float]
    ) -> Sequence[Candidate]: ...
