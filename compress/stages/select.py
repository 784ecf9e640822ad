"""Stage 1: which student shall be trained, from the teacher, the spaces and the target's budget.

The search goes from cheap to dear, and each level sees only what the one before let through:

    0  every candidate is costed on the target; who may break the budget is built and costed for real, or dropped
    1  and 2  the selector: scores that need no training, and short distillations within `select.training`
    3  the best `select.finalists` are distilled fully, and the best of these goes on
    4  the later stages quantise, build and cost it; what that teaches comes back here as `learned`
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import profiles
from compress import catalog
from compress.contracts.selector import Candidate, Selection, Selector
from compress.contracts.workers import Workers
from compress.errors import BudgetError
from compress.evaluations import Evaluations, open_evaluations
from compress.job import Job
from compress.recipe import Recipe
from compress.selection.events import Chose, Costed, Recalibrated, Scored
from compress.selection.feasibility import binding, reject, straddles
from compress.selection.ranking import capacity
from compress.stages import trials
from compress.stages.artifact_cost import artifact_cost, can_tell
from compress.stages.budget import budget_of, latency_limit, teacher_cost
from compress.stages.candidates import CANDIDATES, SEARCH, content_of, search_of
from compress.stages.finals import finals, take
from compress.stages.learned import Choice, Learned
from compress.stages.problem import RunProblem
from compress.stages.students import open_spaces, student
from compress.store import digest, folder_name
from compress.strict import read
from compress.workers.parse import parse
from profiles.atomic import write_text
from profiles.cost import Cost
from profiles.errors import UserError
from profiles.target import Budget

EVALUATIONS = "evaluations.sqlite"
MEMORY_RATIO = "peak activation memory"


def select(job: Job, learned: Sequence[Learned] = ()) -> Choice:
    """Cost at least `select.candidates` students, drop those over budget, try the best few, choose one.

    Raises:
        BudgetError: no candidate meets the budget; names the constraint that binds, and by how much.
    """
    part = job.recipe.select
    inputs = {
        **job.identities,
        "select": digest(part),
        "distill": digest(job.recipe.distill),
        "budget": digest(budget_of(job)),
        "target": digest(job.target),
        "learned": digest([_lesson(item) for item in learned]),
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        with _opened(job) as (workers, evaluations):
            return _search(job, folder, learned, workers, evaluations)

    record = job.store.once("select", inputs, work)
    return Choice(record.values["space"], record.values["plan"], record.values["why"], record.values["trained"])


def _search(
    job: Job, folder: Path, learned: Sequence[Learned], workers: Workers, evaluations: Evaluations
) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
    part, budget, limit = job.recipe.select, budget_of(job), latency_limit(job)
    selector = selector_of(job.recipe)
    _refuse_unknown_energy(job, budget)
    spaces, absent = open_spaces(job)
    missed = {digest([item.choice.space, item.choice.plan]): item.why for item in learned}
    factors = _Factors.of(learned)

    def cost(name: str, plan: Any) -> Cost:
        model = student(job, name, spaces[name], plan)
        found = profiles.profile(
            model, target=job.target, precision=job.target.precision, example=(job.example[:1],), layers=False
        )
        return factors.applied(found)

    def why_not(name: str, plan: Any, found: Cost) -> str | None:
        again = missed.get(digest([name, plan.to_json()]))
        return f"was built and missed: {again}" if again else reject(found, budget, limit, part.caution)

    round_ = len(learned) + 1
    problem = RunProblem(
        job, spaces, round_=round_, cost=cost, reject=why_not, workers=workers, evaluations=evaluations
    )
    problem.events += factors.events(round_, len(learned))
    with job.progress.bar("select: costing candidates", part.candidates) as bar:
        problem.fill(part.candidates, lambda _: bar.advance())
    _tell_straddlers(job, problem, budget, limit, missed)
    affordable = [candidate for candidate in problem.pool if candidate.rejected is None]
    job.progress.say(f"select: {len(problem.pool)} candidates costed, {len(affordable)} within the budget")
    if not affordable:
        raise BudgetError(
            f"none of {len(problem.pool)} students meets the budget: "
            f"{binding(problem.pool, budget, limit, part.caution)}",
            fix="allow more with --budget, choose another target, or offer smaller students (select.spaces)",
        )
    selection = selector(problem)
    ranked, winner = finals(problem, selection, part.finalists)
    chosen = winner or next(candidate for candidate in ranked if candidate.rejected is None)
    _close(problem, selection, chosen)
    content = content_of(job, problem, ranked, chosen, absent, learned, selection)
    search = search_of(job, problem, ranked, chosen, _earlier(job) if learned else None)
    write_text(folder / CANDIDATES, json.dumps(content, indent=1, default=str, allow_nan=False))
    write_text(folder / SEARCH, json.dumps(search, indent=1, allow_nan=False))
    files = {"candidates": folder / CANDIDATES, "search": folder / SEARCH}
    kept = None
    if winner is not None:
        files["trained finalist"], files["learning curve of it"] = take(problem, winner, folder)
        kept = files["trained finalist"].relative_to(job.store.folder).as_posix()
    return files, {
        "space": chosen.space,
        "plan": chosen.plan.to_json(),
        "why": content["why"],
        "trained": kept,
        "considered": len(problem.known),
        "affordable": sum(candidate.rejected is None for candidate in problem.known),
    }


@contextmanager
def _opened(job: Job) -> Iterator[tuple[Workers, Evaluations]]:
    """The workers, and the file of what they have found."""
    path = job.evaluations or job.store.folder / EVALUATIONS
    with open_evaluations(path) as evaluations, parse(job.workers)(trials.setup(job)) as workers:
        yield workers, evaluations


def selector_of(recipe: Recipe) -> Selector:
    """The recipe's selector with its settings.

    Raises:
        RecipeError: a setting that it does not have, or a value that it refuses.
    """
    part = recipe.select
    kind = catalog.load("compress.selectors", part.selector).SELECTOR
    selector: Selector = read(kind, part.settings, "[select.settings]", "select.settings.")
    return selector


def _refuse_unknown_energy(job: Job, budget: Budget) -> None:
    if budget.energy_mj is not None and teacher_cost(job).energy_mj is None:
        raise BudgetError(
            f"the budget is {budget.energy_mj:.3g} mJ, and what {job.target.name} draws is not known",
            fix="leave budget.energy_mj out and limit latency_ms or macs, or describe the target's power in its file",
        )


def _tell_straddlers(
    job: Job, problem: RunProblem, budget: Budget, limit: float | None, missed: Mapping[str, str]
) -> None:
    """Build and cost the largest of those that straddle the budget, where this machine can; the others stay dropped.

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
    reason = can_tell(job)
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
            f"select: {len(unsure)} students straddle the budget; the largest {len(worth)} are built and costed here"
        )
    for candidate in worth:
        model = student(job, candidate.space, problem.spaces[candidate.space], candidate.plan)
        try:
            found = artifact_cost(job, model)
        except UserError as error:  # one that cannot be built here stays dropped; the next may be another case
            job.progress.say(f"select: a student that straddles the budget could not be built: {error.what}")
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


