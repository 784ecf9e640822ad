"""One training of one student by the recipe's method: what select, distill and quantize have in common."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from compress import catalog
from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.method import Method, Phase
from compress.contracts.objective import Objective
from compress.contracts.signals import Signals
from compress.contracts.step import Update, distillation_step
from compress.contracts.strategy import DataStrategy
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.contracts.world import World
from compress.errors import RecipeError
from compress.job import Job
from compress.progress import Quiet
from compress.recipe import DistillPart
from compress.strategies.plain import Plain
from compress.tally import shown
from compress.teachers.cached import CachedTeacher
from compress.training.evaluate import evaluating
from compress.training.fit import CurvePoint, Outcome, fit
from profiles.atomic import writing

GIVEN = "given teacher"  # beside the teachers that a method makes of it
LEARNED = "objectives.safetensors"  # what objectives have learned, beside a trained student
ANSWERS = "answers"  # folder of the run with the teacher's answers, which can be made again at any time


def check_lesson(part: DistillPart, task: Task, splits: Splits) -> None:
    """Refuse what would end every lesson of this method on this task, before a teacher is trained for it.

    Raises:
        RecipeError: the method is for other kinds of task, an objective or the data strategy refuses its numbers, or
            the task lacks a stream.
    """
    method: Method = catalog.load("compress.methods", part.method).METHOD
    if method.tasks and task.kind not in method.tasks:
        raise RecipeError(
            f"method {part.method} is for tasks of the kind {' or '.join(method.tasks)}, and {task.name} is of the"
            f" kind {task.kind}",
            fix="choose another method (docs/methods.md says what each is for), or another task",
        )
    _objectives(method, part.objectives, part.method)
    _check_streams(_strategy(part, method), splits, part.method, task)


def lesson(
    job: Job,
    student: nn.Module,
    numbers: TrainingNumbers,
    *,
    title: str | None,
    checkpoint: Path | None,
    precision: Literal["auto", "fp32", "bf16"],
    before_step: Callable[[Clock], None] | None = None,
    spare: Callable[[int], nn.Module] | None = None,
    together: bool = True,
    seed: int | None = None,
    keep: Path | None = None,
    learned: Path | None = None,
    quantized: bool = False,
) -> Outcome:
    """Train `student` in place.

    Args:
        student: raw inputs -> outputs.
        numbers: epochs and rates of this lesson.
        title: of the progress bar; None for none.
        checkpoint: file to resume from and to save to after each epoch; None for a short look.
        spare: gives the further students of a method that trains several, by number from 1; None for copies.
        together: under torchrun, with all processes; False where only the first one trains.
        seed: of data order and dropout; None for the recipe's.
        before_step: called before every step, for what follows the clock outside the method.
        keep: file for what the objectives have learned beside the student; not written where they learn nothing.
        learned: such a file of the student's earlier training, which objectives may go on from; it may be absent.
        quantized: whether the student is a captured graph with fake quantisation, which has no modules to tap.
    """
    part = job.recipe.distill
    method: Method = catalog.load("compress.methods", part.method).METHOD
    objectives, weights = _objectives(method, part.objectives, part.method)
    if quantized:
        method, objectives = while_quantized(method, objectives, part.method)
    taps = tuple(dict.fromkeys(tap for objective in objectives.values() for tap in objective.teacher_taps))
    student.requires_grad_(True)
    students = method.students(_one_after_another(student, spare))
    strategy = _strategy(part, method)
    teachers = method.teachers(_teacher(job, strategy, taps), students)
    progress = Quiet() if title is None else job.progress
    with progress.bar(title or "", numbers.epochs) as bar:

        def point(at: CurvePoint) -> None:
            note = "" if at.validation is None else f"{job.task.metric} {shown(job.task, at.validation)}"
            bar.advance(1.0, note)

        outcome = fit(
            method=method,
            students=students,
            teachers=teachers,
            objectives=objectives,
            weights=weights,
            learned=_read(learned),
            splits=job.splits,
            task=job.task,
            numbers=numbers,
            seed=job.recipe.seed if seed is None else seed,
            precision=precision,
            clip=part.clip,
            strategy=strategy,
            checkpoint=checkpoint,
            before_step=before_step,
            on_point=point,
            together=together,
        )
    if keep is not None:
        _write(keep, objectives)
    return outcome


def trained_objectives(job: Job, learned: Path) -> dict[str, Objective]:
    """The method's objectives as a training left them, to be asked, not to be trained with."""
    part = job.recipe.distill
    method: Method = catalog.load("compress.methods", part.method).METHOD
    objectives, _ = _objectives(method, part.objectives, part.method)
    for name, state in _read(learned).items():
        objectives[name].take_up(state)
    return objectives


def _write(path: Path, objectives: Mapping[str, Objective]) -> None:
    state = {
        f"{name}/{key}": value.detach().cpu().contiguous().clone()
        for name, objective in objectives.items()
        for key, value in objective.state_dict().items()
    }
    path.unlink(missing_ok=True)  # an earlier method may have left one
    if state:
        with writing(path) as temporary:
            save_file(state, temporary)


def _read(path: Path | None) -> dict[str, dict[str, Tensor]]:
    """Objective -> its state dict."""
    found: dict[str, dict[str, Tensor]] = {}
    if path is not None and path.is_file():
        for name, value in load_file(path).items():
            objective, key = name.split("/", 1)
            found.setdefault(objective, {})[key] = value
    return found


