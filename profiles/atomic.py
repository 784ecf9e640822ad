"""Files that appear whole or not at all."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_MARK = ".part-"


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes the final name, on any error it is removed.

    The order survives a power loss: the file's bytes reach the disk, then the name, then the folder's entry.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{TEMPORARY_MARK}{os.getpid()}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under `path` as a whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` under `path` as a whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def sha256(path: Path) -> str:
    """The file's SHA-256 as 64 hexadecimal digits."""
    with open(path, "rb") as handle:
        digest = hashlib.sha256()
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files that a killed process left anywhere below `folder`."""
    if folder.is_dir():
        for leftover in folder.rglob(f".*{TEMPORARY_MARK}*"):
            if leftover.is_dir() and not leftover.is_symlink():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
