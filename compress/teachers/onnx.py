"""A teacher that is an ONNX file: a black box with answers but neither gradients nor features."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from compress.contracts.batch import Batch
from compress.contracts.signals import Signals
from compress.contracts.task import Task
from compress.contracts.teacher import Teacher
from compress.errors import TeacherError
from compress.privileged import told
from profiles import atomic

Arrays = Mapping[str, np.ndarray[Any, Any]]

NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


class OnnxTeacher(Teacher):
    """Runs on onnxruntime's CPU provider. The file takes the task's raw inputs: its preprocessing is inside.

    A fixed batch size in the file is met by cutting and padding. Inputs are taken by the task's names where the file
    has the same ones, else by their order; integers of another width are converted. Inputs that are called like those
    that the task has for its teacher alone (`Task.privileged`) are given these; the file need not take all of them. The
    output is the one called like the task's first output, or else the file's first; the rest are `others` by name.

    Args:
        path: the file; external data lie beside it.
        task: whose inputs it must take and whose labels it must give.

    Raises:
        TeacherError: the file is absent, truncated or not ONNX, or its inputs or shapes do not fit the task.
    """

    def __init__(self, path: Path, task: Task) -> None:
        self._path = Path(path)
        self._fingerprint = _fingerprint(self._path)
        self._session = _session(self._path)
        self._inputs, self._told = _sorted(self._session.get_inputs(), task)
        names = [output.name for output in self._session.get_outputs()]
        wanted = task.output_names[0]
        self._names = [wanted, *(name for name in names if name != wanted)] if wanted in names else names
        self._check(task)
        size = self._inputs[0].shape[0]
        self._batch = size if isinstance(size, int) else None

    @property
    def cacheable(self) -> bool:
        return True

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def observe(self, batch: Batch) -> Signals:
        """The file's answers as float32, on the device of the batch.

        Raises:
            TaskError: the batch lacks a privileged input.
            TeacherError: it has another shape than the file takes.
        """
        device = batch.inputs[0].device
        names = tuple(one.name for one in self._told)
        everything = zip((*self._inputs, *self._told), told(batch, names).inputs, strict=True)
        arrays: dict[str, np.ndarray[Any, Any]] = {
            wanted.name: _array(tensor).astype(NUMBERS[wanted.type], copy=False) for wanted, tensor in everything
        }
        for wanted in self._told:
            if not _fits(wanted.shape[1:], found := arrays[wanted.name].shape[1:]):
                raise TeacherError(
                    f"{self._path} takes {wanted.name!r} of shape {_printed(wanted.shape)}, and the stream "
                    f"{batch.stream or '?'!r} gives {_printed(('n', *found))}",
                    fix="export the teacher for what the task tells it",
                )
        common = {name: arrays.pop(name) for name in names if name not in batch.extras}
        step = self._batch or max(1, len(batch))
        parts = [
            self._run({name: array[start : start + step] for name, array in arrays.items()}, common)
            for start in range(0, len(batch), step)
        ]
        whole = [
            torch.from_numpy(np.concatenate(pieces).astype(np.float32)).to(device)
            for pieces in zip(*parts, strict=True)
        ]
        return Signals(whole[0], dict(zip(self._names[1:], whole[1:], strict=True)))

    def _run(self, arrays: Arrays, common: Arrays) -> list[np.ndarray[Any, Any]]:
        count = len(arrays[self._inputs[0].name])
        lacking = (self._batch or count) - count
        feed = {name: np.concatenate([array, np.repeat(array[-1:], lacking, axis=0)]) for name, array in arrays.items()}
        return [np.asarray(answer)[:count] for answer in self._session.run(self._names, {**feed, **common})]

    def _check(self, task: Task) -> None:
        if len(self._inputs) != len(task.input_names):
            alone = f", and for the teacher alone {', '.join(task.privileged)}" if task.privileged else ""
            raise TeacherError(
                f"{self._path} takes {', '.join(one.name for one in (*self._inputs, *self._told))}; task {task.name!r} "
                f"gives {', '.join(task.input_names)}{alone}",
                fix="export the teacher with the task's inputs"
                + (", and call by their names those that no student sees" if task.privileged else " only"),
            )
        for wanted in (*self._inputs, *self._told):
            if wanted.type not in NUMBERS:
                raise TeacherError(
                    f"{self._path}: input {wanted.name!r} is {wanted.type}",
                    fix=f"export it as one of {', '.join(NUMBERS)}",
                )
        for wanted, given in zip(self._inputs, task.inputs, strict=True):
            which = "examples" if len(self._inputs) == 1 else f"input {wanted.name!r}"
            if not _fits(wanted.shape[1:], given.shape):
                raise TeacherError(
                    f"{self._path} takes {which} of shape {_printed(wanted.shape[1:])}, task {task.name!r} gives "
                    f"{_printed(given.shape)}",
                    fix="export the teacher with its preprocessing, so that it takes the task's raw inputs",
                )
            if np.issubdtype(NUMBERS[wanted.type], np.integer) and not given.values:
                raise TeacherError(
                    f"{self._path}: input {wanted.name!r} is {wanted.type}, task {task.name!r} gives real numbers",
                    fix="export the teacher with its preprocessing, or name the integers in the task's input_values",
                )
        answer = next(output.shape for output in self._session.get_outputs() if output.name == self._names[0])
        if task.kind == "classification" and not _fits(answer[1:], (len(task.labels),)):
            raise TeacherError(
                f"{self._path}: output {self._names[0]!r} has shape {_printed(answer[1:])} per example, task "
                f"{task.name!r} has {len(task.labels)} labels",
                fix="use a teacher that was trained for these labels",
            )


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    plain: np.ndarray[Any, Any] = (tensor.to_dense() if tensor.is_sparse else tensor).detach().cpu().numpy()
    return plain


def free_lengths(path: Path, task: Task, one: Batch) -> dict[str, tuple[int, ...]] | None:
    """Input of the file -> its shape where it is given `one`; None where the file fixes every shape itself.

    Args:
        one: a batch of one example, with what teachers alone are told.
    """
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    plain, privileged = _sorted(inputs, task)
    fixed = all(size.HasField("dim_value") for value in inputs for size in value.type.tensor_type.shape.dim[1:])
    if fixed and not privileged:  # of which the first dimension need not be that of the batch
        return None
    given = told(one, tuple(value.name for value in privileged)).inputs
    return {value.name: tuple(tensor.shape) for value, tensor in zip((*plain, *privileged), given, strict=True)}


def _sorted(inputs: list[Any], task: Task) -> tuple[list[Any], list[Any]]:
    """(the task's inputs, those that teachers alone are told). The former are taken by the task's names where they are
    the file's too, else as they are."""
    privileged = [one for one in inputs if one.name in task.privileged and one.name not in task.input_names]
    named = {one.name: one for one in inputs if one not in privileged}
    same = set(named) == set(task.input_names)
    return [named[name] for name in task.input_names] if same else list(named.values()), privileged


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()  # type: ignore[attr-defined]
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong comes as an exception, and is said once
    try:
        return onnxruntime.InferenceSession(  # type: ignore[attr-defined]
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no narrower base class
        reason = str(error).splitlines()[0]
        raise TeacherError(
            f"onnxruntime cannot load {path}: {reason}", fix="export the file again, or copy it again if it was cut off"
        ) from error


def _fingerprint(path: Path) -> str:
    """SHA-256 over the file and the external data that it names."""
    import onnx

    if not path.is_file():
        raise TeacherError(f"there is no teacher file {path}", fix="name the teacher's .onnx file")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's decoding error has no typed name
        raise TeacherError(
            f"{path} is not a whole ONNX file ({path.stat().st_size:,} bytes)",
            fix="export the file again, or copy it again if it was cut off",
        ) from error
    locations = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    digest = hashlib.sha256(atomic.sha256(path).encode())
    for location in sorted(locations):
        beside = path.parent / location
        if not beside.is_file():
            raise TeacherError(
                f"{path} keeps its weights in {location}, which is absent", fix="copy that file beside it"
            )
        digest.update(atomic.sha256(beside).encode())
    return digest.hexdigest()


def _fits(found: Any, wanted: tuple[int, ...]) -> bool:
    # A dynamic dimension has a name or None instead of a number.
    return len(found) == len(wanted) and all(
        not isinstance(have, int) or have == want for have, want in zip(found, wanted, strict=True)
    )


def _printed(shape: Any) -> str:
    return "(" + ", ".join(str(size) for size in shape) + ")"
