"""A disk that is full is one kind of error, whatever the library that wrote there says of it."""

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from compress.errors import full_disk
from profiles.atomic import write_bytes, writing

LARGE = {"a": torch.zeros(100_000)}  # 400 kB
WRITERS: list[Callable[[Path], object]] = [
    lambda path: torch.save(LARGE, path),
    lambda path: save_file(LARGE, path),
    lambda path: path.write_bytes(bytes(400_000)),
]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 200 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)  # a traceback may hold the writer that failed


@pytest.mark.parametrize("write", WRITERS, ids=["torch", "safetensors", "bytes"])
def test_a_small_disk_gets_full(small_disk: Path, write: Callable[[Path], object]) -> None:
    write_bytes(small_disk / "kept", b"before")
    with pytest.raises(OSError, match="No space left") as caught, writing(small_disk / "kept") as temporary:
        write(temporary)
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in small_disk.iterdir()] == ["kept"]
    assert (small_disk / "kept").read_bytes() == b"before"


@pytest.mark.parametrize("full", [True, False])
def test_a_stream_that_failed_is_a_full_disk_only_where_no_more_bytes_go_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    def fsync(handle: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("profiles.atomic.os.fsync", fsync)
    kind = OSError if full else RuntimeError
    with pytest.raises(kind) as caught, writing(tmp_path / "file"):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    assert getattr(caught.value, "filename", None) == (str(tmp_path / "file") if full else None)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (ValueError("a shape"), PermissionError(errno.EACCES, "no"), KeyboardInterrupt()):
        with pytest.raises(type(error)), writing(tmp_path / "file"):
            raise error
    assert full_disk(PermissionError(errno.EACCES, "no"), "finished stages") is None


def test_the_words_name_the_file_that_was_being_written() -> None:
    said = full_disk(OSError(errno.EDQUOT, "quota", "source", None, "target"), "finished trials")
    assert said is not None
    assert (said.what, said.fix) == (
        "the disk is full (writing target)",
        "free some space, then give the same command again: finished trials are kept",
    )
    bare = full_disk(OSError(errno.ENOSPC, "full"), "finished trials")
    assert bare is not None
    assert bare.what == "the disk is full"
