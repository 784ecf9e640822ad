"""Before the seven stages: read the data and the teacher, and refuse early what cannot work."""

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import filelock
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import profiles
from compress import cache, catalog, data_checks, user_file
from compress.contracts.examples import Splits
from compress.contracts.task import Task
from compress.contracts.teacher import Teacher
from compress.errors import TaskError, TeacherError
from compress.job import Job, TeacherSide
from compress.lesson import check_lesson
from compress.network import Model
from compress.privileged import PrivilegedModel, told_splits
from compress.progress import Progress
from compress.qat import formats
from compress.recipe import Recipe, TaskPart, TeacherPart
from compress.records import digest
from compress.store import Store
from compress.tally import shown
from compress.teachers import loading
from compress.teachers.frozen import FrozenTeacher
from compress.teachers.onnx import OnnxTeacher
from compress.training import supervised
from compress.training.evaluate import evaluate_teacher
from profiles.atomic import sha256, writing
from profiles.target import Target

EXAMPLES = 8
REAL_INPUTS = ("cortex-m", "ethos-u", "riscv-cluster")  # families whose builders take float32 inputs and no tables


def prepare(recipe: Recipe, store: Store, progress: Progress, remote: str | None) -> Job:
    """Read task, data, target and teacher; the reference teacher is trained once per machine and cached.

    Raises:
        TaskError, TeacherError, ProfileError, RecipeError: what does not fit, and what to do.
    """
    target = formats.chosen(profiles.target(recipe.target, Path()), recipe.quantize.format)
    task = load_task(recipe.task)
    _check_target(task, target)
    splits = task.load(recipe.task.data)
    data_checks.check_splits(task, splits)
    check_lesson(recipe.distill, task, splits)
    data = digest({name: examples.fingerprint() for name, examples in splits.named().items()})
    identities = {
        "task": _task_identity(recipe.task, task),
        "data": data,
        "teacher": _teacher_identity(recipe, task),
        "seed": str(recipe.seed),
    }
    example = splits.train.batch(torch.arange(min(EXAMPLES, len(splits.train)))).inputs

    def work(folder: Path) -> tuple[Mapping[str, Path], Mapping[str, Any]]:
        path = _obtain(recipe, task, splits, identities, folder, progress)
        teacher = _read(recipe.teacher, task, path)[0](())
        facts = loading.check_teacher(teacher, task, splits)
        accuracy = evaluate_teacher(teacher, splits.test, task)
        progress.say(
            f"prepare: the teacher's {task.metric} is {shown(task, accuracy)} on {len(splits.test)} test examples"
        )
        return {"teacher": path}, {
            "accuracy": accuracy,
            "file": path.name,
            "check": dataclasses.asdict(facts),
            "data": _sizes(splits),
        }

    record = store.once("prepare", identities, work)
    tapped, network, frontend = _read(recipe.teacher, task, store.path("prepare") / record.values["file"])
    side = TeacherSide(
        tapped(()),
        tapped,
        network,
        frontend,
        store.path("prepare") / record.values["file"] if recipe.teacher.onnx is not None else None,
        record.values["accuracy"],
        record,
    )
    return Job(recipe, target, task, splits, side, example, identities, store, progress, remote)


def load_task(part: TaskPart) -> Task:
    """The task of that name, or the one in the user's file.

    Raises:
        TaskError: the file does not end with a TASK, or lacks something.
    """
    if part.file is not None:
        found = user_file.load_user_file(part.file, "TASK")
        where = str(part.file)
    else:
        found = catalog.load("compress.tasks", part.name or "").TASK
        where = f"task {part.name}"
    if not isinstance(found, Task):
        raise TaskError(
            f"TASK in {where} is a {type(found).__name__}, not a compress.contracts.task.Task",
            fix="end the file with TASK = MyTask(), where MyTask extends Task",
        )
    data_checks.check_task(found)
    return found


def _check_target(task: Task, target: Target) -> None:
    whole = [one.name for one in task.inputs if one.values]
    if whole and target.family in REAL_INPUTS:
        raise TaskError(
            f"input {whole[0]!r} of task {task.name!r} holds integers, and what is built for {target.name} takes"
            " float32 alone",
            fix="choose a target that runs token ids, such as jetson, a100 or x86, or let the task give real numbers",
        )


def _sizes(splits: Splits) -> dict[str, int]:
    return {name: len(examples) for name, examples in splits.named().items()}


def _task_identity(part: TaskPart, task: Task) -> str:
    return sha256(part.file) if part.file is not None else digest(["task", task.name])


