"""The last round of a search: the best few are distilled fully, and the best of these goes on as it is."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from compress.contracts.selector import Candidate, Trial
from compress.errors import TrainingError
from compress.lesson import LEARNED
from compress.selection.ranking import capacity
from compress.selection.short_trials import best_of
from compress.stages.problem import RunProblem, scored
from profiles.atomic import writing

WEIGHTS = "finalist.safetensors"
CURVE = "finalist.json"


def finals(
    problem: RunProblem, ranked: Sequence[Candidate], count: int, outgrow: float | None = None
) -> tuple[list[Candidate], Candidate | None]:
    """Distil the best `count` fully; (all candidates, the best first; the winner, or None where one stands alone).

    They are compared by what they are expected to score after quantisation.

    Args:
        ranked: the best first, the rejected ones last.
        outgrow: as in `finalists`.

    Raises:
        TrainingError: all of them diverged.
        RunError: none is left, for their trainings failed.
    """
    chosen = finalists(ranked, count, outgrow)
    if not chosen:
        raise problem.failures.error("no student is left whose training did not fail; the last one was")
    if len(chosen) < 2:
        return _before(chosen, ranked), None
    done = {candidate.identity: candidate for candidate in chosen}
    for place, outcome in problem.run([full(candidate) for candidate in chosen]):
        done[chosen[place].identity] = scored(chosen[place], outcome, 1.0)
    order = best_of([problem.expected(candidate) for candidate in done.values()], len(problem.splits.val))
    best = [done[candidate.identity] for candidate in order]
    if not math.isfinite(_score(best[0])) and not problem.failures.rejected.keys().isdisjoint(done):
        raise problem.failures.error(
            f"of {len(chosen)} students that were distilled fully none has a score; the last was"
        )
    if not math.isfinite(_score(best[0])):
        raise TrainingError(
            f"all {len(chosen)} students that were distilled fully diverged",
            fix="lower distill.learning_rate, or choose another distill.method",
        )
    return problem.marked(_before(best, ranked)), best[0]


def finalists(ranked: Sequence[Candidate], count: int, outgrow: float | None) -> list[Candidate]:
    """The first `count` that are not rejected, one of them larger than what was too inaccurate, if there is one.

    What short scores ranked first has lost too much; that a larger student can do more is what is known beside them
    (proposed). One that diverged proves nothing.

    Args:
        outgrow: `capacity` of the largest student that was built and lost too much; None where there was none.
    """
    left = [candidate for candidate in ranked if candidate.rejected is None]
    chosen = left[:count]
    if outgrow is None or any(capacity(candidate.cost) > outgrow for candidate in chosen):
        return chosen
    larger = (c for c in left if capacity(c.cost) > outgrow and (c.score is None or math.isfinite(c.score)))
    taller = next(larger, None)
    return chosen if taller is None else [*chosen[: count - 1], taller]


def _before(first: Sequence[Candidate], ranked: Sequence[Candidate]) -> list[Candidate]:
    known = {candidate.identity for candidate in first}
    return [*first, *(candidate for candidate in ranked if candidate.identity not in known)]


def full(candidate: Candidate) -> Trial:
    """The training whose weights go on."""
    return Trial(candidate, 1.0)


def take(problem: RunProblem, winner: Candidate, folder: Path) -> Sequence[Path]:
    """Copy the winner's weights and learning curve into the stage's folder: a run needs nothing from outside it.

    What the objectives have learned beside the student goes with them, where there is any.
    """
    source = problem.weights(full(winner))
    taken = (folder / WEIGHTS, folder / CURVE)
    for origin, destination in zip((source, source.with_suffix(".json")), taken, strict=True):
        with writing(destination) as temporary:
            shutil.copyfile(origin, temporary)
    learned, beside = source.with_suffix(f".{LEARNED}"), (folder / WEIGHTS).with_suffix(f".{LEARNED}")
    beside.unlink(missing_ok=True)
    if learned.is_file():
        with writing(beside) as temporary:
            shutil.copyfile(learned, temporary)
    return taken


def _score(candidate: Candidate) -> float:
    return math.nan if candidate.score is None else candidate.score
