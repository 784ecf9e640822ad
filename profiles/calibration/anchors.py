"""Calibrate a device from times that were measured on it elsewhere: one factor for all kernels, and the fixed time.

An anchor is a model file here and the milliseconds that one inference of it took there, by trtexec or on a board. The
family's own model says how kernels compare with each other; anchors say how fast this device is with this runtime, as
far as two or more networks can tell (`profiles.totals.latency_table`).
A CSV file has the columns model, ms and, where they differ from 1 and from the model's own, batch and precision:

    model,ms,batch,precision
    resnet18.onnx,1.92,1,fp16
    student.onnx,0.41,1,int8

JSON is a list of objects with the same keys. Paths are relative to the file.
"""

import csv
import datetime
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from profiles.calibration.write import Calibration
from profiles.cost import Precision
from profiles.errors import ProfileError
from profiles.target import Target

if TYPE_CHECKING:
    from profiles import totals

LEAST = 2
FAR = 3.0  # how many times the slowest anchor may differ from the fit, up or down, before the anchors are refused


@dataclass(frozen=True)
class Anchor:
    """One measured time."""

    model: Path
    ms: float  # of one batch
    batch: int = 1
    precision: Precision | None = None  # None: what the model says


def read(path: Path) -> list[Anchor]:
    """The anchors of a CSV or JSON file.

    Raises:
        ProfileError: there is no such file, or a row of it cannot be used.
    """
    if not path.is_file():
        raise ProfileError(
            f"there is no file {path}", fix="pass a CSV file with the columns model, ms, batch, precision"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(
            f"{path} is not a readable text file", fix="pass a CSV file with the columns model, ms, batch, precision"
        ) from error
    try:
        rows: Any = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    except json.JSONDecodeError as error:
        raise ProfileError(f"{path} is not valid JSON: {error}", fix="mend the line that it names") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProfileError(f"{path} is not a list of objects", fix='write [{"model": "net.onnx", "ms": 1.2}, ...]')
    return [_anchor(path, number, row) for number, row in enumerate(rows, 1)]


def _anchor(path: Path, number: int, row: dict[str, Any]) -> Anchor:
    where = f"{path}, row {number}"
    if not row.get("model"):
        raise ProfileError(f"{where} names no model", fix="write a table with the columns model, ms, batch, precision")
    model = path.parent / str(row["model"])
    if not model.is_file():
        raise ProfileError(f"{where}: there is no model {row.get('model')!r}", fix="name an ONNX file beside the table")
    try:
        ms, batch = float(row["ms"]), int(row.get("batch") or 1)
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"{where}: ms or batch is not a number", fix="write milliseconds such as 1.92") from error
    if not (ms > 0 and math.isfinite(ms)) or batch < 1:
        raise ProfileError(f"{where}: {ms:g} ms at batch {batch}", fix="write what one batch took, in milliseconds")
    precision = row.get("precision") or None
    if precision is not None and precision not in get_args(Precision):
        known = ", ".join(get_args(Precision))
        raise ProfileError(
            f"{where}: precision is {precision!r}; there are {known}", fix="write one of these, or nothing"
        )
    return Anchor(model, ms, batch, cast("Precision | None", precision))


def calibrated(target: Target, path: Path) -> Calibration:
    """Constants of the target's family, scaled to agree with the anchors.

    Raises:
        ProfileError: fewer than two anchors, or they contradict each other.
    """
    from profiles import read as read_model
    from profiles import totals
    from profiles.latency.models import latency_model

    anchors = read(path)
    if len(anchors) < LEAST:
        raise ProfileError(
            f"{path} has {len(anchors)} anchors; two constants need at least {LEAST}",
            fix="measure another model there, larger or smaller than the first",
        )
    known = [
        totals.Anchor(
            anchor.ms, batch=anchor.batch, precision=anchor.precision, graph=read_model(anchor.model, anchor.batch)
        )
        for anchor in anchors
    ]
    table = totals.latency_table(target, known)
    ratios = np.array([anchor.ms for anchor in anchors]) / _agreed(target, table, known)
    worst = float(np.exp(np.abs(np.log(ratios)).max()))
    if worst > FAR:
        raise ProfileError(
            f"the anchors contradict the model of {target.name}: one is off by a factor of {worst:.1f} after the fit",
            fix="check their batch and precision, and that all were measured on one device in one power mode",
        )
    error = float(np.median(np.abs(1 / ratios - 1)))
    today = datetime.date.today().isoformat()
    origin = (
        f"calibrated by {len(anchors)} times measured on the device ({path.name}, {today}): the family's constants "
        f"times {table['scale']:.3g} and {table['fixed_us']:.3g} us per inference, median error {error:.0%} on these "
        f"times; before: {latency_model(target).origin}"
    )
    return Calibration(
        _kept(target) | {"scale": table["scale"], "fixed_us": table["fixed_us"]}, tuple(table["interval"]), origin
    )


def _agreed(target: Target, table: dict[str, Any], anchors: Sequence["totals.Anchor"]) -> NDArray[np.float64]:
    """What the anchors' networks are predicted to take with the new constants, in milliseconds."""
    from profiles.predict import predict

    device = replace(target, latency=dict(target.latency) | {key: table[key] for key in ("scale", "fixed_us")})
    graphs = [(anchor.graph, anchor.precision) for anchor in anchors if anchor.graph is not None]
    return np.array([predict(graph, device, precision, layers=False).latency_ms for graph, precision in graphs])


def _kept(target: Target) -> dict[str, float | tuple[float, ...]]:
    """The constants of an older calibration of this target: they stay, and are scaled as a whole."""
    older = {key: value for key, value in target.latency.items() if key not in ("origin", "interval", "fixed_us")}
    return {key: tuple(value) if isinstance(value, list) else float(value) for key, value in older.items()}
