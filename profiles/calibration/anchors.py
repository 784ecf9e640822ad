"""Calibrate a device from times that were measured on it elsewhere: two constants, one for all kernels and one fixed.

An anchor is a model file here and the milliseconds that one inference of it took there, by trtexec or on a board. The
family's own model says how kernels compare with each other; anchors say how fast this device is with this runtime.
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
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from profiles.calibration.write import Calibration
from profiles.cost import Precision
from profiles.errors import ProfileError
from profiles.target import Target

if TYPE_CHECKING:
    from profiles.latency.models import Model

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
    text = path.read_text(encoding="utf-8")
    try:
        rows: Any = json.loads(text) if path.suffix == ".json" else list(csv.DictReader(text.splitlines()))
    except json.JSONDecodeError as error:
        raise ProfileError(f"{path} is not valid JSON: {error}", fix="mend the line that it names") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ProfileError(f"{path} is not a list of objects", fix='write [{"model": "net.onnx", "ms": 1.2}, ...]')
    return [_anchor(path, number, row) for number, row in enumerate(rows, 1)]


def _anchor(path: Path, number: int, row: dict[str, Any]) -> Anchor:
    where = f"{path}, row {number}"
    model = path.parent / str(row.get("model") or "")
    if not row.get("model") or not model.is_file():
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
    from profiles.latency.models import latency_model

    anchors = read(path)
    if len(anchors) < LEAST:
        raise ProfileError(
            f"{path} has {len(anchors)} anchors; two constants need at least {LEAST}",
            fix="measure another model there, larger or smaller than the first",
        )
    model = latency_model(target)
    kernels = np.array([_predicted(target, anchor) for anchor in anchors]) - model.fixed_ms
    measured = np.array([anchor.ms for anchor in anchors])
    scale, fixed = two_constants(kernels, measured)
    ratios = measured / (scale * kernels + fixed)
    worst = float(np.exp(np.abs(np.log(ratios)).max()))
    if worst > FAR:
        raise ProfileError(
            f"the anchors contradict the model of {target.name}: one is off by a factor of {worst:.1f} after the fit",
            fix="check their batch and precision, and that all were measured on one device in one power mode",
        )
    low, high = _interval(model, ratios)
    constants = _scaled(target, scale, fixed)
    error = float(np.median(np.abs(1 / ratios - 1)))
    today = datetime.date.today().isoformat()
    origin = (
        f"calibrated by {len(anchors)} times measured on the device ({path.name}, {today}): the family's constants "
        f"times {scale:.3g} and {fixed * 1e3:.3g} us per inference, median error {error:.0%} on these times; "
        f"before: {model.origin}"
    )
    return Calibration(constants, (low, high), origin)


def two_constants(kernels: NDArray[np.float64], measured: NDArray[np.float64]) -> tuple[float, float]:
    """(scale, fixed) >= 0 with measured = scale * kernels + fixed in relative errors; milliseconds, (N,) each."""
    from profiles.calibration.fit import nonnegative

    rows = np.stack([kernels, np.ones(len(kernels))], axis=1) / measured[:, None]
    size = np.linalg.norm(rows, axis=0)
    scale, fixed = nonnegative(rows / size, np.ones(len(rows))) / size
    return float(scale), float(fixed)


def _predicted(target: Target, anchor: Anchor) -> float:
    from profiles import read as read_model
    from profiles.predict import predict

    return predict(read_model(anchor.model, anchor.batch), target, anchor.precision, layers=False).latency_ms


def _interval(model: "Model", ratios: NDArray[np.float64]) -> tuple[float, float]:
    """The family's own spread without what the anchors have taken away, and no narrower than the anchors disagree.

    Of the family's error one part is common to a device, the other differs from network to network; anchors remove the
    first. Half of the logarithm is what is left of it where a device is known: two anchors cannot show less.
    """
    low, high = (math.log(end) for end in model.interval)
    apart = float(np.abs(np.log(ratios)).max())
    return math.exp(min(low / 2, -1.2 * apart)), math.exp(max(high / 2, 1.2 * apart))


def _scaled(target: Target, scale: float, fixed: float) -> dict[str, float | tuple[float, ...]]:
    """Two constants; those of an older calibration of this target stay, and are scaled as a whole."""
    older = {key: value for key, value in target.latency.items() if key not in ("origin", "interval", "fixed_us")}
    kept = {key: tuple(value) if isinstance(value, list) else float(value) for key, value in older.items()}
    return kept | {"scale": scale * float(older.get("scale", 1.0)), "fixed_us": fixed * 1e3}
