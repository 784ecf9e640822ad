"""A teacher's answers, computed once and read back by position."""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Examples
from compress.contracts.signals import Signals
from compress.contracts.stages import Stage
from compress.contracts.teacher import Teacher
from compress.errors import RunError, TeacherError
from profiles import atomic

CHUNK = 256
"""Examples that the teacher answers at a time."""
FORMAT = 1
INDEX = "answers.json"

Array = np.ndarray[Any, Any]


class CachedTeacher(Teacher):
    """Answers the batches of one stream from disk; the inner teacher answers all others.

    A batch belongs to the stream while its `stream` says so: one that was augmented or mixed no longer does. Processes
    that share the folder (data-parallel ranks, workers) take turns: one computes, the rest find it done. A cache that
    is cut off, altered or of another teacher or data is computed again.

    Args:
        inner: a teacher that is `cacheable`.
        examples: the stream.
        stream: its name, for the file's place and for errors.
        folder: where the files go.
        taps: whether features are kept as well; logits are small, features are not.

    Raises:
        ValueError: the teacher's answers change, so they cannot be remembered.
        TeacherError: an answer is NaN or infinite; says to which example.
        RunError: the folder cannot be written.
    """

    def __init__(self, inner: Teacher, examples: Examples, stream: str, folder: Path, *, taps: bool = False) -> None:
        if not inner.cacheable:
            raise ValueError(f"{type(inner).__name__} changes its answers: it cannot be cached")
        self._inner = inner
        self._fingerprint = inner.fingerprint
        self._stream = stream
        self._length = len(examples)
        key = {
            "format": FORMAT,
            "teacher": inner.fingerprint,
            "data": examples.fingerprint(),
            "length": len(examples),
            "taps": taps,
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
        place = Path(folder) / f"{stream}-{name}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            with _alone(place):
                found = _open(place, key)
                if found is None:
                    _compute(inner, examples, stream, place, key, taps)
                    found = _open(place, key)
        except OSError as error:
            raise RunError(
                f"the teacher's answers cannot be kept in {place}: {error.strerror or error}",
                fix="free space there or make the folder writable",
            ) from error
        if found is None:
            raise RunError(
                f"the teacher's answers in {place} were altered while they were written", fix="let one run use a folder"
            )
        self._arrays = found

    @property
    def cacheable(self) -> bool:
        return True

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def observe(self, batch: Batch) -> Signals:
        """What the teacher said to the examples at `batch.index`, on the device of the inputs.

        A batch that is not of the cached stream, or no longer unchanged, is answered by the inner teacher.

        Raises:
            IndexError: a position is outside the stream that was cached.
        """
        if batch.stream != self._stream:
            return self._inner.observe(batch)
        index = batch.index.cpu().numpy()
        if len(index) and (index.min() < 0 or index.max() >= self._length):
            raise IndexError(f"positions {index.min()}..{index.max()} of stream {self._stream!r}, {self._length} long")
        device = batch.inputs[0].device
        read = {name: torch.from_numpy(np.asarray(array[index])).to(device) for name, array in self._arrays.items()}
        return Signals(
            read["output"],
            {name.removeprefix("other:"): value for name, value in read.items() if name.startswith("other:")},
            {name.removeprefix("tap:"): value for name, value in read.items() if name.startswith("tap:")},
        )

    @property
    def stages(self) -> Mapping[str, Stage]:
        return self._inner.stages

    def modules(self) -> Mapping[str, nn.Module]:
        """The inner teacher's, for the batches that it answers."""
        return self._inner.modules()


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Hold the folder's lock; the system gives it up if the process dies."""
    with open(place / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)


def _open(place: Path, key: dict[str, Any]) -> dict[str, Array] | None:
    """The arrays by name, memory-mapped; None where anything is absent, cut off or altered."""
    try:
        index = json.loads((place / INDEX).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(index, dict) or index.get("key") != key or not isinstance(index.get("files"), dict):
        return None
    arrays = {}
    for name, entry in index["files"].items():
        path = place / entry["file"]
        if not path.is_file() or atomic.sha256(path) != entry["sha256"]:
            return None
        arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
    return arrays


def _compute(inner: Teacher, examples: Examples, stream: str, place: Path, key: dict[str, Any], taps: bool) -> None:
    (place / INDEX).unlink(missing_ok=True)  # from here on, until it is written again, there is no cache
    atomic.remove_leftovers(place)
    device = _device(inner)
    first = _named(inner.observe(examples.batch(torch.arange(min(CHUNK, len(examples)))).to(device)), taps)
    files = {name: f"{number}.npy" for number, name in enumerate(first)}
    arrays: dict[str, np.memmap[Any, Any]] = {}
    parts = {}
    for name, value in first.items():
        # Renamed only after all chunks are in, together with the rest.
        parts[name] = place / f".{files[name]}{atomic.TEMPORARY_MARK}whole"
        arrays[name] = np.lib.format.open_memmap(
            parts[name], mode="w+", dtype=value.dtype, shape=(len(examples), *value.shape[1:])
        )
    for start in range(0, len(examples), CHUNK):
        index = torch.arange(start, min(start + CHUNK, len(examples)))
        named = _named(inner.observe(examples.batch(index).to(device)), taps) if start else first
        for name, value in named.items():
            finite = np.isfinite(value.reshape(len(index), -1)).all(axis=1)
            if not finite.all():
                raise TeacherError(
                    f"the teacher's {name} for the example at position {start + int(np.argmin(finite))} of {stream!r} "
                    "is NaN or infinite",
                    fix="check the teacher's weights and its preprocessing on that example",
                )
            arrays[name][start : start + len(index)] = value
    listed = {}
    for name, array in arrays.items():
        array.flush()
        final = place / files[name]
        with atomic.writing(final) as temporary:
            parts[name].rename(temporary)
        listed[name] = {"file": final.name, "sha256": atomic.sha256(final)}
    atomic.write_text(place / INDEX, json.dumps({"key": key, "files": listed}, indent=1, sort_keys=True))


def _named(answer: Signals, taps: bool) -> dict[str, Array]:
    values = {"output": answer.output}
    values.update({f"other:{name}": value for name, value in answer.others.items()})
    if taps:
        values.update({f"tap:{name}": value for name, value in answer.taps.items()})
    return {name: value.cpu().numpy() for name, value in values.items()}


def _device(inner: Teacher) -> torch.device:
    for module in inner.modules().values():
        for parameter in module.parameters():
            return parameter.device
    return torch.device("cpu")
