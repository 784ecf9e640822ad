"""A file that a stage leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Artifact:
    """One file (or folder) with what is known about it.

    Attributes:
        path: where it is.
        kind: onnx, engine, c-library, bundle, ...
        purpose: artifact (what the user ships) or check (proves something, is not shipped).
        note: what a reader must know, such as "proves that the graph compiles for Ampere; does not run on Orin".
        facts: figures from building it: versions, int8 share, flash bytes, build log, ...; plain JSON values.
    """

    path: Path
    kind: str
    purpose: str = "artifact"
    note: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Skipped:
    """A step that this machine cannot do, and why."""

    why: str
    fix: str = ""
