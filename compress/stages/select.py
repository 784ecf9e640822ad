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

from compress import catalog
from compress.contracts.selector import Candidate, Selection, Selector, identity_of
from compress.contracts.space import Space
from compress.contracts.workers import Workers
from compress.errors import BudgetError
from compress.evaluations import Evaluations, open_evaluations
from compress.job import Job
from compress.recipe import Recipe
from compress.records import digest, folder_name
from compress.selection.events import Built, Chose, Costed, Event, Scored
from compress.selection.feasibility import binding, reject, straddles
from compress.selection.ranking import capacity
from compress.stages import trials
from compress.stages.budget import budget_of, latency_limit, teacher_cost
from compress.stages.candidates import CANDIDATES, SEARCH, content_of, search_of
from compress.stages.costing import costing
from compress.stages.ending import built_event, nearest
from compress.stages.factors import Factors
from compress.stages.finals import finals, take
from compress.stages.learned import Choice, Learned
from compress.stages.problem import RunProblem
from compress.stages.straddlers import tell_straddlers
from compress.stages.students import open_spaces
from compress.strict import read
from compress.workers.parse import parse
from profiles.atomic import write_text
from profiles.cost import Cost
from profiles.target import Budget

EVALUATIONS = "evaluations.sqlite"


@dataclasses.dataclass(frozen=True)
class Exhausted:
    """Every student that keeps the cost budgets was built, and all lost too much; `why` is for people."""

    why: str


def select(job: Job, learned: Sequence[Learned] = ()) -> Choice | Exhausted:
    """Cost at least `select.candidates` students, drop those over budget, try the best few, choose one.

    Raises:
        BudgetError: no candidate meets the budget; names the constraint that binds, and by how much.
    """

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        with _opened(job) as (workers, evaluations):
            return _search(job, folder, learned, workers, evaluations)

    record = job.store.once("select", inputs_of(job, learned), work)
    if "exhausted" in record.values:
        return Exhausted(record.values["exhausted"])
    return Choice(record.values["space"], record.values["plan"], record.values["why"], record.values["trained"])


def inputs_of(job: Job, learned: Sequence[Learned]) -> dict[str, str]:
    """Everything that decides what the search of a round finds."""
    return {
        **job.identities,
        "select": digest(job.recipe.select),
        "distill": digest(job.recipe.distill),
        "budget": digest(budget_of(job)),
        "target": digest(job.target),
        "learned": digest([_lesson(item) for item in learned]),
    }


def _search(
    job: Job, folder: Path, learned: Sequence[Learned], workers: Workers, evaluations: Evaluations
) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
    part, budget, limit = job.recipe.select, budget_of(job), latency_limit(job)
    selector = selector_of(job.recipe)
    _refuse_unknown_energy(job, budget)
    spaces, absent = open_spaces(job)
    missed = {digest([item.choice.space, item.choice.plan]): item.why for item in learned}
    factors = Factors.of(learned)

    predicted = costing(job, spaces)

    def cost(name: str, plan: Any) -> Cost:
        return factors.applied(predicted(name, plan))

    def why_not(name: str, plan: Any, found: Cost) -> str | None:
        again = missed.get(digest([name, plan.to_json()]))
        return f"was built and missed: {again}" if again else reject(found, budget, limit, part.caution)

    round_ = len(learned) + 1
    problem = RunProblem(
        job,
        spaces,
        round_=round_,
        cost=cost,
        reject=why_not,
        expected=factors.expected,
        workers=workers,
        evaluations=evaluations,
    )
    problem.events += factors.events(round_)
    with job.progress.bar("select: costing candidates", part.candidates) as bar:
        problem.fill(part.candidates, lambda _: bar.advance())
    tell_straddlers(job, problem, budget, limit, missed)
    affordable = [candidate for candidate in problem.pool if candidate.rejected is None]
    job.progress.say(f"select: {len(problem.pool)} candidates costed, {len(affordable)} within the budget")
    if not affordable and nearest(learned) is not None:
        return {}, {"exhausted": _exhausted(problem, budget, limit, missed)}
    if not affordable:
        raise BudgetError(
            f"none of {len(problem.pool)} students meets the budget: "
            f"{binding(problem.pool, budget, limit, part.caution)}",
            fix="allow more with --budget, choose another target, or offer smaller students (select.spaces)",
        )
    selection = selector(problem)
    outgrow = [capacity(problem.admit(*known).cost) for known in _plans(spaces, learned, inaccurate=True)]
    ranked, winner = finals(
        problem, _as_trained(factors, problem.marked(selection.ranked)), part.finalists, max(outgrow, default=None)
    )
    chosen = winner or next(candidate for candidate in ranked if candidate.rejected is None)
    _close(problem, selection, chosen, _built(spaces, learned))
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


