"""Evaluations of students by content hash, in one file: what has been trained is never trained again.

The file is an SQLite database with a rollback journal. A write-ahead log would commit faster, but keeps finished rows
in a second file until a checkpoint, and needs memory that all users of the file share, which two hosts do not have.
The journal beside the file exists only while something is written; where a process is killed then, the next one to
open the file rolls back. `synchronous` is EXTRA: what `put` has written survives a power cut as well.

Several processes may have the file open. One that wants to evaluate claims the key first; the claim of a process that
has died is taken over: at once where this machine can see that it is gone, after `LEASE_S` without a heartbeat
otherwise. Hosts compare heartbeats with their own clock only, so that their clocks may differ.
"""

import hashlib
import json
import math
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from compress.database_errors import PATIENCE_S, explained, refuse
from compress.errors import RunError
from compress.liveness import birth_of, place_of_this

FORMAT = 1  # of keys and of the file; another number is another file
APPLICATION = 0x436D4576  # "CmEv", in the file's header: tells our files from other databases
LEASE_S = 120.0  # without a heartbeat for so long, a claim of another host is free
PAGE = 500  # rows read at a time
SCHEMA = (
    "CREATE TABLE evaluations (number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, candidate TEXT NOT NULL,"
    " score REAL, share REAL NOT NULL, seed INTEGER NOT NULL, cpu_s REAL NOT NULL, started TEXT NOT NULL,"
    " finished TEXT NOT NULL, host TEXT NOT NULL, extra TEXT NOT NULL)",
    "CREATE TABLE claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE owners (owner TEXT PRIMARY KEY, place TEXT NOT NULL, pid INTEGER NOT NULL, birth TEXT NOT NULL,"
    " beat INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE counts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO counts VALUES ('claimed', 0), ('taken_over', 0), ('again', 0)",
)
COLUMNS = "key, candidate, score, share, seed, cpu_s, started, finished, host, extra"
_open_owners: set[str] = set()  # of this process: a claim of its own that is not in here was left behind


@dataclass(frozen=True)
class Evaluation:
    """One finished training of one student.

    Attributes:
        score: on validation data, higher is better; NaN where the training diverged.
        share: of the full training, in (0, 1].
        seed: as the trial gave it.
        cpu_s: CPU seconds that the training took.
        started, finished: ISO 8601 with the offset from UTC.
        host: the machine that trained.
        candidate: identity of the student, "" where the caller has none.
        extra: plain JSON of the caller, such as the plan and the learning curve.
    """

    score: float
    share: float
    seed: int
    cpu_s: float
    started: str
    finished: str
    host: str
    candidate: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Counts:
    """What the file has seen.

    Attributes:
        finished: evaluations in the file.
        running: keys that are claimed now.
        claimed: claims granted since the file was made.
        taken_over: claims of dead processes that were freed.
        again: results put for a key that had one already, which were dropped. 0 unless claims were passed by, or a
            process that was suspended for longer than the lease went on.
    """

    finished: int
    running: int
    claimed: int
    taken_over: int
    again: int