def look(job: Job, student: nn.Module, see: Callable[[Batch, Signals, Signals], None], examples: int) -> None:
    """One more epoch of the lesson in which nobody learns: what the student is shown, and what both answer.

    Args:
        student: raw inputs -> outputs; in eval mode here, and unchanged.
        see: is given batches as the method's data strategy makes them in its last phase (the first stream of each
            step), the student's answers and the given teacher's.
        examples: after so many it is not called again.
    """
    part = job.recipe.distill
    method: Method = catalog.load("compress.methods", part.method).METHOD
    strategy = _strategy(part, method)
    students = method.students(_one_after_another(student, None))
    objectives, _ = _objectives(method, part.objectives, part.method)
    # Where the lesson tapped no teacher, its answers are on disk.
    tapped = any(objective.teacher_taps for objective in objectives.values())
    given = job.teacher.teacher if tapped else _teacher(job, strategy, ())
    nothing = TensorExamples(torch.zeros(0), torch.zeros(0), "nothing")  # nobody wants a score
    count = 0

    def shown(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
        nonlocal count
        batch = next(iter(batches.values()))
        if count < examples:
            with evaluating(world.students["student"]), torch.no_grad():
                see(batch, world.observe("student", batch), world.ask(GIVEN, batch))
        count += len(batch)
        yield from ()

    fit(
        method=dataclasses.replace(
            method, objectives={}, modules={}, phases=(Phase(method.phases[-1].name, step=shown),)
        ),
        students=students,
        teachers={**method.teachers(given, students), GIVEN: given},
        objectives={},
        weights={},
        splits=dataclasses.replace(job.splits, val=nothing),
        task=job.task,
        numbers=TrainingNumbers(epochs=1, batch_size=part.batch_size, learning_rate=part.learning_rate),
        seed=job.recipe.seed,
        precision="fp32",
        strategy=strategy,
        together=False,
    )


def _one_after_another(student: nn.Module, spare: Callable[[int], nn.Module] | None) -> Callable[[], nn.Module]:
    """The student itself first, then others."""
    numbers = itertools.count()

    def build() -> nn.Module:
        number = next(numbers)
        if number == 0:
            return student
        return copy.deepcopy(student) if spare is None else spare(number)

    return build


def _strategy(part: DistillPart, method: Method) -> DataStrategy:
    """The method's own data strategy, or the train split with the task's augmentation, with the recipe's numbers."""
    make: Callable[..., DataStrategy] = method.strategy or Plain
    try:
        return make(**part.strategy)
    except TypeError as error:
        raise RecipeError(
            f"the data strategy refuses its numbers: {error}", fix="see [distill.strategy] in `compress init`"
        ) from error


def _teacher(job: Job, strategy: DataStrategy, taps: tuple[str, ...]) -> Teacher:
    """With the taps that the objectives want; from disk where the same examples come back every epoch unchanged."""
    if taps:
        return job.teacher.tapped(taps)
    teacher = job.teacher.teacher
    _check_streams(strategy, job.splits, job.recipe.distill.method, job.task)
    if not strategy.unchanged(job.task) or not teacher.cacheable:
        return teacher
    for name, examples in job.splits.named().items():  # of a stream that the strategy cuts, the whole is kept
        if name == "train" or name in strategy.streams:
            teacher = CachedTeacher(teacher, examples, name, job.store.folder / ANSWERS)
    return teacher


def _check_streams(strategy: DataStrategy, splits: Splits, method: str, task: Task) -> None:
    streams = strategy.splits(splits).named()
    for name in strategy.streams:
        if name not in streams:
            raise RecipeError(
                f"method {method} trains on the stream {name!r}, and task {task.name} has {', '.join(splits.named())}",
                fix=f"choose another method, or let the task's load() give Splits(..., extras=(({name!r}, ...),))",
            )


def while_quantized(
    method: Method, objectives: Mapping[str, Objective], name: str
) -> tuple[Method, dict[str, Objective]]:
    """How the method goes on where the student cannot be tapped: as it says, or without what taps it.

    Raises:
        RecipeError: the method has steps of its own, or nothing is left, and it does not say how to go on.
    """
    chosen = method.quantized or method
    kept = {key: value for key, value in objectives.items() if key in chosen.objectives and not _taps(value)}
    left = [key for key in chosen.objectives if key not in kept]
    if not kept or (left and any(phase.step is not distillation_step for phase in chosen.phases)):
        raise RecipeError(
            f"{', '.join(left)} of method {name} tap the student, and the graph of a quantised one has no modules",
            fix="let the method say how it goes on: METHOD = Method(..., quantized=Method(...))",
        )
    return chosen, kept


def _taps(objective: Objective) -> tuple[str, ...]:
    """What it wants of the student that is shipped."""
    return objective.network_taps.get("student", objective.student_taps)


def _objectives(
    method: Method, given: Mapping[str, Mapping[str, Any]], name: str
) -> tuple[dict[str, Objective], dict[str, Any]]:
    """Make the method's objectives with the recipe's numbers; and the weights that the recipe gives."""
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
        if "weight" in numbers:
            weights[key] = numbers.pop("weight")
        try:
            objectives[key] = make(**numbers)
        except (TypeError, ValueError) as error:
            raise RecipeError(
                f"objective '{key}' of method {name} refuses its numbers: {error}",
                fix=f"see the arguments of {getattr(make, '__name__', key)}",
            ) from error
    return objectives, weights
