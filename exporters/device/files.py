"""Files on the device: hashes, the manifest, arrays; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

CODE = "device"  # the only folder in a bundle


class RefusedError(Exception):
    """The machine or the files do not fit; the text says what was found and what to do."""


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as handle:
        while True:
            block = handle.read(1 << 20)
            if not block:
                return found.hexdigest()
            found.update(block)


def digest_of(value: Any) -> str:
    """SHA-256 of plain data, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise RefusedError(f"{path.name} cannot be read ({error}); copy the bundle again") from error
    if not isinstance(value, dict):
        raise RefusedError(f"{path.name} is not a JSON object; copy the bundle again")
    return value


def write_json(path: Path, value: Any) -> None:
    """Write plain data as JSON, whole."""
    write_whole(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode("utf-8"))


def is_plain(name: str) -> bool:
    """Whether a manifest may list this name: a plain file, or one of the builder's own below `device/`."""
    return re.fullmatch(rf"(?:{CODE}/)?[A-Za-z0-9_][A-Za-z0-9_.-]*", name) is not None and ".." not in name


def check_manifest(folder: Path, expected: str | None) -> None:
    """Refuse a bundle of which a file is missing, changed, linked or listed elsewhere.

    Args:
        folder: the bundle.
        expected: SHA-256 of manifest.json itself, as the run that made the bundle recorded it; None skips that.
    """
    manifest = folder / "manifest.json"
    if expected is not None and (not manifest.is_file() or digest(manifest) != expected.lower()):
        raise RefusedError(
            "manifest.json is not the one that was expected; get the bundle again from the run that made it"
        )
    files = read_json(manifest).get("files")
    if not isinstance(files, dict) or not files:
        raise RefusedError("manifest.json lists no files; copy the bundle again")
    for name, entry in sorted(files.items()):
        if not is_plain(name):
            raise RefusedError(f"manifest.json lists {name!r}, which is not a plain file name; do not use this bundle")
        path = folder / name
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            raise RefusedError(f"{name} is missing; copy the bundle again")
        if digest(path) != entry["sha256"]:
            raise RefusedError(f"{name} is not the file that was exported (its SHA-256 differs); copy the bundle again")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.part-{os.getpid()}")
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, survives a power loss
        finally:
            os.close(folder)
    finally:
        if temporary.exists():
            temporary.unlink()


def load_arrays(path: Path) -> dict[str, Any]:
    """Arrays of an .npz file; never unpickles."""
    import numpy as np

    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
