"""A run's folder: locked, listed in a manifest, and resumable because finished stages are known by content.

Imports no torch and needs only Python 3.10: `compress build` runs on the device.
"""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.errors import RunError
from profiles.atomic import TEMPORARY_MARK, remove_leftovers, sha256, write_text

STAGES = ("prepare", "select", "distill", "quantize", "export", "build", "verify", "report")
RECORD = "stage.json"
BEGUN = "begun.json"
MANIFEST = "manifest.json"
RUN = "run.json"
LISTED = "listed.json"  # in a folder that was set aside: what the manifest called its files


def folder_name(stage: str) -> str:
    """`1_select` for "select"; the numbers sort as the data flow."""
    return f"{STAGES.index(stage)}_{stage}"


def digest(value: object) -> str:
    """SHA-256 of plain data: the same for equal values whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Listed:
    """A file of the manifest.

    Attributes:
        path: relative to the run's folder.
        origin: the stage that wrote it, and what it is.
        inputs: relative path or name -> sha256 of what it was made from.
    """

    path: str
    sha256: str
    size: int
    origin: str
    inputs: Mapping[str, str]


@dataclass(frozen=True)
class Record:
    """A finished stage.

    Attributes:
        key: hash of everything that decides what the stage does.
        outputs: file, relative to the stage's folder -> sha256.
        values: what the stage found, plain JSON.
    """

    stage: str
    key: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    values: Mapping[str, Any]
    seconds: float

    @property
    def identity(self) -> str:
        """Hash of what later stages depend on: the files, and the key that they follow from."""
        return digest([self.key, dict(self.outputs)])


@dataclass
class Store:
    """An open run folder. Use `open_store`; nothing else may write into the folder meanwhile.

    Attributes:
        folder: the run's.
        redo: stages that are done again even if they are finished.
        repeated: stages that did work this time (for tests and for the closing line).
    """

    folder: Path
    redo: frozenset[str] = frozenset()
    repeated: list[str] = field(default_factory=list)

    def path(self, stage: str) -> Path:
        """The stage's folder."""
        return self.folder / folder_name(stage)

    def record(self, stage: str) -> Record | None:
        """The finished stage's record if its files are still what they were, else None."""
        record = read_record(self.path(stage))
        return record if record is not None and intact(self.path(stage), record) else None

    def once(
        self,
        stage: str,
        inputs: Mapping[str, str],
        work: Callable[[Path], tuple[Mapping[str, Path], Mapping[str, Any]]],
    ) -> Record:
        """Do a stage unless it is finished for exactly these inputs, here or in what was set aside.

        Args:
            stage: its name.
            inputs: name -> hash of everything that decides the result.
            work: gets the stage's folder (with whatever an interrupted attempt with the same inputs left there) and
                gives the files it wrote, by what they are, and the values it found.

        Returns:
            The record, fresh or kept.
        """
        folder = self.path(stage)
        key = digest([stage, dict(inputs)])
        old = read_record(folder)
        if stage not in self.redo and old is not None and old.key == key and intact(folder, old):
            return old
        if folder.exists() and (old is not None or _begun_key(folder) != key):
            self._set_aside(stage, folder)
        if stage not in self.redo and (record := self._taken_back(folder, key)) is not None:
            return record
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder)
        write_text(folder / BEGUN, json.dumps({"key": key}))
        start = time.monotonic()
        files, values = work(folder)
        self.repeated.append(stage)
        outputs = {
            path.relative_to(folder).as_posix(): sha256(path)
            for what in sorted(files)
            for path in _files_below(files[what])
        }
        plain = json.loads(json.dumps(values, default=str))
        record = Record(stage, key, dict(inputs), outputs, plain, time.monotonic() - start)
        write_text(folder / RECORD, json.dumps(dataclasses.asdict(record), indent=1))
        (folder / BEGUN).unlink(missing_ok=True)
        self._list(stage, files, record)
        return record

    def manifest(self) -> dict[str, Listed]:
        """Every listed file by its path."""
        return read_manifest(self.folder)

    def kept(self, stage: str, inputs: Mapping[str, str]) -> Path | None:
        """The folder in which the stage is finished for these inputs: its own, or one that was set aside."""
        folder, key = self.path(stage), digest([stage, dict(inputs)])
        for place in (folder, *(path for _, path in self._aside(folder))):
            record = read_record(place)
            if record is not None and record.key == key and intact(place, record):
                return place
        return None

    def _aside(self, folder: Path) -> list[tuple[int, Path]]:
        """What was set aside of a stage, with its number, the last one first."""
        found = (self.folder / "previous").glob(f"{folder.name}-*")
        return sorted(((int(path.name.rpartition("-")[2]), path) for path in found), reverse=True)

    def _taken_back(self, folder: Path, key: str) -> Record | None:
        """The stage as it was finished for the same inputs before, in its place again; None where it never was."""
        if folder.exists():  # an attempt that was interrupted, with its checkpoint
            return None
        for _, place in self._aside(folder):
            record = read_record(place)
            if record is not None and record.key == key and intact(place, record):
                self._relist(place, record)
                os.replace(place, folder)
                return record
        return None

    def _relist(self, place: Path, record: Record) -> None:
        """Put its files into the manifest, which are still in `place`, under the names that they will have."""
        prefix, origins = folder_name(record.stage), _json(place / LISTED) or {}
        rows = {name: entry for name, entry in self.manifest().items() if not name.startswith(prefix + "/")}
        for short, known in record.outputs.items():
            name, origin = f"{prefix}/{short}", str(origins.get(short, record.stage))
            rows[name] = Listed(name, known, (place / short).stat().st_size, origin, record.inputs)
        self._write_manifest(rows)

    def _set_aside(self, stage: str, folder: Path) -> None:
        """Keep what an earlier recipe, or an earlier round, left: nothing is lost."""
        kept = self.folder / "previous"
        kept.mkdir(exist_ok=True)
        number = 1 + max((n for n, _ in self._aside(folder)), default=0)
        manifest, prefix = self.manifest(), folder.name + "/"
        origins = {name.removeprefix(prefix): row.origin for name, row in manifest.items() if name.startswith(prefix)}
        write_text(folder / LISTED, json.dumps(origins))
        os.replace(folder, kept / f"{folder.name}-{number}")
        self._write_manifest({name: entry for name, entry in manifest.items() if not name.startswith(prefix)})

    def _list(self, stage: str, files: Mapping[str, Path], record: Record) -> None:
        prefix = folder_name(stage) + "/"
        listed = {name: entry for name, entry in self.manifest().items() if not name.startswith(prefix)}
        for what, path in files.items():
            for file in _files_below(path):
                name = file.relative_to(self.folder).as_posix()
                short = file.relative_to(self.path(stage)).as_posix()
                listed[name] = Listed(
                    name, record.outputs[short], file.stat().st_size, f"{stage}: {what}", record.inputs
                )
        self._write_manifest(listed)

    def _write_manifest(self, listed: Mapping[str, Listed]) -> None:
        rows = [dataclasses.asdict(listed[name]) for name in sorted(listed)]
        write_text(self.folder / MANIFEST, json.dumps({"format": 1, "artifacts": rows}, indent=1))


