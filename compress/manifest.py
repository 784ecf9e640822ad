"""`manifest.json` of a run: every artifact with its hash, size, origin and inputs, and the hashes of the records.

It says nothing that the stages' records do not say, so it is written from them: after a kill between two files, opening
the run makes both agree again. Imports no torch and needs only Python 3.10.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.records import RECORD, STAGES, folder_name, read_json, read_record, stays_inside
from profiles.atomic import sha256, write_text

MANIFEST = "manifest.json"
RUN = "run.json"
FORMAT = 1


@dataclass(frozen=True)
class Listed:
    """A file of the manifest.

    Attributes:
        path: relative to the run's folder.
        size: bytes.
        origin: the stage that wrote it, and what it is.
        inputs: relative path or name -> sha256 of what it was made from.
    """

    path: str
    sha256: str
    size: int
    origin: str
    inputs: Mapping[str, str]


def read_manifest(run: Path) -> dict[str, Listed]:
    """Every listed file of a run by its path; empty where there is no manifest, or a garbled one."""
    data = read_json(run / MANIFEST) or {}
    found = data.get("artifacts")
    if not isinstance(found, list) or not all(_is_row(row) for row in found):
        return {}
    return {row["path"]: Listed(**row) for row in found}


def rendered(run: Path) -> str:
    """What `manifest.json` must hold for the records that the run has now."""
    rows, records = [], {}
    for stage in STAGES:
        folder = run / folder_name(stage)
        record = read_record(folder)
        if record is None:
            continue
        records[f"{folder.name}/{RECORD}"] = sha256(folder / RECORD)
        for name, known in record.outputs.items():
            file = folder / name
            size = file.stat().st_size if file.is_file() else 0
            origin = f"{stage}: {record.origins.get(name, 'file')}"
            rows.append(Listed(f"{folder.name}/{name}", known, size, origin, record.inputs))
    if (run / RUN).is_file():
        records[RUN] = sha256(run / RUN)
    plain = [dataclasses.asdict(row) for row in sorted(rows, key=lambda row: row.path)]
    return json.dumps({"format": FORMAT, "artifacts": plain, "records": dict(sorted(records.items()))}, indent=1)


def write_manifest(run: Path) -> None:
    """Make the manifest agree with the records; nothing is written where it does already."""
    text, path = rendered(run), run / MANIFEST
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text)


def _is_row(row: Any) -> bool:
    names = {one.name for one in dataclasses.fields(Listed)}
    return (
        isinstance(row, dict)
        and row.keys() == names
        and all(isinstance(row[name], str) for name in ("path", "sha256", "origin"))
        and stays_inside(row["path"])
        and type(row["size"]) is int
        and isinstance(row["inputs"], dict)
    )