def _close(problem: RunProblem, selection: Selection, chosen: Candidate) -> None:
    """The events around the trainings."""
    known = problem.known
    rejected = sum(candidate.rejected is not None for candidate in known)
    taken = selection.notes.get("scoring_cpu_s", {})
    names = sorted({name for candidate in selection.ranked for name in candidate.proxies})
    first: list[Any] = [Costed(problem.round, len(known), rejected, problem.costing_s)]
    first += [
        Scored(
            problem.round,
            name,
            sum(name in candidate.proxies for candidate in selection.ranked),
            float(taken.get(name, 0.0)) if isinstance(taken, Mapping) else 0.0,
        )
        for name in names
    ]
    problem.events[:0] = first
    problem.events.append(Chose(problem.round, chosen.identity))


@dataclasses.dataclass(frozen=True)
class _Factors:
    """What artifacts taught about predictions: each is multiplied by the largest ratio that was found."""

    latency: float = 1.0
    memory: float = 1.0

    @staticmethod
    def of(learned: Sequence[Learned]) -> "_Factors":
        return _Factors(
            max((item.latency_ratio for item in learned), default=1.0),
            max((item.memory_ratio for item in learned), default=1.0),
        )

    def applied(self, cost: Cost) -> Cost:
        low, high = cost.interval_ms
        return dataclasses.replace(
            cost,
            latency_ms=cost.latency_ms * self.latency,
            interval_ms=(low * self.latency, high * self.latency),
            peak_activation_bytes=round(cost.peak_activation_bytes * self.memory),
        )

    def events(self, round_: int, builds: int) -> list[Recalibrated]:
        told = (("latency", self.latency), (MEMORY_RATIO, self.memory))
        return [Recalibrated(round_, what, factor, builds) for what, factor in told if builds and factor != 1.0]


def _lesson(item: Learned) -> list[Any]:
    return [item.choice.identity, round(item.latency_ratio, 3), round(item.memory_ratio, 3)]


def _earlier(job: Job) -> Mapping[str, Any] | None:
    """What the round before told; its folder was set aside when this one began."""
    kept = sorted(
        (job.store.folder / "previous").glob(f"{folder_name('select')}-*/{SEARCH}"),
        key=lambda path: int(path.parent.name.rpartition("-")[2]),
    )
    if not kept:
        return None
    search: Mapping[str, Any] = json.loads(kept[-1].read_text(encoding="utf-8"))
    return search
