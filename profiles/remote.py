"""Measure on another machine, by ssh: the same runner runs there, and its result comes back as data.

The other machine needs Python 3.10 with numpy and the runtime of the target (onnxruntime, TensorRT, ...), not this
package: its files are sent along, run in a folder of their own, and removed. Keys, known hosts and users are those of
ssh's own configuration; a host that asks a question is refused. What comes back is JSON whose every value is checked.
"""

import io
import json
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from profiles import external_data, records, trust
from profiles.cost import Cost
from profiles.errors import ProfileError
from profiles.measure import Measurement
from profiles.measured import Inputs, NothingMeasuredError, predicted, with_measurement
from profiles.remote_jobs import Job, Request
from profiles.ssh import Machine, last_line
from profiles.target import Target

if TYPE_CHECKING:
    from profiles.measured import Model

PACKAGE = Path(__file__).parent
ENGINES = (".engine", ".plan", ".trt")
SECONDS = 900.0  # for everything that runs there
COPY_SECONDS = 600.0
LARGEST_ANSWER = 1 << 24  # bytes
_OWN_FAILURES = {126: "may not be run", 127: "is not there"}  # exit statuses of the remote shell


@dataclass(frozen=True)
class Remote:
    """A machine to measure on.

    Attributes:
        host: "host" or "user@host", as ssh takes it; names from ~/.ssh/config work.
        python: the Python to use there: a name that its PATH finds, or an absolute path.
        options: further ssh options, each "Name=value", such as "Port=2222".
        seconds: the longest that everything may take there.
    """

    host: str
    python: str = "python3"
    options: tuple[str, ...] = ()
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        Machine(self.host, self.options)
        if not self.python or self.python.startswith(("-", "~")) or not self.python.isprintable():
            raise ProfileError(
                f"{self.python!r} is not a Python on {self.host}",
                fix="name one that its PATH finds, such as python3.11, or an absolute path",
            )


def measure_cost(
    path: str | Path,
    target: Target | str,
    host: str,
    model: "Model | None" = None,
    inputs: Inputs | None = None,
    python: str = "python3",
    *,
    options: Sequence[str] = (),
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
    limit_seconds: float = SECONDS,
) -> Cost:
    """Run an artifact on another machine; counts come from `model` here.

    Args:
        path: an ONNX file (with its external data), an engine, or a folder with C files.
        host, python, options: see `Remote`.
        model, inputs, batch, threads, seconds: see `profiles.measure_cost`.
        limit_seconds: the longest that everything may take there.

    Returns:
        A cost whose origin is "measured" (or "emulated"), with a note that says where. Never a prediction.

    Raises:
        NothingMeasuredError: no runner of the target could measure there; the message says why.
        ProfileError: the machine cannot be reached or was lost, lacks something, or refuses the artifact.
    """
    [cost] = measure_many(
        [(Path(path), inputs)],
        target,
        Remote(host, python, tuple(options), limit_seconds),
        models=[model],
        batch=batch,
        threads=threads,
        seconds=seconds,
    )
    return cost


def measure_many(
    artifacts: Sequence[tuple[Path, Inputs | None]],
    target: Target | str,
    remote: Remote,
    *,
    models: Sequence["Model | None"] = (),
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
) -> list[Cost]:
    """Run several artifacts in one visit; arguments, results and errors as `measure_cost`, one by one."""
    from profiles import target as named

    device = named(target) if isinstance(target, str) else target
    sources = models or [None] * len(artifacts)
    # What cannot be counted is found out before anything is sent.
    guesses = [
        None if device.family == "cortex-m" else predicted(path, device, model, inputs, batch)
        for (path, inputs), model in zip(artifacts, sources, strict=True)
    ]
    found = run(artifacts, device, remote, batch=batch, threads=threads, seconds=seconds)
    costs = []
    for guess, one in zip(guesses, found, strict=True):
        if isinstance(one, Cost):
            costs.append(one)
        elif guess is None:
            raise ProfileError(f"{remote.host} sent a measurement of an emulated core", fix="measure again")
        else:
            costs.append(with_measurement(guess, one))
    return costs


def run(
    artifacts: Sequence[tuple[Path, Inputs | None]],
    target: Target,
    remote: Remote,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
) -> list[Measurement | Cost]:
    """As `profiles.measured.run`, on another machine; each result has a note that says where.

    Raises:
        NothingMeasuredError: no runner of the target could measure one of them there.
        ProfileError: the machine cannot be reached or was lost, lacks something, or refuses an artifact.
    """
    found = []
    for one in run_each(artifacts, target, remote, batch=batch, threads=threads, seconds=seconds):
        if isinstance(one, ProfileError):
            raise one
        found.append(one)
    return found


def run_each(
    artifacts: Sequence[tuple[Path, Inputs | None]],
    target: Target,
    remote: Remote,
    *,
    batch: int = 1,
    threads: int = 1,
    seconds: float = 1.0,
) -> list[Measurement | Cost | ProfileError]:
    """As `run`; an artifact that could not be measured has its error in the list, and the others are measured.

    Raises:
        ProfileError: the machine cannot be reached or was lost, or lacks something.
    """
    machine = Machine(remote.host, remote.options)
    with tempfile.TemporaryDirectory(prefix="profiles-remote-") as name:
        local = Path(name)
        _pack(local / "request.zip", artifacts, target, batch, threads, seconds)
        main = local / "remote_main.py"
        main.write_bytes((PACKAGE / main.name).read_bytes())
        with machine.scratch() as there:
            machine.send([local / "request.zip", main], there, seconds=COPY_SECONDS)
            done = machine.run(
                [remote.python, f"{there}/{main.name}", there], seconds=remote.seconds, stays_with_us=True
            )
            if done.returncode != 0:
                raise _failed(remote, done.returncode, done.stderr)
            machine.fetch(f"{there}/result.json", local / "result.json", seconds=COPY_SECONDS)
        return _results(local / "result.json", remote, len(artifacts))