def key_of(*, candidate: str, given: Mapping[str, str], share: float, seed: int) -> str:
    """The content hash of an evaluation, 64 hexadecimal digits: equal in every process for equal values.

    Args:
        candidate: identity of space and plan.
        given: name -> hash of everything else that decides the result: data, teacher, task, the recipe's training.
        share: of the full training.
        seed: of weights and batches.
    """
    value = [FORMAT, candidate, dict(given), float(share), int(seed)]
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def open_evaluations(path: Path, lease_s: float = LEASE_S) -> "Evaluations":
    """Open the file, or make it.

    Raises:
        RunError: the file is damaged, is something else, is of another version, or cannot be written.
    """
    path = Path(path)
    with explained(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            refuse(path, f"cannot be written: {error.strerror}", "choose another place", error)
        connection = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
    return Evaluations(path, connection, lease_s)


class Evaluations:
    """An open file. Use `open_evaluations`, as a context manager; threads of one process may share it.

    Attributes:
        path: the file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lease_s: float) -> None:
        self.path = path
        self._connection = connection
        self._lease_s = lease_s
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._owner = uuid.uuid4().hex
        _open_owners.add(self._owner)
        self._seen: dict[str, tuple[int, float]] = {}  # owner elsewhere -> its beat, when that was first seen here
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None
        self._broken: BaseException | None = None

    def get(self, key: str) -> Evaluation | None:
        """The finished evaluation, or None."""
        with self._using():
            row = self._connection.execute(f"SELECT {COLUMNS} FROM evaluations WHERE key = ?", (key,)).fetchone()
        return None if row is None else _evaluation(row)[1]

    def put(self, key: str, evaluation: Evaluation) -> bool:
        """Remember a result and free its claim; on the disk when this returns.

        Returns:
            False where the key had a result already: the first one stays.
        """
        return key in self.put_all({key: evaluation})

    def put_all(self, found: Mapping[str, Evaluation]) -> set[str]:
        """Remember several results by one write; the keys that had none before."""
        new: set[str] = set()
        if not found:
            return new
        with self._writing() as connection:
            for key, evaluation in found.items():
                statement = f"INSERT OR IGNORE INTO evaluations ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
                if connection.execute(statement, _row(key, evaluation)).rowcount:
                    new.add(key)
                connection.execute("DELETE FROM claims WHERE key = ?", (key,))
            if len(new) < len(found):
                connection.execute("UPDATE counts SET value = value + ? WHERE name = 'again'", (len(found) - len(new),))
        return new

    def claim(self, key: str) -> bool:
        """Whether the caller shall evaluate this now. False: it is finished, or it is being evaluated."""
        return key in self.claim_all([key])

    def claim_all(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` that the caller shall evaluate now; one write for all."""
        granted: set[str] = set()
        with self._writing() as connection:
            for key in dict.fromkeys(keys):
                if connection.execute("SELECT 1 FROM evaluations WHERE key = ?", (key,)).fetchone():
                    continue
                holder = connection.execute("SELECT owner FROM claims WHERE key = ?", (key,)).fetchone()
                if holder is not None and not self._free_if_dead(connection, holder[0]):
                    continue
                connection.execute("INSERT INTO claims VALUES (?, ?)", (key, self._owner))
                granted.add(key)
            if granted:
                self._beat(connection)
                connection.execute("UPDATE counts SET value = value + ? WHERE name = 'claimed'", (len(granted),))
        if granted and self._heart is None:
            self._heart = threading.Thread(target=self._keep_beating, name="evaluations heartbeat", daemon=True)
            self._heart.start()
        return granted

    def release(self, keys: Iterable[str]) -> None:
        """Give claims back that came to nothing."""
        keys = list(keys)
        if not keys:
            return
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM claims WHERE key = ? AND owner = ?", ((key, self._owner) for key in keys)
            )

    def forget(self, keys: Iterable[str]) -> int:
        """Drop results whose evaluation left more than the result (trained weights) and that is lost; how many."""
        keys = list(keys)
        if not keys:
            return 0
        with self._writing() as connection:
            return sum(connection.execute("DELETE FROM evaluations WHERE key = ?", (key,)).rowcount for key in keys)

    def rows(self, candidate: str | None = None) -> Iterator[tuple[str, Evaluation]]:
        """(key, evaluation) in the order in which they finished, read a few at a time; new ones are met as well."""
        last, only = 0, "" if candidate is None else "AND candidate = ?"
        while True:
            with self._using():
                found = self._connection.execute(
                    f"SELECT {COLUMNS}, number FROM evaluations WHERE number > ? {only} ORDER BY number LIMIT {PAGE}",
                    (last,) if candidate is None else (last, candidate),
                ).fetchall()
            yield from map(_evaluation, found)
            if len(found) < PAGE:
                return
            last = found[-1][-1]

    def counts(self) -> Counts:
        """What the file has seen."""
        with self._using():
            tallies = dict(self._connection.execute("SELECT name, value FROM counts"))
            (finished,) = self._connection.execute("SELECT count(*) FROM evaluations").fetchone()
            (running,) = self._connection.execute("SELECT count(*) FROM claims").fetchone()
        return Counts(finished, running, tallies["claimed"], tallies["taken_over"], tallies["again"])

    def close(self) -> None:
        """Give back what is claimed and close the file. A second time does nothing."""
        self._stop.set()
        if self._heart is not None and self._heart is not threading.current_thread():
            self._heart.join()
        with self._lock:
            if self._owner in _open_owners:
                # Where this fails (a full disk), the next one sees by itself that this owner is gone.
                if self._heart is not None:
                    with suppress(RunError), self._writing() as connection:
                        _forget(connection, self._owner)
                _open_owners.discard(self._owner)
            self._connection.close()

    def __enter__(self) -> "Evaluations":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _using(self) -> Iterator[None]:
        if os.getpid() != self._pid:
            raise RuntimeError("an open evaluations file does not cross fork(): open it again in the new process")
        with self._lock, explained(self.path):
            if self._broken is not None:
                broken, self._broken = self._broken, None
                raise broken
            yield

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with self._using():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _beat(self, connection: sqlite3.Connection) -> None:
        """Say that this process is there: with every claim, and while it holds some."""
        connection.execute(
            "INSERT INTO owners VALUES (?, ?, ?, ?, 0) ON CONFLICT (owner) DO UPDATE SET beat = beat + 1",
            (self._owner, place_of_this(), self._pid, birth_of(self._pid)),
        )

    def _keep_beating(self) -> None:
        while not self._stop.wait(self._lease_s / 4):
            try:
                with self._writing() as connection:
                    self._beat(connection)
            except BaseException as error:  # whoever uses the file next is told
                self._broken = error
                return

    def _free_if_dead(self, connection: sqlite3.Connection, owner: str) -> bool:
        """Forget an owner that can no longer finish what it claimed; whether it was so."""
        row = connection.execute("SELECT place, pid, birth, beat FROM owners WHERE owner = ?", (owner,)).fetchone()
        if row is not None and not self._dead(owner, *row):
            return False
        freed = _forget(connection, owner)
        connection.execute("UPDATE counts SET value = value + ? WHERE name = 'taken_over'", (freed,))
        return True

    def _dead(self, owner: str, place: str, pid: int, birth: str, beat: int) -> bool:
        if owner in _open_owners:
            return False
        if place == place_of_this():
            return pid == self._pid or birth_of(pid) != birth
        now = time.monotonic()
        known, since = self._seen.setdefault(owner, (beat, now))
        if known != beat:
            self._seen[owner] = (beat, now)
            return False
        return now - since >= self._lease_s


