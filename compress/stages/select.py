"""Stage 1: which student shall be trained, from the teacher, the spaces and the target's budget."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

import profiles
from compress import catalog
from compress.contracts.selector import Candidate
from compress.contracts.space import Space, SpaceContext
from compress.contracts.task import TrainingNumbers
from compress.errors import BudgetError, RecipeError
from compress.job import Job
from compress.lesson import lesson
from compress.network import Model
from compress.selection.feasibility import binding, reject
from compress.selection.pareto import pareto_front
from compress.selection.propose import propose
from compress.stages.learned import Choice, Learned
from compress.store import digest
from compress.training.evaluate import evaluate
from profiles.atomic import write_text
from profiles.cost import Cost
from profiles.target import Budget

CANDIDATES = "candidates.json"
SHORT = "short"


def select(job: Job, learned: Sequence[Learned] = ()) -> Choice:
    """Cost at least `select.candidates` students, drop those over budget, try the best few, choose one.

    Raises:
        BudgetError: no candidate meets the budget; names the constraint that binds, and by how much.
    """
    part = job.recipe.select
    budget = budget_of(job)
    inputs = {
        **job.identities,
        "select": digest(part),
        "distill": digest(job.recipe.distill),
        "budget": digest(budget),
        "target": digest(job.target),
        "learned": digest([[dict(item.choice.plan), round(item.latency_ratio, 3)] for item in learned]),
    }

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        spaces, absent = _spaces(job)
        proposed = _propose(job, spaces, budget, learned)
        affordable = [candidate for candidate in proposed if candidate.rejected is None]
        job.progress.say(f"select: {len(proposed)} candidates costed, {len(affordable)} within the budget")
        if not affordable:
            raise BudgetError(
                f"none of {len(proposed)} students meets the budget: {binding(proposed, budget, _limit(job))}",
                fix="allow more with --budget, choose another target, or offer smaller students (select.spaces)",
            )
        ranked = _selector(job)(proposed, _Evaluator(job, spaces, folder / SHORT))
        chosen = next(candidate for candidate in ranked if candidate.rejected is None)
        content = _content(job, proposed, ranked, chosen, budget, absent, learned)
        write_text(folder / CANDIDATES, json.dumps(content, indent=1, default=str))
        return {"candidates": folder / CANDIDATES}, {
            "space": chosen.space,
            "plan": chosen.plan.to_json(),
            "why": content["why"],
            "considered": len(proposed),
            "affordable": len(affordable),
        }

    record = job.store.once("select", inputs, work)
    return Choice(record.values["space"], record.values["plan"], record.values["why"])


def build_student(job: Job, choice: Choice, number: int = 0) -> Model:
    """The chosen network, untrained or with inherited weights; the same weights for the same seed and number."""
    torch.manual_seed(job.recipe.seed + number)
    module = catalog.load("compress.spaces", choice.space)
    space = module.SPACE(_context(job, choice.space))
    return _model(job, choice.space, space, space.from_json(choice.plan))


def budget_of(job: Job) -> Budget:
    """The target's budget with what the recipe says instead; reductions become absolute numbers."""
    part, budget = job.recipe.budget, job.target.budget
    given = {
        "latency_ms": part.latency_ms,
        "peak_activation_bytes": part.peak_activation_bytes,
        "weight_bytes": part.weight_bytes,
        "macs": part.macs,
        "accuracy_drop": part.accuracy_drop,
    }
    budget = dataclasses.replace(budget, **{k: v for k, v in given.items() if v is not None})  # type: ignore[arg-type]
    if part.macs_reduction is not None or part.weight_reduction is not None:
        teacher = teacher_cost(job)
        if part.macs_reduction is not None:
            budget = dataclasses.replace(budget, macs=_least(budget.macs, teacher.macs / part.macs_reduction))
        if part.weight_reduction is not None:
            most = _least(budget.weight_bytes, teacher.weight_bytes / part.weight_reduction)
            budget = dataclasses.replace(budget, weight_bytes=most)
    return budget