def _failed(remote: Remote, status: int, said: str) -> ProfileError:
    if status in _OWN_FAILURES:
        return ProfileError(
            f"{remote.python} {_OWN_FAILURES[status]} on {remote.host}: {last_line(said)}",
            fix="name the Python there: an absolute path, or a name that a login without a terminal finds",
        )
    crashed = f"ended with status {status}" if status < 128 else f"was ended by signal {status - 128}"
    return ProfileError(
        f"{remote.python} on {remote.host} {crashed}: {last_line(said)}",
        fix="run the artifact there by hand; a runtime that crashes is usually of another version than the artifact",
    )


def _pack(
    goal: Path,
    artifacts: Sequence[tuple[Path, Inputs | None]],
    target: Target,
    batch: int,
    threads: int,
    seconds: float,
) -> None:
    """Everything that the other machine needs, under names of our own: none that a user chose reaches it as a path."""
    jobs = []
    with zipfile.ZipFile(goal, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in _package_files():
            archive.write(path, f"package/profiles/{path.relative_to(PACKAGE).as_posix()}")
        for index, (path, inputs) in enumerate(artifacts):
            given = "" if inputs is None else f"inputs{index}.npz"
            if inputs is not None:
                archive.writestr(given, _arrays(inputs))
            artifact = f"artifact{index}/{_add(archive, Path(path), f'artifact{index}')}".rstrip("/")
            jobs.append(Job(artifact, tuple(inputs or ()), given, batch, threads, seconds))
        request = Request(target, tuple(jobs))
        archive.writestr("request.json", json.dumps(records.to_json(request), allow_nan=False))


def _arrays(inputs: Inputs) -> bytes:
    """The arrays in order, as an .npz file. Names may be anything, so they travel in the request."""
    plain = [np.asarray(value) for value in inputs.values()]
    if any(array.dtype.hasobject for array in plain):
        raise ProfileError("an input is an array of Python objects", fix="pass arrays of numbers")
    file = io.BytesIO()
    np.savez(file, *plain)
    return file.getvalue()


def _package_files() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            yield path


def _add(archive: zipfile.ZipFile, path: Path, folder: str) -> str:
    """Add one artifact; returns its name in `folder`, "" where it is the folder itself."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and not file.is_symlink():
                archive.write(file, f"{folder}/{file.relative_to(path).as_posix()}")
        return ""
    if not path.is_file():
        raise ProfileError(f"there is no file {path}", fix="pass the path of an ONNX file, an engine or a C folder")
    suffix = path.suffix if path.suffix[1:].isalnum() else ""
    archive.write(path, f"{folder}/model{suffix}")
    if suffix in ENGINES:  # code: what is vouched for here is vouched for there, and what is said of it goes along
        archive.writestr(f"{folder}/model{suffix}{trust.CHECKSUM}", f"{trust.check(path)}  model{suffix}\n")
        record = path.with_name(path.name + trust.RECORD)
        if record.is_file():
            archive.write(record, f"{folder}/model{suffix}{trust.RECORD}")
    if suffix == ".onnx":
        for location in external_data.locations(path):
            archive.write(path.parent / location, f"{folder}/{location}")
    return f"model{suffix}"


def _results(path: Path, remote: Remote, count: int) -> list[Measurement | Cost | ProfileError]:
    if path.stat().st_size > LARGEST_ANSWER:
        raise _damaged(remote, f"{path.stat().st_size} bytes")
    try:
        answer = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(remote, str(error)) from error
    if not isinstance(answer, dict):
        raise _damaged(remote, "no table")
    if (refused := _refusal(answer, remote)) is not None:
        raise refused
    answers = answer.get("answers")
    if not isinstance(answers, list) or len(answers) != count:
        raise _damaged(remote, f"not {count} answers")
    note = f"measured by ssh on {remote.host} ({str(answer.get('machine', 'it gave no name'))[:200]})"
    return [_result(one, remote, note) for one in answers]


def _result(answer: Any, remote: Remote, note: str) -> Measurement | Cost | ProfileError:
    if not isinstance(answer, dict):
        raise _damaged(remote, "no table")
    if (refused := _refusal(answer, remote)) is not None:
        return refused
    if "cost" in answer:
        cost = records.from_json(Cost, answer["cost"])
        return replace(cost, notes=(*cost.notes, note.replace("measured", cost.origin, 1)))
    found = records.from_json(Measurement, answer.get("measurement"))
    if found.median_ms <= 0 or found.runs < 1 or found.batch < 1:
        raise _damaged(remote, f"a median of {found.median_ms} ms over {found.runs} runs")
    return replace(found, notes=(*found.notes, note))


def _refusal(answer: Mapping[str, Any], remote: Remote) -> ProfileError | None:
    """What the other machine raised; None where it raised nothing."""
    refused = answer.get("refused")
    if refused is None:
        return None
    if not isinstance(refused, dict):
        raise _damaged(remote, "a refusal without words")
    kind = NothingMeasuredError if refused.get("kind") == "NothingMeasuredError" else ProfileError
    return kind(f"{remote.host}: {str(refused.get('what'))[:2000]}", fix=str(refused.get("fix"))[:2000])


def _damaged(remote: Remote, what: str) -> ProfileError:
    return ProfileError(f"the answer of {remote.host} cannot be read: {what[:200]}", fix="measure again")
