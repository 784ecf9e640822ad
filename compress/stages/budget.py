"""What a run's student may cost."""

import dataclasses

import torch

import profiles
from compress.job import Job
from compress.privileged import Knowing, told
from compress.teachers.onnx import free_lengths
from profiles.cost import Cost
from profiles.target import Budget


def budget_of(job: Job) -> Budget:
    """The target's budget with what the recipe says instead; reductions become absolute numbers."""
    part, budget = job.recipe.budget, job.target.budget
    given = {
        "latency_ms": part.latency_ms,
        "peak_activation_bytes": part.peak_activation_bytes,
        "weight_bytes": part.weight_bytes,
        "macs": part.macs,
        "energy_mj": part.energy_mj,
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


def latency_limit(job: Job) -> float | None:
    """The limit on the latency in milliseconds for the task's decision period; None for no limit."""
    return budget_of(job).latency_limit_ms(job.task.decision_period_ms)


def teacher_cost(job: Job) -> Cost:
    """The teacher on the target, as it is: in float."""
    side = job.teacher
    if side.model is not None:
        # Lengths that the file leaves free are as long as the task's examples.
        sizes = free_lengths(side.model, job.task, job.splits.train.batch(torch.arange(1)))
        example = None if sizes is None else {name: torch.empty(size) for name, size in sizes.items()}
        return profiles.profile(side.model, target=job.target, precision="fp32", example=example)
    module = side.teacher.modules()["network"]
    if job.task.privileged:  # one answer takes all of what the teacher knows beside the example
        one = told(job.splits.train.batch(torch.arange(1)), job.task.privileged)
        module = Knowing(
            module, [plain.to_dense() if plain.is_sparse else plain for plain in one.inputs[len(job.example) :]]
        )
    return profiles.profile(module, target=job.target, precision="fp32", example=job.one_example)


def _least(limit: int | None, other: float) -> int:
    return int(other) if limit is None else min(limit, int(other))
