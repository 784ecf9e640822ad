"""The last round of a search: the best few are distilled fully, and the best of these goes on as it is."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from compress.contracts.selector import Candidate, Selection, Trial
from compress.errors import TrainingError
from compress.selection.short_trials import best_of
from compress.stages.problem import RunProblem, scored
from profiles.atomic import writing

WEIGHTS = "finalist.safetensors"
CURVE = "finalist.json"


def finals(problem: RunProblem, selection: Selection, count: int) -> tuple[list[Candidate], Candidate | None]:
    """Distil the best `count` fully; (all candidates, the best first; the winner, or None where one stands alone).

    Raises:
        TrainingError: all of them diverged.
    """
    ranked = list(selection.ranked)
    finalists = [candidate for candidate in ranked if candidate.rejected is None][:count]
    if len(finalists) < 2:
        return ranked, None
    for place, outcome in problem.run([full(candidate) for candidate in finalists]):
        finalists[place] = scored(finalists[place], outcome, 1.0)
    best = best_of(finalists, len(problem.splits.val))
    if not math.isfinite(_score(best[0])):
        raise TrainingError(
            f"all {len(finalists)} students that were distilled fully diverged",
            fix="lower distill.learning_rate, or choose another distill.method",
        )
    known = {candidate.identity for candidate in best}
    return [*best, *(candidate for candidate in ranked if candidate.identity not in known)], best[0]


def full(candidate: Candidate) -> Trial:
    """The training whose weights go on."""
    return Trial(candidate, 1.0)


def take(problem: RunProblem, winner: Candidate, folder: Path) -> Sequence[Path]:
    """Copy the winner's weights and learning curve into the stage's folder: a run needs nothing from outside it."""
    source = problem.weights(full(winner))
    taken = (folder / WEIGHTS, folder / CURVE)
    for origin, destination in zip((source, source.with_suffix(".json")), taken, strict=True):
        with writing(destination) as temporary:
            shutil.copyfile(origin, temporary)
    return taken


def _score(candidate: Candidate) -> float:
    return math.nan if candidate.score is None else candidate.score