def teacher_cost(job: Job) -> Cost:
    """The teacher on the target, as it is: in float."""
    side = job.teacher
    if side.model is not None:
        return profiles.profile(side.model, target=job.target, precision="fp32")
    module = side.teacher.modules()["network"]
    return profiles.profile(module, target=job.target, precision="fp32", example=(job.example[:1],))


def _least(limit: int | None, other: float) -> int:
    return int(other) if limit is None else min(limit, int(other))


def _limit(job: Job) -> float | None:
    return budget_of(job).latency_limit_ms(job.task.decision_period_ms)


def _frontend(job: Job, space: str) -> nn.Module:
    """Derived students stand where the teacher's network stands; others get the task's own preprocessing."""
    return job.teacher.frontend() if space == "derived" else job.task.frontend()


def _context(job: Job, space: str) -> SpaceContext:
    with torch.no_grad():
        features = _frontend(job, space).eval()(job.example)
    return SpaceContext(
        job.teacher.network, features, len(job.task.labels), job.target.width_multiple, job.target.family
    )


def _model(job: Job, name: str, space: Space[Any], plan: Any) -> Model:
    return Model(_frontend(job, name), space.build(plan))


def _spaces(job: Job) -> tuple[dict[str, Space[Any]], dict[str, str]]:
    """The spaces that this teacher allows, and why the others are absent."""
    spaces: dict[str, Space[Any]] = {}
    absent: dict[str, str] = {}
    for name in job.recipe.select.spaces:
        try:
            spaces[name] = catalog.load("compress.spaces", name).SPACE(_context(job, name))
        except RecipeError as error:
            absent[name] = error.what
            job.progress.say(f"select: space {name} is left out: {error.what}")
    if not spaces:
        raise RecipeError(
            f"no student space fits this teacher: {'; '.join(absent.values())}", fix="add int8_conv to select.spaces"
        )
    return spaces, absent


def _propose(job: Job, spaces: Mapping[str, Space[Any]], budget: Budget, learned: Sequence[Learned]) -> list[Candidate]:
    ratio = max((item.latency_ratio for item in learned), default=1.0)
    tried = {digest([item.choice.space, item.choice.plan]): item.why for item in learned}
    limit = _limit(job)

    def cost(name: str, plan: Any) -> Cost:
        torch.manual_seed(job.recipe.seed)
        model = _model(job, name, spaces[name], plan)
        found = profiles.profile(
            model,
            target=job.target,
            precision=job.target.precision,
            example=(job.example[:1],),
            layers=False,
        )
        low, high = found.interval_ms
        return dataclasses.replace(found, latency_ms=found.latency_ms * ratio, interval_ms=(low * ratio, high * ratio))

    def why_not(name: str, plan: Any, found: Cost) -> str | None:
        missed = tried.get(digest([name, plan.to_json()]))
        return f"was built and missed: {missed}" if missed else reject(found, budget, limit)

    with job.progress.bar("select: costing candidates", job.recipe.select.candidates) as bar:
        return propose(
            spaces,
            count=job.recipe.select.candidates,
            cost=cost,
            reject=why_not,
            seed=job.recipe.seed,
            on_candidate=lambda _: bar.advance(),
        )


def _selector(job: Job) -> Callable[..., Sequence[Candidate]]:
    part = job.recipe.select
    selector: Callable[..., Sequence[Candidate]] = catalog.load("compress.selectors", part.selector).SELECTOR(
        finalists=part.finalists, share=part.share, seed=job.recipe.seed
    )
    return selector