@contextmanager
def open_store(folder: Path, redo: frozenset[str] = frozenset(), kind: type[Store] = Store) -> Iterator[Store]:
    """Lock a run's folder and give it, as `kind`.

    Raises:
        RunError: another process is writing there, the folder holds something that is no run, or it cannot be written.
    """
    folder = Path(folder)
    try:
        _refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written: {error.strerror}", fix="choose another folder with --out"
        ) from error
    try:
        _lock(handle, folder)
        remove_leftovers(folder)
        yield kind(folder, redo)
    finally:
        os.close(handle)


def read_record(folder: Path) -> Record | None:
    """The record in a stage's folder; None where there is none or it is garbled."""
    data = _json(folder / RECORD)
    try:
        return None if data is None else Record(**data)
    except TypeError:
        return None


def intact(folder: Path, record: Record) -> bool:
    """Whether every output is there, unchanged."""
    return all((folder / name).is_file() and sha256(folder / name) == known for name, known in record.outputs.items())


def read_manifest(folder: Path) -> dict[str, Listed]:
    """Every listed file of a run by its path; empty where there is no manifest yet."""
    data = _json(folder / MANIFEST) or {"artifacts": []}
    return {row["path"]: Listed(**row) for row in data["artifacts"]}


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says: the recipe that the folder belongs to.

    Raises:
        RunError: the folder is no run.
    """
    data = _json(Path(folder) / RUN)
    if data is None:
        raise RunError(
            f"{folder} is not a run: it has no {RUN}", fix="give the folder that `compress pipeline` wrote, runs/..."
        )
    return data


def _json(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (UnicodeDecodeError, json.JSONDecodeError):
        return None  # cannot come from us: files appear whole or not at all
    return data if isinstance(data, dict) else None


def _begun_key(folder: Path) -> str | None:
    data = _json(folder / BEGUN)
    return None if data is None else data.get("key")


def _files_below(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and TEMPORARY_MARK not in file.name)


def _refuse_foreign(folder: Path) -> None:
    if folder.is_file():
        raise RunError(f"{folder} is a file, not a folder", fix="choose another folder with --out")
    if folder.is_dir():
        names = {entry.name for entry in folder.iterdir()} - {".lock"}
        known = {RUN, MANIFEST, *map(folder_name, STAGES)}
        if not names & known and any(not name.startswith(".") for name in names):
            raise RunError(
                f"{folder} holds files that are no run ({', '.join(sorted(names)[:3])})",
                fix="choose an empty or a new folder with --out",
            )


def _lock(handle: int, folder: Path) -> None:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = (folder / ".lock").read_text().strip() or "unknown"
        raise RunError(
            f"another run (process {holder}) is writing into {folder}",
            fix="wait for it, stop it, or choose another folder with --out",
        ) from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
