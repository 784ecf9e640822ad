"""What data must be before anything trains on it: for the tasks that ship, and for a user's own."""

from collections.abc import Mapping
from pathlib import Path

import torch

from compress.contracts.batch import Batch
from compress.contracts.examples import Examples, Splits
from compress.contracts.task import Task
from compress.errors import TaskError
from profiles import atomic

CHUNK = 2048
"""Examples that are read at a time: bounds memory, not what is checked; every example is."""


def verified_files(task: str, data: Path | None, digests: Mapping[str, str], source: str) -> dict[str, Path]:
    """Find a task's files and check their content. Nothing is ever downloaded.

    Args:
        task: its name.
        data: the folder that `--data` names.
        digests: file name -> SHA-256 as 64 hexadecimal digits.
        source: where one gets the files, for the fix.

    Raises:
        TaskError: no folder was named, a file is absent, empty, unreadable, or its SHA-256 is another.
    """
    folder = data_folder(task, data, tuple(digests), source)
    paths = {}
    for name, expected in digests.items():
        path = folder / name
        try:
            found = atomic.sha256(path)
            size = path.stat().st_size
        except OSError as error:
            raise TaskError(f"{path} cannot be read: {error.strerror}", fix="make the file readable") from error
        if found != expected:
            raise TaskError(
                f"{path} is not the file of task {task!r}: {size:,} bytes with sha256 {found}, expected {expected}",
                fix=f"fetch the file again: {source}",
            )
        paths[name] = path
    return paths


def data_folder(task: str, data: Path | None, files: tuple[str, ...], source: str) -> Path:
    """The folder with the task's files.

    Raises:
        TaskError: no folder was named, or it lacks a file.
    """
    wanted = ", ".join(files)
    if data is None:
        raise TaskError(
            f"task {task!r} needs data, and no folder was named",
            fix=f"pass --data <folder>, which holds {wanted}; {source}",
        )
    data = Path(data)
    if not data.is_dir():
        raise TaskError(
            f"{data} is not a folder" if data.exists() else f"the data folder {data} does not exist",
            fix=f"pass --data <folder>, which holds {wanted}; {source}",
        )
    absent = [name for name in files if not (data / name).exists()]
    if absent:
        below = [folder.name for folder in sorted(data.iterdir()) if (folder / files[0]).exists()]
        raise TaskError(
            f"{data} lacks {', '.join(absent)}",
            fix=f"pass --data {data / below[0]}" if below else f"put {wanted} into that folder; {source}",
        )
    return data


def check_task(task: Task) -> None:
    """What a task must say of itself before its data are read.

    Raises:
        TaskError: name, labels or input_shape (or, of several inputs, names, shapes and types) are absent, empty or of
            another type, or a label is there twice.
    """
    kind = type(task).__name__
    name, labels = (getattr(task, field, None) for field in ("name", "labels"))
    if not isinstance(name, str) or not name:
        raise TaskError(f"the task {kind} has no name", fix="set `name` to what recipes shall call it")
    if not isinstance(labels, tuple) or not labels or not all(isinstance(label, str) for label in labels):
        raise TaskError(
            f"task {name!r} has no labels: found {labels!r}",
            fix="set `labels` to a tuple of the outputs' names, in order",
        )
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise TaskError(f"task {name!r} has the label {twice[0]!r} twice", fix="give every output its own name")
    _check_described_inputs(task, name)


def _check_described_inputs(task: Task, name: str) -> None:
    if task.input_shapes:
        if not isinstance(task.input_shapes, tuple) or not all(map(_is_shape, task.input_shapes)):
            raise TaskError(
                f"task {name!r} has input_shapes {task.input_shapes!r}",
                fix="set `input_shapes` to a tuple of one shape per input, without the batch dimension",
            )
    elif not _is_shape(shape := getattr(task, "input_shape", None)):
        raise TaskError(
            f"task {name!r} has no input_shape: found {shape!r}",
            fix="set `input_shape` to one example's shape, a tuple of whole numbers without the batch dimension, or "
            "`input_shapes` where an example has several tensors",
        )
    shapes = task.input_shapes or (task.input_shape,)
    if len(task.input_names) != len(shapes) or len(set(task.input_names)) != len(shapes):
        raise TaskError(
            f"task {name!r} has {len(shapes)} input shapes and the input names {task.input_names!r}",
            fix="set `input_names` to one name of its own per input",
        )
    values = task.input_values
    if values and (len(values) != len(shapes) or not all(isinstance(count, int) and count >= 0 for count in values)):
        raise TaskError(
            f"task {name!r} has {len(shapes)} inputs and the input_values {values!r}",
            fix="set `input_values` to one number per input: how many integers it may hold, 0 for real numbers",
        )


def _is_shape(shape: object) -> bool:
    return isinstance(shape, tuple) and all(isinstance(size, int) and size > 0 for size in shape)


def check_splits(task: Task, splits: Splits) -> None:
    """Read every example of every stream once and check that it fits the task.

    Raises:
        TaskError: a split is empty, two splits are the same data, an input has another shape or type than the task
            says or is not finite, or a label is absent, not an integer or out of range (classification).
    """
    check_task(task)
    for name, examples in splits.named().items():
        _check_stream(task, name, examples, labelled=name in ("train", "val", "test"))
    prints = {name: examples.fingerprint() for name, examples in splits.named().items()}
    for first, second in (("train", "test"), ("val", "test"), ("train", "val")):
        if prints[first] == prints[second]:
            raise TaskError(
                f"task {task.name!r}: {first} and {second} are the same data (fingerprint {prints[first][:16]})",
                fix="split the examples so that none is in two splits, and let fingerprint() tell them apart",
            )
    _check_frontend(task, splits.train)


