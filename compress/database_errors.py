"""What SQLite refuses, in words that say what to do."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from compress.errors import RunError

PATIENCE_S = 60.0  # for the file's lock; a transaction takes milliseconds


def refuse(path: Path, what: str, fix: str, cause: BaseException | None = None) -> NoReturn:
    """The error that names the file, what was found and what to do."""
    raise RunError(f"the evaluations file {path} {what}", fix=fix) from cause


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors that a user can mend, in words."""
    try:
        yield
    except sqlite3.Error as error:
        kind = getattr(error, "sqlite_errorcode", -1) & 0xFF
        if kind in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            refuse(
                path,
                f"is damaged, or is something else: {error}",
                "move it away (what it held is evaluated again), or choose another place",
                error,
            )
        if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            refuse(path, f"cannot be written: {error}", "make it and its folder writable, or choose another", error)
        if kind == sqlite3.SQLITE_FULL:
            refuse(path, "cannot grow: the disk is full", "free some space; the same command goes on from here", error)
        if kind == sqlite3.SQLITE_BUSY:
            refuse(
                path,
                f"was locked by another process for {PATIENCE_S:.0f} s",
                "stop whatever holds it (a shell of sqlite3, a backup), and run the same command again",
                error,
            )
        if kind == sqlite3.SQLITE_IOERR:
            refuse(path, f"cannot be read or written: {error}", "see whether its disk is full or failing", error)
        raise
