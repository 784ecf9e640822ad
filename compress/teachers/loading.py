"""A user's trained teacher from its files, and what must hold before anything learns from it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from compress.contracts.examples import Splits
from compress.contracts.task import Task
from compress.contracts.teacher import Teacher
from compress.errors import TeacherError
from compress.tally import Tally
from compress.user_file import load_user_file

CHUNK = 256
"""Examples that a check answers at a time."""
SHOWN = 3
"""Names that an error lists of each kind of mismatch."""
SAVE = "save the weights alone: safetensors.torch.save_file(network.state_dict(), 'teacher.safetensors')"


@dataclass(frozen=True)
class TeacherCheck:
    """What a teacher reached on one split: `score` is the task's `metric` over `examples`."""

    metric: str
    score: float
    split: str
    examples: int


def load_network(code: Path, weights: Path | None) -> nn.Module:
    """Build the network that `build()` of a user's Python file gives, and put its weights in.

    Args:
        code: defines `build() -> nn.Module`, which takes what the task's front-end gives.
        weights: .safetensors, or .pt / .pth / .bin with nothing but tensors in it; None where `build` loads them.

    Returns:
        the network in eval mode.

    Raises:
        TeacherError: a file is absent or broken, `build` fails, or the weights do not fit the network.
    """
    build = load_user_file(code, "build")
    if not callable(build):
        raise TeacherError(f"{code}: build is a {type(build).__name__}", fix="make it a function: def build(): ...")
    required = [
        name
        for name, parameter in inspect.signature(build).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise TeacherError(
            f"{code}: build() wants {', '.join(required)}, and is called without arguments",
            fix="give every argument of build() a default",
        )
    try:
        network = build()
    except Exception as error:  # the user's code may fail in any way
        raise TeacherError(f"{code}: build() fails: {type(error).__name__}: {error}", fix="correct build()") from error
    if not isinstance(network, nn.Module):
        raise TeacherError(
            f"{code}: build() gives a {type(network).__name__}, not a torch.nn.Module", fix="return the network"
        )
    if weights is not None:
        put_weights(network, read_weights(weights), weights)
    return network.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name. Nothing in it is executed.

    A checkpoint's `state_dict` or `model` entry is taken if it has one; prefixes that wrappers add are dropped.

    Raises:
        TeacherError: absent, cut off, needs pickle to be read, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise TeacherError(f"there is no weights file {path}", fix="name the teacher's .safetensors or .pt file")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for entry in ("state_dict", "model_state_dict", "model"):
        inner = content.get(entry)
        if isinstance(inner, Mapping):
            content = inner
            break
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise TeacherError(f"{path} holds no tensors by name", fix=SAVE)
    for prefix in ("module.", "_orig_mod.", "_forward_module."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def put_weights(network: nn.Module, tensors: Mapping[str, Tensor], source: Path) -> None:
    """Copy `tensors` into `network`; every name and shape must match.

    Raises:
        TeacherError: names what is missing, unexpected, or of another shape, or which weight is not finite.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in tensors]
    unexpected = [name for name in tensors if name not in wanted]
    shapes = [
        f"{name} is {tuple(tensors[name].shape)} in the file and {tuple(wanted[name].shape)} in the network"
        for name in wanted
        if name in tensors and tensors[name].shape != wanted[name].shape
    ]
    faults = [
        f"{len(found)} {kind} ({'; '.join(found[:SHOWN])}{', ...' if len(found) > SHOWN else ''})"
        for found, kind in ((missing, "missing"), (unexpected, "unexpected"), (shapes, "of another shape"))
        if found
    ]
    if faults:
        raise TeacherError(
            f"{source} does not fit the network of build(), which has {len(wanted)} tensors: {', '.join(faults)}",
            fix="let build() give the network that the weights were saved from",
        )
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise TeacherError(f"{source}: {name} holds NaN or infinity", fix="use an earlier checkpoint")
    network.load_state_dict(dict(tensors))


def check_teacher(teacher: Teacher, task: Task, splits: Splits, split: str = "val") -> TeacherCheck:
    """Let the teacher answer one whole split.

    Raises:
        TeacherError: it cannot take the task's inputs, its output does not fit the task's labels, or an answer is
            NaN or infinite (says in which batch, and to which example).
    """
    examples = splits.named()[split]
    found = Tally(task)
    for number, start in enumerate(range(0, len(examples), CHUNK)):
        batch = examples.batch(torch.arange(start, min(start + CHUNK, len(examples)))).to(_device(teacher))
        if batch.labels is None:
            raise TeacherError(
                f"split {split!r} has no labels to check a teacher with", fix="check it on a labelled split"
            )
        try:
            output = teacher.observe(batch).output
        except RuntimeError as error:
            raise TeacherError(
                f"the teacher cannot take the inputs of task {task.name!r}, {_described(task)}: "
                f"{str(error).splitlines()[0]}",
                fix="let it take what the task's front-end gives",
            ) from error
        per_example = tuple(output.shape[1:])
        if len(output) != len(batch) or (task.kind == "classification" and per_example != (len(task.labels),)):
            raise TeacherError(
                f"the teacher answers {len(batch)} examples with shape {tuple(output.shape)}, task {task.name!r} has "
                f"{len(task.labels)} labels",
                fix="use a teacher that was trained for these labels, one logit each",
            )
        finite = torch.isfinite(output.reshape(len(batch), -1)).all(dim=1)
        if not bool(finite.all()):
            place = int((~finite).nonzero()[0])
            raise TeacherError(
                f"the teacher's output is NaN or infinite in batch {number} of {split!r} (example {start + place})",
                fix="check the teacher's weights and its preprocessing on that example",
            )
        found.add(output, batch.labels)
    return TeacherCheck(task.metric, found.value(), split, len(examples))


def _described(task: Task) -> str:
    shapes = [one.shape for one in task.inputs]
    return f"{shapes[0]} each" if len(shapes) == 1 else ", ".join(map(str, shapes))


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: Mapping[str, Any] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise TeacherError(
            f"{path} is not a whole safetensors file: {error}", fix="save it again, or copy it again if it was cut off"
        ) from error
    return tensors


def _read_torch(path: Path) -> Mapping[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise TeacherError(
            f"{path} holds more than tensors: reading it would run code from the file (pickle), which is never done",
            fix=SAVE,
        ) from error
    except Exception as error:  # a cut-off archive fails in several unrelated ways
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TeacherError(f"{path} is not a whole file of weights: {reason}", fix=SAVE) from error
    if not isinstance(content, Mapping):
        raise TeacherError(f"{path} holds a {type(content).__name__}, not tensors by name", fix=SAVE)
    return content


def _device(teacher: Teacher) -> torch.device:
    for module in teacher.modules().values():
        for parameter in module.parameters():
            return parameter.device
    return torch.device("cpu")