def _forget(connection: sqlite3.Connection, owner: str) -> int:
    connection.execute("DELETE FROM owners WHERE owner = ?", (owner,))
    return connection.execute("DELETE FROM claims WHERE owner = ?", (owner,)).rowcount


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check that the file is ours, or make it so; safe where two processes make it at the same time."""
    connection.execute("PRAGMA synchronous = EXTRA")
    connection.execute("BEGIN IMMEDIATE")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not application and not version and not tables:
        for statement in (*SCHEMA, f"PRAGMA application_id = {APPLICATION}", f"PRAGMA user_version = {FORMAT}"):
            connection.execute(statement)
    elif application != APPLICATION:
        refuse(path, "is a database of another program", "choose another place")
    elif version != FORMAT:
        refuse(
            path,
            f"has format {version}, and this version of compress writes format {FORMAT}",
            "choose another place, or go on with the version that wrote it",
        )
    connection.execute("COMMIT")
    (mode,) = connection.execute("PRAGMA journal_mode = DELETE").fetchone()  # the default; a shell may have changed it
    if mode != "delete":
        refuse(path, f"keeps a journal of kind {mode}", "close whatever else has it open, and try again")


def _row(key: str, evaluation: Evaluation) -> tuple[Any, ...]:
    item = evaluation
    score = None if math.isnan(item.score) else float(item.score)  # the file's own word for NaN
    extra = json.dumps(dict(item.extra), separators=(",", ":"))
    times = (item.started, item.finished, item.host)
    return (key, item.candidate, score, float(item.share), int(item.seed), float(item.cpu_s), *times, extra)


def _evaluation(row: Sequence[Any]) -> tuple[str, Evaluation]:
    key, candidate, score, share, seed, cpu_s, started, finished, host, extra = row[:10]
    score = math.nan if score is None else score
    return key, Evaluation(score, share, seed, cpu_s, started, finished, host, candidate, json.loads(extra))
