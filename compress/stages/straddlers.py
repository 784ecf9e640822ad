"""Students whose predicted cost straddles the budget: their untrained artifacts are costed, or they stay dropped."""

import dataclasses
from collections.abc import Mapping

from compress.job import Job
from compress.records import digest
from compress.selection.feasibility import reject, straddles
from compress.selection.ranking import capacity
from compress.stages.artifact_cost import artifact_cost, can_tell, measured_there
from compress.stages.problem import RunProblem
from compress.stages.students import student
from profiles.errors import UserError
from profiles.target import Budget


def tell_straddlers(
    job: Job, problem: RunProblem, budget: Budget, limit: float | None, missed: Mapping[str, str]
) -> None:
    """Build and cost the largest of those that straddle the budget, here or on the run's remote; the others stay out.

    Args:
        missed: students that were built in earlier rounds and broke the budget: nothing about them is unsure.
    """
    part = job.recipe.select
    unsure = [
        c
        for c in problem.pool
        if c.rejected is not None
        and straddles(c.cost, budget, limit)
        and digest([c.space, c.plan.to_json()]) not in missed
    ]
    if part.caution == 0.0 or not unsure:
        return
    reason, there = can_tell(job), measured_there(job)
    if reason is not None or part.measured == 0:
        job.progress.say(
            f"select: {len(unsure)} students straddle the budget and are dropped: " + (reason or "select.measured is 0")
        )
        return
    # Only what is larger than everything that fits for sure can gain from a measurement.
    sure = max((capacity(c.cost) for c in problem.pool if c.rejected is None), default=0.0)
    worth = sorted((c for c in unsure if capacity(c.cost) > sure), key=lambda c: -capacity(c.cost))[: part.measured]
    if worth:
        job.progress.say(
            f"select: {len(unsure)} students straddle the budget; the largest {len(worth)} are built and costed "
            + ("here" if there is None else f"on {there}")
        )
    for candidate in worth:
        model = student(job, candidate.space, problem.spaces[candidate.space], candidate.plan)
        try:
            found = artifact_cost(job, model)
        except UserError as error:  # one that cannot be built here stays dropped; the next may be another case
            job.progress.say(f"select: a student that straddles the budget could not be costed: {error.what}")
            continue
        if found.origin == "predicted":
            job.progress.say(f"select: students that straddle the budget are dropped: {found.notes[0]}")
            return
        why = reject(found, budget, limit, part.caution)
        problem.replace(dataclasses.replace(candidate, cost=found, rejected=why))
        job.progress.say(
            f"select: a student that straddled the budget takes {found.latency_ms:.3g} ms ({found.origin}) and "
            + ("stays" if why is None else "leaves")
        )
