"""What the select stage leaves for people and later stages: every candidate, the front, the choice and why."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from compress.contracts.selector import Candidate, Selection
from compress.job import Job
from compress.selection.history import summarise
from compress.selection.pareto import pareto_front
from compress.stages.budget import budget_of, latency_limit, teacher_cost
from compress.stages.ending import row as lesson
from compress.stages.learned import Learned
from compress.stages.problem import RunProblem
from compress.tally import shown
from profiles.cost import Cost

CANDIDATES = "candidates.json"  # equal in every run of the same recipe, as long as nothing was measured
SEARCH = "search.json"  # tells of times, and of what was remembered


def content_of(
    job: Job,
    problem: RunProblem,
    ranked: Sequence[Candidate],
    chosen: Candidate,
    absent: Mapping[str, str],
    learned: Sequence[Learned],
    selection: Selection,
) -> dict[str, Any]:
    """All that the stage says of a round.

    Args:
        ranked: what the selector and the finals made of the candidates.
        absent: spaces that were left out -> why.
    """
    rows = _rows(problem, ranked)
    evaluated = [i for i, row in enumerate(rows) if row.score is not None]
    points = {i: (rows[i].cost.latency_ms, -score) for i in evaluated if (score := _reached(rows[i])) is not None}
    front = {list(points)[place] for place in pareto_front(list(points.values()))}
    chosen_id = next(i for i, row in enumerate(rows) if row.identity == chosen.identity)
    teacher = teacher_cost(job)
    part = job.recipe.select
    return {
        "considered": len(rows),
        "rejected": sum(row.rejected is not None for row in rows),
        "evaluated": len(evaluated),
        "objective": f"highest validation {job.task.metric} after distillation, within the budget",
        "budget": {k: v for k, v in dataclasses.asdict(budget_of(job)).items() if v is not None}
        | {"latency_limit_ms": latency_limit(job)},
        "absent_spaces": dict(absent),
        "candidates": [_row(i, row, i in front, i == chosen_id) for i, row in enumerate(rows)],
        "front": sorted(front),
        "chosen": chosen_id,
        "why": _why(job, rows, chosen, teacher, len(evaluated)),
        "teacher": _cost_row(teacher),
        "learned": [_plain(lesson(item)) for item in learned],
        "selector": {"name": part.selector, "settings": dict(part.settings), "notes": _plain(selection.notes)},
    }


def search_of(
    job: Job,
    problem: RunProblem,
    ranked: Sequence[Candidate],
    chosen: Candidate,
    earlier: Mapping[str, Any] | None,
) -> Mapping[str, Any]:
    """What happened in all rounds up to now, and what it cost.

    Args:
        earlier: the same of the round before.
    """
    return summarise(
        _rows(problem, ranked),
        problem.events,
        chosen=chosen.identity,
        metric=job.task.metric,
        metric_unit=job.task.metric_unit,
        seed=job.recipe.seed,
        selector=job.recipe.select.selector,
        training=job.recipe.select.training,
        tie=1.0 / len(job.splits.val),
        earlier=earlier,
    )


def _rows(problem: RunProblem, ranked: Sequence[Candidate]) -> list[Candidate]:
    own = {candidate.identity: candidate for candidate in ranked}
    return [own.get(candidate.identity, candidate) for candidate in problem.known]


def _reached(candidate: Candidate) -> float | None:
    """Its score; None where it has none, or diverged: JSON has no NaN."""
    return candidate.score if candidate.score is not None and math.isfinite(candidate.score) else None


def _plain(value: Any) -> Any:
    """The same without numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _why(job: Job, rows: Sequence[Candidate], chosen: Candidate, teacher: Cost, evaluated: int) -> str:
    affordable = sum(row.rejected is None for row in rows)
    score = "" if chosen.score is None else f" ({shown(job.task, chosen.score)} on validation data)"
    full = sum(row.fidelity >= 1.0 for row in rows)
    how = f"{evaluated} of them were distilled briefly" + (f" and {full} fully" if full else "")
    return (
        f"Of {len(rows)} students {affordable} fit the budget of {job.target.name}; {how}, and this one did "
        f"best{score}. It needs {teacher.macs / max(1, chosen.cost.macs):.1f} times fewer "
        f"multiply-accumulates than the teacher and {teacher.weight_bytes / max(1, chosen.cost.weight_bytes):.1f} "
        f"times fewer weight bytes."
    )


def _row(number: int, candidate: Candidate, pareto: bool, chosen: bool) -> dict[str, Any]:
    return {
        "id": number,
        "identity": candidate.identity,
        "space": candidate.space,
        "plan": candidate.plan.to_json(),
        **_cost_row(candidate.cost),
        "rejected": candidate.rejected,
        "score": _reached(candidate),
        "diverged": candidate.score is not None and math.isnan(candidate.score),
        "fidelity": candidate.fidelity,
        "proxies": _plain(candidate.proxies),
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
        "energy_mj": cost.energy_mj,
        "origin": cost.origin,
    }