def _exhausted(problem: RunProblem, budget: Budget, limit: float | None, missed: Mapping[str, str]) -> str:
    """That every student which keeps the cost budgets was built."""
    pool = [
        candidate for candidate in problem.pool if digest([candidate.space, candidate.plan.to_json()]) not in missed
    ]
    unsure = sum(
        straddles(candidate.cost, budget, limit) and candidate.cost.origin == "predicted" for candidate in pool
    )
    said = f"of {len(problem.pool)} students that were drawn no other keeps the cost budgets for sure"
    return f"{said}, and {unsure} may keep them and were not measured" if unsure else said


def _plans(spaces: Mapping[str, Space[Any]], learned: Sequence[Learned], *, inaccurate: bool) -> list[tuple[str, Any]]:
    """(space, plan) of the students that were built, of all or of those that lost too much."""
    chosen = [item.choice for item in learned if item.inaccurate or not inaccurate]
    return [(choice.space, spaces[choice.space].from_json(choice.plan)) for choice in chosen]


def _built(spaces: Mapping[str, Space[Any]], learned: Sequence[Learned]) -> list[Built]:
    """How the round before this one ended, as the search's story tells it."""
    if not learned or learned[-1].evidence is None:
        return []
    ((space, plan),) = _plans(spaces, learned[-1:], inaccurate=False)
    return [built_event(len(learned), identity_of(space, plan), learned[-1])]


def _as_trained(factors: Factors, ranked: Sequence[Candidate]) -> list[Candidate]:
    """A selector's candidates with the scores that were found, in place of those that are expected of the artifacts."""
    factor = {candidate.space: factors.expected(candidate.space, 1.0) for candidate in ranked}
    return [
        candidate
        if candidate.score is None or factor[candidate.space] in (0.0, 1.0)
        else dataclasses.replace(candidate, score=candidate.score / factor[candidate.space])
        for candidate in ranked
    ]


def _close(problem: RunProblem, selection: Selection, chosen: Candidate, before: Sequence[Built]) -> None:
    """The events around the trainings.

    Args:
        before: how the round before this one ended.
    """
    known = problem.known
    rejected = sum(candidate.rejected is not None for candidate in known)
    taken = selection.notes.get("scoring_cpu_s", {})
    names = sorted({name for candidate in selection.ranked for name in candidate.proxies})
    first: list[Event] = [Costed(problem.round, len(known), rejected, problem.costing_s)]
    first += [
        Scored(
            problem.round,
            name,
            sum(name in candidate.proxies for candidate in selection.ranked),
            float(taken.get(name, 0.0)) if isinstance(taken, Mapping) else 0.0,
        )
        for name in names
    ]
    problem.events[:0] = [*before, *first]
    problem.events.append(Chose(problem.round, chosen.identity))


def _lesson(item: Learned) -> list[Any]:
    kept = None if item.evidence is None else round(item.evidence.kept, 4)
    return [
        item.choice.identity,
        round(item.latency_ratio, 3),
        round(item.memory_ratio, 3),
        kept,
        item.too_dear,
        item.inaccurate,
    ]


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
