"""The jobs of a remote request, run on the machine that was asked."""

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from profiles import records
from profiles.cost import Cost
from profiles.errors import ProfileError
from profiles.measured import NothingMeasuredError, run
from profiles.target import Target


@dataclass(frozen=True)
class Job:
    """One artifact to run. Paths are relative to what was sent."""

    artifact: str
    inputs: tuple[str, ...]  # names of the arrays of `arrays`, in order; () takes random ones
    arrays: str  # an .npz file with arr_0, arr_1, ...; "" without inputs
    batch: int
    threads: int
    seconds: float


@dataclass(frozen=True)
class Request:
    """What is asked of the other machine."""

    target: Target
    jobs: tuple[Job, ...]


def run_all(sent: str) -> dict[str, Any]:
    """Answer `request.json` in a folder: one entry per job, in order, or one refusal for all of them."""
    folder = Path(sent)
    request = records.from_json(Request, json.loads((folder / "request.json").read_text(encoding="utf-8")))
    machine = f"{platform.node()}, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return {"machine": machine, "answers": [_answer(folder, request.target, job) for job in request.jobs]}


def _answer(folder: Path, target: Target, job: Job) -> dict[str, Any]:
    inputs = _inputs(folder, job)
    try:
        found = run(folder / job.artifact, target, inputs, batch=job.batch, threads=job.threads, seconds=job.seconds)
    except ProfileError as error:
        kind = "NothingMeasuredError" if isinstance(error, NothingMeasuredError) else "ProfileError"
        return {"refused": {"kind": kind, "what": error.what, "fix": error.fix}}
    return {"cost" if isinstance(found, Cost) else "measurement": records.to_json(found)}


def _inputs(folder: Path, job: Job) -> dict[str, NDArray[np.generic]] | None:
    if not job.inputs:
        return None
    with np.load(folder / job.arrays, allow_pickle=False) as arrays:
        return {name: arrays[f"arr_{index}"] for index, name in enumerate(job.inputs)}
