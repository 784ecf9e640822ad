"""A run's folder: locked, listed in a manifest, and resumable because finished stages are known by content.

Imports no torch and needs only Python 3.10: `compress build` runs on the device.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from compress.errors import RunError
from compress.manifest import MANIFEST, RUN, Listed, read_manifest, write_manifest
from compress.records import RECORD, STAGES, Record, digest, folder_name, intact, read_json, read_record
from profiles.atomic import FULL, TEMPORARY_MARK, make_folder, remove_leftovers, rename, sha256, write_text

BEGUN = "begun.json"


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
            (folder / BEGUN).unlink(missing_ok=True)  # of a process that was killed when it had just finished
            return old
        if folder.exists() and (old is not None or _begun_key(folder) != key):
            self._set_aside(stage, folder)
        if stage not in self.redo and (record := self._taken_back(folder, key)) is not None:
            return record
        make_folder(folder)
        remove_leftovers(folder)
        write_text(folder / BEGUN, json.dumps({"key": key}))
        start = time.monotonic()
        files, values = work(folder)
        self.repeated.append(stage)
        origins = {
            path.relative_to(folder).as_posix(): what for what in sorted(files) for path in _files_below(files[what])
        }
        outputs = {name: sha256(folder / name) for name in origins}
        plain = json.loads(json.dumps(values, default=str))
        record = Record(stage, key, dict(inputs), outputs, plain, time.monotonic() - start, origins)
        write_text(folder / RECORD, json.dumps(dataclasses.asdict(record), indent=1))
        (folder / BEGUN).unlink(missing_ok=True)
        write_manifest(self.folder)
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
                rename(place, folder)
                write_manifest(self.folder)
                return record
        return None

    def _set_aside(self, stage: str, folder: Path) -> None:
        """Keep what an earlier recipe, or an earlier round, left: nothing is lost."""
        kept = self.folder / "previous"
        make_folder(kept)
        number = 1 + max((n for n, _ in self._aside(folder)), default=0)
        rename(folder, kept / f"{folder.name}-{number}")
        write_manifest(self.folder)


@contextmanager
def open_store(folder: Path, redo: frozenset[str] = frozenset(), kind: type[Store] = Store) -> Iterator[Store]:
    """Lock a run's folder and give it, as `kind`.

    Raises:
        RunError: another process is writing there, the folder holds something that is no run, or it cannot be written.
    """
    folder = Path(folder)
    try:
        _refuse_foreign(folder)
        make_folder(folder)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno in FULL:
            raise
        raise RunError(
            f"{folder} cannot be written: {error.strerror}", fix="choose another folder with --out"
        ) from error
    try:
        _lock(handle, folder)
        remove_leftovers(folder)
        if (folder / RUN).is_file():
            write_manifest(folder)  # a kill may have come between a record and its listing
        yield kind(folder, redo)
    finally:
        os.close(handle)


def read_run(folder: Path) -> dict[str, Any]:
    """What `run.json` says: the recipe that the folder belongs to.

    Raises:
        RunError: the folder is no run.
    """
    data = read_json(Path(folder) / RUN)
    if data is None:
        raise RunError(
            f"{folder} is not a run: it has no {RUN}", fix="give the folder that `compress pipeline` wrote, runs/..."
        )
    return data


def _begun_key(folder: Path) -> str | None:
    data = read_json(folder / BEGUN)
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
