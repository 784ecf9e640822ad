"""IDX files, and the published data where they are."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.clothing import DIGESTS, read_idx
from compress.errors import TaskError
from compress.tasks.fashion_mnist import TASK


def idx(shape: tuple[int, ...], content: bytes, kind: int = 8) -> bytes:
    return b"\0\0" + bytes([kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + content


def test_reads_what_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(idx((2, 1, 3), bytes(range(6)))))
    assert read_idx(path).tolist() == [[[0, 1, 2]], [[3, 4, 5]]]
    assert read_idx(path).dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(idx((2, 3), bytes(6)), mtime=0)[:-9], "not a whole gzip file"),
        (b"plain bytes", "not a whole gzip file"),
        (b"", "not an IDX file"),
        (gzip.compress(b"", mtime=0), "not an IDX file"),
        (gzip.compress(idx((2, 3), bytes(6), kind=9), mtime=0), "not an IDX file"),
        (gzip.compress(b"\0\0\x08\x03\0\0", mtime=0), "not an IDX file"),
        (gzip.compress(idx((2, 3), bytes(5)), mtime=0), "announces 2 x 3 bytes and holds 5"),
        (gzip.compress(idx((2, 3), bytes(7)), mtime=0), "announces 2 x 3 bytes and holds 7"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(TaskError, match=message):
        read_idx(path)


def test_no_data_names_the_files_and_their_source() -> None:
    with pytest.raises(TaskError, match="'fashion_mnist' needs data") as refused:
        TASK.load(None)
    assert all(name in refused.value.fix for name in DIGESTS)
    assert "zalandoresearch" in refused.value.fix


def test_a_cut_off_download_is_named(tmp_path: Path) -> None:
    for name in DIGESTS:
        (tmp_path / name).write_bytes(gzip.compress(b"x")[:-1])
    with pytest.raises(TaskError, match=r"train-images-idx3-ubyte\.gz is not the file .* expected 3aede38d"):
        TASK.load(tmp_path)


def test_the_published_data(shared_data: Path) -> None:
    splits = TASK.load(shared_data / "fashion_mnist")
    assert [len(splits.train), len(splits.val), len(splits.test)] == [55_000, 5_000, 10_000]
    test = splits.test.batch(torch.arange(10_000))
    assert test.labels.bincount().tolist() == [1000] * 10
    # The data's own documentation: mean 0.2860, standard deviation 0.3530 of the training pixels.
    features = TASK.frontend()(splits.train.batch(torch.arange(0, 55_000, 11)).inputs[0])
    assert abs(features.mean().item()) < 0.02
    assert abs(features.std().item() - 1.0) < 0.02
