"""Bytes that depend on the arrays alone."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from exporters import golden
from exporters.errors import ExportError


def test_round_trip(tmp_path: Path) -> None:
    arrays = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "ids": np.array([1, 2, 3]), "flag": np.array(True)}
    golden.write(tmp_path / "a.npz", arrays)
    found = golden.read(tmp_path / "a.npz")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_bytes_depend_on_the_arrays_alone() -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    y = np.ones(2, np.int64)
    reference = golden.npz_bytes({"x": x, "y": y})
    assert golden.npz_bytes({"y": y, "x": np.asfortranarray(x)}) == reference
    assert golden.npz_bytes({"x": x.astype(">f4"), "y": y}) == reference
    assert golden.npz_bytes({"x": x + 1, "y": y}) != reference
    # Pinned: another version of Python or numpy must not change the bytes of a bundle.
    assert hashlib.sha256(golden.npz_bytes({"y": y})).hexdigest() == PINNED


PINNED = "cf2ad03bdad7080e115d4b418971ceb5be55579d7ab711cf402440523853ad5a"


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="Python objects"):
        golden.npz_bytes({"x": np.array([object()])})
    with pytest.raises(ExportError, match="cannot be stored"):
        golden.npz_bytes({"../x": np.zeros(1)})
    (tmp_path / "a.npz").write_bytes(b"PK not a zip")
    with pytest.raises(ExportError, match=r"a\.npz"):
        golden.read(tmp_path / "a.npz")
