"""Files that appear whole or not at all."""

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_MARK = ".part-"
FULL = (errno.ENOSPC, errno.EDQUOT)
STREAM_FAILED = ("iostream error", "unexpected pos", "failed writing", "file write failed")  # torch.save's words
PROBE_BYTES = 1 << 20


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it takes the final name, on any error it is removed.

    The order survives a power loss: the file's bytes reach the disk, then the name, then the folder's entry.

    Raises:
        OSError: ENOSPC with the file's name where the disk is full, whatever a library that wrote there made of it.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}{TEMPORARY_MARK}{os.getpid()}")
    try:
        yield temporary
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except Exception as error:
        if not isinstance(error, OSError) and _was_full(error, temporary):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _was_full(error: BaseException, temporary: Path) -> bool:
    """Whether a full disk is behind the error of a library that writes files itself.

    safetensors gives the system's words. torch.save says that a stream failed and not why: the next bytes tell.
    """
    chain = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None and before not in chain:
        chain.append(before)
    if any(isinstance(one, OSError) and one.errno in FULL for one in chain):
        return True
    said = " ".join(map(str, chain))
    if any(os.strerror(number) in said for number in FULL):
        return True
    return any(words in said for words in STREAM_FAILED) and not _takes_more(temporary)


def _takes_more(temporary: Path) -> bool:
    try:
        with open(temporary, "ab") as handle:
            handle.write(bytes(PROBE_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        return error.errno not in FULL
    return True


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` under `path` as a whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 `text` under `path` as a whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def make_folder(path: Path) -> None:
    """Make a folder and those above it, each with its entry on the disk; one that is there already is kept."""
    absent = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in absent:
        _sync_folder(folder.parent)


def rename(path: Path, final: Path) -> None:
    """Give a file or folder on the disk another name, and the new name to the disk."""
    os.replace(path, final)
    for folder in {path.parent, final.parent}:
        _sync_folder(folder)


def rename_new_folder(fresh: Path, final: Path) -> None:
    """Give a folder that was just written its final name once all below it is on the disk; `final` is not there."""
    for path in fresh.rglob("*"):
        if path.is_dir():
            _sync_folder(path)
        else:
            with open(path, "rb") as handle:
                os.fsync(handle.fileno())
    _sync_folder(fresh)
    rename(fresh, final)


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
