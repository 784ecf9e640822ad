"""One training of one student by the recipe's method: what select, distill and quantize have in common."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn

from compress import catalog
from compress.contracts.clock import Clock
from compress.contracts.method import Method
from compress.contracts.objective import Objective
from compress.contracts.task import TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.errors import RecipeError
from compress.job import Job
from compress.progress import Quiet
from compress.teachers.cached import CachedTeacher
from compress.training.fit import CurvePoint, Outcome, fit

ANSWERS = "answers"  # folder of the run with the teacher's answers, which can be made again at any time


def lesson(
    job: Job,
    student: nn.Module,
    numbers: TrainingNumbers,
    *,
    title: str | None,
    checkpoint: Path | None,
    precision: Literal["auto", "fp32", "bf16"],
    before_epoch: Callable[[Clock], None] | None = None,
    together: bool = True,
) -> Outcome:
    """Train `student` in place.

    Args:
        student: raw inputs -> outputs.
        numbers: epochs and rates of this lesson.
        title: of the progress bar; None for none.
        checkpoint: file to resume from and to save to after each epoch; None for a short look.
        together: under torchrun, with all processes; False where only the first one trains.
        before_epoch: called before every epoch, for what follows the clock outside the method.
    """
    part = job.recipe.distill
    method: Method = catalog.load("compress.methods", part.method).METHOD
    objectives, weights = _objectives(method, part.objectives, part.method)
    taps = tuple(dict.fromkeys(tap for objective in objectives.values() for tap in objective.teacher_taps))
    student.requires_grad_(True)
    students = method.students(lambda: student)
    teachers = method.teachers(_teacher(job, method, taps), students)
    progress = Quiet() if title is None else job.progress
    with progress.bar(title or "", numbers.epochs) as bar:

        def point(at: CurvePoint) -> None:
            note = "" if at.validation is None else f"{job.task.metric} {100 * at.validation:.2f} %"
            bar.advance(1.0, note)

        return fit(
            method=method,
            students=students,
            teachers=teachers,
            objectives=objectives,
            weights=weights,
            splits=job.splits,
            task=job.task,
            numbers=numbers,
            seed=job.recipe.seed,
            precision=precision,
            checkpoint=checkpoint,
            before_epoch=before_epoch,
            on_point=point,
            together=together,
        )


def _teacher(job: Job, method: Method, taps: tuple[str, ...]) -> Teacher:
    """With the taps that the objectives want; from disk where the same examples come back every epoch unchanged."""
    if taps:
        return job.teacher.tapped(taps)
    if job.task.augments or method.strategy is not None or not job.teacher.teacher.cacheable:
        return job.teacher.teacher
    return CachedTeacher(job.teacher.teacher, job.splits.train, "train", job.store.folder / ANSWERS)


def _objectives(
    method: Method, given: Mapping[str, Mapping[str, Any]], name: str
) -> tuple[dict[str, Objective], dict[str, Any]]:
    """Make the method's objectives with the recipe's numbers."""
    unknown = sorted(set(given) - set(method.objectives))
    if unknown:
        raise RecipeError(
            f"method {name} has no objective '{unknown[0]}'; there are {', '.join(sorted(method.objectives))}",
            fix="name one of these under [distill.objectives]",
        )
    objectives: dict[str, Objective] = {}
    weights: dict[str, Any] = {}
    for key, make in method.objectives.items():
        numbers = dict(given.get(key, {}))
        weights[key] = numbers.pop("weight", method.weights.get(key, 1.0))
        try:
            objectives[key] = make(**numbers)
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"objective '{key}' of method {name} refuses its numbers: {error}",
                fix=f"see the arguments of {getattr(make, '__name__', key)}",
            ) from error
    return objectives, weights