class _Evaluator:
    """Short distillations; each result is kept on disk, so that an interrupted search does not repeat it."""

    def __init__(self, job: Job, spaces: Mapping[str, Space[Any]], folder: Path) -> None:
        self._job, self._spaces, self._folder = job, spaces, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, candidate: Candidate, share: float) -> float:
        """Validation score after `share` of the full training."""
        job, part = self._job, self._job.recipe.distill
        epochs = max(1, round(share * part.epochs))
        key = digest([candidate.space, candidate.plan.to_json(), epochs])[:24]
        kept = self._folder / f"{key}.json"
        if kept.is_file():
            return float(json.loads(kept.read_text())["score"])
        torch.manual_seed(job.recipe.seed)
        model = _model(job, candidate.space, self._spaces[candidate.space], candidate.plan)
        numbers = TrainingNumbers(epochs, part.batch_size, part.learning_rate, part.weight_decay)
        lesson(job, model, numbers, title=None, checkpoint=None, precision=part.precision, together=False)
        score = evaluate(model, job.splits.val, job.task).score
        job.progress.say(
            f"select: a student of {candidate.space} with {candidate.cost.macs / 1e6:.2f} M MACs reaches "
            f"{100 * score:.2f} % after {epochs} epoch{'s' if epochs > 1 else ''}"
        )
        write_text(kept, json.dumps({"score": score, "epochs": epochs}))
        return score


def _content(
    job: Job,
    proposed: Sequence[Candidate],
    ranked: Sequence[Candidate],
    chosen: Candidate,
    budget: Budget,
    absent: Mapping[str, str],
    learned: Sequence[Learned],
) -> dict[str, Any]:
    scored = {digest([c.space, c.plan.to_json()]): c for c in ranked}
    rows = [scored.get(digest([c.space, c.plan.to_json()]), c) for c in proposed]
    evaluated = [i for i, row in enumerate(rows) if row.score is not None]
    front = {
        evaluated[i] for i in pareto_front([(rows[i].cost.latency_ms, -(rows[i].score or 0.0)) for i in evaluated])
    }
    chosen_id = next(i for i, row in enumerate(rows) if row.space == chosen.space and row.plan == chosen.plan)
    teacher = teacher_cost(job)
    return {
        "considered": len(rows),
        "rejected": sum(row.rejected is not None for row in rows),
        "evaluated": len(evaluated),
        "objective": f"highest validation {job.task.metric} after a short distillation, within the budget",
        "budget": {k: v for k, v in dataclasses.asdict(budget).items() if v is not None}
        | {"latency_limit_ms": _limit(job)},
        "absent_spaces": dict(absent),
        "candidates": [_row(i, row, i in front, i == chosen_id) for i, row in enumerate(rows)],
        "front": sorted(front),
        "chosen": chosen_id,
        "why": _why(job, rows, chosen, teacher, len(evaluated)),
        "teacher": _cost_row(teacher),
        "learned": [
            {"plan": dict(item.choice.plan), "latency_ratio": item.latency_ratio, "why": item.why} for item in learned
        ],
    }


def _why(job: Job, rows: Sequence[Candidate], chosen: Candidate, teacher: Cost, evaluated: int) -> str:
    affordable = sum(row.rejected is None for row in rows)
    score = "" if chosen.score is None else f" ({100 * chosen.score:.2f} % on validation data)"
    return (
        f"Of {len(rows)} students {affordable} fit the budget of {job.target.name}; {evaluated} of them were distilled "
        f"briefly, and this one did best{score}. It needs {teacher.macs / max(1, chosen.cost.macs):.1f} times fewer "
        f"multiply-accumulates than the teacher and {teacher.weight_bytes / max(1, chosen.cost.weight_bytes):.1f} "
        f"times fewer weight bytes."
    )


def _row(number: int, candidate: Candidate, pareto: bool, chosen: bool) -> dict[str, Any]:
    return {
        "id": number,
        "space": candidate.space,
        "plan": candidate.plan.to_json(),
        **_cost_row(candidate.cost),
        "rejected": candidate.rejected,
        "score": candidate.score,
        "fidelity": candidate.fidelity,
        "pareto": pareto,
        "chosen": chosen,
    }


def _cost_row(cost: Cost) -> dict[str, Any]:
    return {
        "macs": cost.macs,
        "params": cost.params,
        "weight_bytes": cost.weight_bytes,
        "peak_activation_bytes": cost.peak_activation_bytes,
        "latency_ms": cost.latency_ms,
        "interval_ms": list(cost.interval_ms),
        "origin": cost.origin,
    }
