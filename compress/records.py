"""What a finished stage leaves: a record of its key, its files with their hashes, and what it found.

Imports no torch and needs only Python 3.10: `compress build` runs on the device.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiles.atomic import sha256

STAGES = ("prepare", "select", "distill", "quantize", "export", "build", "verify", "report")
RECORD = "stage.json"


def folder_name(stage: str) -> str:
    """`1_select` for "select"; the numbers sort as the data flow."""
    return f"{STAGES.index(stage)}_{stage}"


def digest(value: object) -> str:
    """SHA-256 of plain data: the same for equal values whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Record:
    """A finished stage.

    Attributes:
        key: hash of everything that decides what the stage does.
        outputs: file, relative to the stage's folder -> sha256.
        values: what the stage found, plain JSON.
        origins: file, as in `outputs` -> what it is.
    """

    stage: str
    key: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    values: Mapping[str, Any]
    seconds: float
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Hash of what later stages depend on: the files, and the key that they follow from."""
        return digest([self.key, dict(self.outputs)])


def read_record(folder: Path) -> Record | None:
    """The record in a stage's folder; None where there is none or it is garbled."""
    data = read_json(folder / RECORD)
    if data is None or not _is_record(data):
        return None
    return Record(**data)


def intact(folder: Path, record: Record) -> bool:
    """Whether every output is there, unchanged."""
    return all((folder / name).is_file() and sha256(folder / name) == known for name, known in record.outputs.items())


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is no such file, or none of ours: files appear whole or not at all."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _is_record(data: Mapping[str, Any]) -> bool:
    """Whether the names, types and paths are those of a record; a garbled one may hold anything."""
    texts = all(isinstance(data.get(name), str) for name in ("stage", "key"))
    tables = (data.get("inputs"), data.get("outputs"), data.get("origins", {}))
    plain = all(isinstance(table, dict) and all(isinstance(value, str) for value in table.values()) for table in tables)
    seconds, names = data.get("seconds"), {"stage", "key", "inputs", "outputs", "values", "seconds"}
    return (
        texts
        and data["stage"] in STAGES
        and plain
        and isinstance(data.get("values"), dict)
        and isinstance(seconds, int | float)
        and not isinstance(seconds, bool)
        and names <= data.keys() <= names | {"origins"}
        and all(stays_inside(name) for name in data["outputs"])
    )


def stays_inside(name: str) -> bool:
    """Whether a relative path, with forward slashes, cannot lead out of the folder that it is in."""
    parts = name.split("/")
    return bool(name) and "\0" not in name and "\\" not in name and not {"", ".", ".."} & set(parts)