def _teacher_identity(recipe: Recipe, task: Task) -> str:
    part = recipe.teacher
    given = [path for path in (part.onnx, part.file, part.weights) if path is not None]
    for path in given:
        if not path.is_file():
            raise TeacherError(f"there is no teacher file {path}", fix="give the path of an existing file")
    if given:
        return digest([sha256(path) for path in given])
    return digest([task.name, repr(task.teacher()), _numbers(recipe, task), recipe.seed, torch.__version__])


def _numbers(recipe: Recipe, task: Task) -> dict[str, Any]:
    numbers = dataclasses.asdict(task.teacher_numbers)
    return numbers | ({} if recipe.teacher.epochs is None else {"epochs": recipe.teacher.epochs})


def _obtain(
    recipe: Recipe, task: Task, splits: Splits, identities: Mapping[str, str], folder: Path, progress: Progress
) -> Path:
    """Copy or train the teacher into the run's folder: a run needs nothing from outside it afterwards."""
    part = recipe.teacher
    if part.onnx is not None:
        OnnxTeacher(part.onnx, task)  # refused under the user's own path, before anything is copied
        return _copy(part.onnx, folder / "teacher.onnx")
    if part.file is not None:
        network = loading.load_network(part.file, part.weights)
        with writing(folder / "teacher.safetensors") as temporary:
            save_file(_contiguous(network), temporary)
        return folder / "teacher.safetensors"
    return _copy(_reference(recipe, task, splits, identities, progress), folder / "teacher.safetensors")


def _reference(recipe: Recipe, task: Task, splits: Splits, identities: Mapping[str, str], progress: Progress) -> Path:
    """The cached reference teacher; trained where it is not there yet, by one process at a time."""
    key = digest(dict(identities))[:24]
    place = cache.folder() / "teachers" / f"{task.name}-{key}"
    path = place / "teacher.safetensors"
    place.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(place / ".lock"):
        if path.is_file():
            progress.say(f"prepare: reference teacher from the cache ({path})")
            return path
        numbers = dataclasses.replace(task.teacher_numbers, **_numbers(recipe, task))
        model = _reference_model(task, recipe.seed)
        if numbers.epochs:
            supervised.train(
                model,
                task,
                told_splits(splits, task.privileged),
                numbers,
                seed=recipe.seed,
                checkpoint=place / "checkpoint.pt",
                progress=progress,
                together=False,
                title=f"prepare: training the reference teacher of {task.name}",
            )
        with writing(path) as temporary:
            save_file(_contiguous(model.network), temporary)
        (place / "checkpoint.pt").unlink(missing_ok=True)
        with writing(place / "teacher.json") as temporary:
            temporary.write_text(json.dumps({"task": task.name, "numbers": dataclasses.asdict(numbers)}))
    return path


def _reference_model(task: Task, seed: int) -> Model | PrivilegedModel:
    torch.manual_seed(seed)
    return _dressed(task, task.teacher())


def _dressed(task: Task, network: nn.Module) -> Model | PrivilegedModel:
    """A teacher's network behind the task's front-end."""
    if task.privileged:
        return PrivilegedModel(task.frontend(), network, len(task.inputs))
    return Model(task.frontend(), network)


Tapped = Callable[[tuple[str, ...]], Teacher]


def _read(part: TeacherPart, task: Task, path: Path) -> tuple[Tapped, nn.Module | None, Callable[[], nn.Module]]:
    """The teacher from the run's own copy: (the teacher with given taps, network to derive from, its front-end)."""
    if part.onnx is not None:
        return _black_box(path, task), None, task.frontend
    if part.file is not None:
        network = loading.load_network(part.file, path)
    else:
        network = task.teacher()
        loading.put_weights(network, load_file(path), path)
    # A network with preprocessing of its own comes as a Model; any other stands behind the task's.
    model = network if isinstance(network, Model) else _dressed(task, network)
    fingerprint = sha256(path)

    def tapped(taps: tuple[str, ...]) -> Teacher:
        return FrozenTeacher(model, taps=taps, fingerprint=fingerprint, privileged=task.privileged)

    # A student cannot be cut from a network that takes more than students get.
    network_of_students = None if task.privileged else model.network
    return tapped, network_of_students, lambda: copy.deepcopy(model.frontend)


def _black_box(path: Path, task: Task) -> Tapped:
    def tapped(taps: tuple[str, ...]) -> Teacher:
        if taps:
            raise TeacherError(
                f"the method looks into the teacher ({', '.join(taps)}), and an ONNX teacher is a black box",
                fix="choose a method that needs outputs alone, such as vanilla_kd, or give the teacher as Python",
            )
        return OnnxTeacher(path, task)

    return tapped


def _copy(source: Path, destination: Path) -> Path:
    with writing(destination) as temporary:
        shutil.copyfile(source, temporary)
    return destination


def _contiguous(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}