def _check_stream(task: Task, name: str, examples: Examples, labelled: bool) -> None:
    if len(examples) == 0:
        raise TaskError(f"task {task.name!r}: split {name!r} is empty", fix="give every split at least one example")
    for start in range(0, len(examples), CHUNK):
        index = torch.arange(start, min(start + CHUNK, len(examples)))
        batch = examples.batch(index)
        if not torch.equal(batch.index, index):
            raise TaskError(
                f"task {task.name!r}: split {name!r} answers positions {start}.. with other positions",
                fix="let batch(index) give Batch(..., index=index): caches are keyed by it",
            )
        where = f"task {task.name!r}, split {name!r}"
        _check_privileged(task, where, batch)
        _check_inputs(task, where, batch)
        if labelled or batch.labels is not None:
            _check_labels(task, where, batch)


def _check_privileged(task: Task, where: str, batch: Batch) -> None:
    absent = [name for name in task.privileged if name not in batch.extras and name not in batch.common]
    if absent:
        there = ", ".join(map(repr, (*batch.extras, *batch.common))) or "nothing"
        raise TaskError(
            f"{where}: the teacher takes {absent[0]!r}, and batches have {there} beside their inputs",
            fix=f"let batch() put {absent[0]!r} into extras (one row per example) or common (one for all)",
        )


def _check_inputs(task: Task, where: str, batch: Batch) -> None:
    count = len(batch)
    first = int(batch.index[0])
    wanted = task.inputs
    if len(batch.inputs) != len(wanted):
        raise TaskError(
            f"{where}: an example has {len(batch.inputs)} tensors, the task's inputs are"
            f" {', '.join(one.name for one in wanted)}",
            fix="let batch() give one tensor per input, in the order of input_names",
        )
    for one, tensor in zip(wanted, batch.inputs, strict=True):
        if tuple(tensor.shape) != (count, *one.shape):
            said = f"of input {one.name!r} " if len(wanted) > 1 else ""
            raise TaskError(
                f"{where}: an example {said}has shape {tuple(tensor.shape[1:])}, the task's input_shape is {one.shape}",
                fix="make input_shape (input_shapes) one example's shape without the batch dimension",
            )
        if tensor.dtype != one.dtype:
            raise TaskError(
                f"{where}: input {one.name!r} is {tensor.dtype}, not {one.dtype}",
                fix=f"let batch() give {one.dtype}; integers want the task's input_values, and scale=None in "
                "TensorExamples",
            )
        if one.values:
            outside = ((tensor < 0) | (tensor >= one.values)).reshape(count, -1).any(dim=1)
            if bool(outside.any()):
                raise TaskError(
                    f"{where}: input {one.name!r} of the example at position "
                    f"{first + int(outside.nonzero()[0])} is not within 0 to {one.values - 1}",
                    fix="correct that example, or the task's input_values",
                )
            continue
        bad = (~torch.isfinite(tensor.reshape(count, -1))).any(dim=1) if tensor.numel() else None
        if bad is None or bool(bad.any()):
            position = first if bad is None else first + int(bad.nonzero()[0])
            what = "nothing" if bad is None else "NaN or infinity"
            raise TaskError(
                f"{where}: the example at position {position} holds {what}", fix="repair or remove that example"
            )


def _check_labels(task: Task, where: str, batch: Batch) -> None:
    labels = batch.labels
    first = int(batch.index[0])
    if labels is None or labels.shape[:1] != (len(batch),):
        found = "none" if labels is None else f"shape {tuple(labels.shape)}"
        raise TaskError(f"{where}: {len(batch)} examples, labels: {found}", fix="give one label per example")
    if labels.is_floating_point():
        bad = (~torch.isfinite(labels.reshape(len(batch), -1))).any(dim=1)
        if bool(bad.any()):
            raise TaskError(
                f"{where}: the label at position {first + int(bad.nonzero()[0])} is NaN or infinite",
                fix="repair or remove that example",
            )
    if task.kind != "classification":
        return
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise TaskError(
            f"{where}: labels are {labels.dtype} of shape {tuple(labels.shape)}",
            fix="give class indices: torch.int64, one number per example",
        )
    bad = (labels < 0) | (labels >= len(task.labels))
    if bool(bad.any()):
        place = int(bad.nonzero()[0])
        raise TaskError(
            f"{where}: the label at position {first + place} is {int(labels[place])}, "
            f"and the task has classes 0 to {len(task.labels) - 1}",
            fix="correct that label, or name every class in the task's labels",
        )


def _check_frontend(task: Task, examples: Examples) -> None:
    batch = examples.batch(torch.arange(min(4, len(examples))))
    frontend = task.frontend().eval()
    with torch.no_grad():
        try:
            found = frontend(*batch.inputs)
        except TypeError as error:
            raise TaskError(
                f"task {task.name!r}: the front-end does not take {len(batch.inputs)} inputs: {error}",
                fix="let its forward() take every input, in the order of input_names; Unchanged() of "
                "compress.frontends.unchanged passes them all on",
            ) from error
    features = found if isinstance(found, tuple) else (found,)
    if not features or not all(isinstance(one, torch.Tensor) and len(one) == len(batch) for one in features):
        raise TaskError(
            f"task {task.name!r}: the front-end does not give a tensor, or a tuple of them, with a row per example",
            fix="let frontend() map (B, ...) inputs to one (B, ...) tensor, or to a tuple of them",
        )
    if not all(bool(torch.isfinite(one).all()) for one in features if one.is_floating_point()):
        raise TaskError(
            f"task {task.name!r}: the front-end gives NaN or infinity for the first training examples",
            fix="keep logarithms and divisions of the front-end away from zero",
        )
