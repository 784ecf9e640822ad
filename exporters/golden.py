"""Arrays in an .npz file whose bytes depend on the arrays alone."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from profiles import atomic

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a ZIP entry can have


def npz_bytes(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """An .npz file that np.load(..., allow_pickle=False) reads.

    Entries are stored, in order of their names and without times, so that the same arrays give the same bytes.

    Raises:
        ExportError: an array holds Python objects, or a name cannot be a file's.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as packed:
        for name in sorted(arrays):
            array = np.asarray(arrays[name])
            if array.dtype.hasobject:
                raise ExportError(f"array {name!r} holds Python objects", fix="convert it to numbers first")
            if not name or name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise ExportError(f"array name {name!r} cannot be stored", fix="use letters, digits and underscores")
            # Column order and byte order are the machine's or the caller's; row order, little endian is the file's.
            data = np.ascontiguousarray(array)
            data = data.astype(data.dtype.newbyteorder("<"), copy=False).reshape(array.shape)
            entry = io.BytesIO()
            np.lib.format.write_array(entry, data, version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=EPOCH)
            info.external_attr = 0o644 << 16
            info.create_system = 3
            packed.writestr(info, entry.getvalue())
    return stream.getvalue()


def write(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write arrays whole or not at all."""
    atomic.write_bytes(path, npz_bytes(arrays))


def read(path: Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of an .npz file; nothing is unpickled.

    Raises:
        ExportError: the file is missing, broken, or holds objects.
    """
    if not Path(path).is_file():
        raise ExportError(f"there is no file {path}", fix="correct the path; a run's samples are 4_export/golden.npz")
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ExportError(f"{Path(path).name} is not a readable .npz file: {error}", fix="write it again") from error
