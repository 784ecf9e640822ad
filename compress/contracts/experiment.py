"""A published claim, small enough to be tried again in minutes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Holds = Literal["yes", "by mean alone", "no", "undecided"]
"""Whether a criterion holds. "by mean alone": it asks for a mean, which reaches the bar, and the spread over seeds does
not tell the difference from none."""
Verdict = Literal["reproduced", "not reproduced at this scale", "inconclusive"]
Figures = Mapping[str, Mapping[str, float]]
"""Of one seed: arm -> column -> figure."""


@dataclass(frozen=True)
class Finding:
    """What one criterion came to.

    Attributes:
        criterion: as the specification states it, with its numbers.
        found: what was measured, with its uncertainty.
        decides: False for what is reported and does not decide, such as an effect that this scale cannot show.
    """

    criterion: str
    found: str
    holds: Holds
    decides: bool = True


@dataclass(frozen=True)
class Results:
    """Figures of all seeds.

    Attributes:
        seeds: in the order of the figures.
        figures: arm -> column -> one figure per seed.
    """

    seeds: tuple[int, ...]
    figures: Mapping[str, Mapping[str, tuple[float, ...]]]

    def of(self, arm: str, column: str) -> tuple[float, ...]:
        """One figure per seed."""
        return self.figures[arm][column]


@dataclass(frozen=True)
class Experiment:
    """What a file of `compress/experiments` ends with: `EXPERIMENT = Experiment(...)`. Its name is its method's.

    All arms of a seed share data, initial weights of the student, and training budget, so that differences are paired.

    Attributes:
        source: paper, with the table or figure that makes the claim.
        claim: one sentence.
        bed: data, networks and training, in words and numbers; equal for all arms unless it says otherwise.
        data: name of the data set's folder; "" where the data are generated.
        columns: names of figures with their units, the one that is tested first.
        reference: arm that all others are compared with.
        seeds: how many, from 0.
        run: (folder of the data set or None, seed, say) -> figures; `say` shows a line. Deterministic given the seed.
        judge: the specification's criteria on the results.
    """

    source: str
    claim: str
    bed: str
    data: str
    columns: tuple[str, ...]
    reference: str
    seeds: int
    run: Callable[[Path | None, int, Callable[[str], None]], Figures]
    judge: Callable[[Results], Sequence[Finding]]
