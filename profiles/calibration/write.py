"""A calibration as a target file: it inherits the target and states the constants of its latency model."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiles import atomic
from profiles.errors import ProfileError
from profiles.target import Target

DIGITS = 6
MARK = "# From here on written by `compress targets calibrate`"


@dataclass(frozen=True)
class Calibration:
    """What a calibration found."""

    constants: Mapping[str, float | tuple[float, ...]]  # of the family's latency model
    interval: tuple[float, float]  # factors on the predicted median that contain 90 % of unseen cases
    origin: str  # machine, runtime, date, number of measurements, error


def target_file(target: Target, out: Path, found: Calibration) -> Path:
    """Write `<out>/targets/<name>.toml`, whole or not at all; what a target file of the user's own says stays.

    Raises:
        ProfileError: that file has a [latency] table which no calibration wrote.
    """
    name = target.name.split(":")[0]
    path = Path(out) / "targets" / f"{name}.toml"
    own = (
        path.read_text(encoding="utf-8").split(MARK)[0].rstrip() if path.is_file() else f"inherit = {json.dumps(name)}"
    )
    if any(line.strip().startswith("[latency]") for line in own.splitlines()):
        raise ProfileError(
            f"{path} has a [latency] table of your own, which a calibration would replace",
            fix="remove that table, or calibrate into another folder",
        )
    lines = [
        own,
        "",
        f"{MARK}; remove it to go back to the constants of the package.",
        "[latency]",
        f"origin = {json.dumps(found.origin, ensure_ascii=False)}",
        *table(found.constants),
        f"interval = {_value(found.interval)}",
    ]
    atomic.write_text(path, "\n".join(lines) + "\n")
    return path


def table(constants: Mapping[str, float | tuple[float, ...]]) -> list[str]:
    """Constants as lines of TOML."""
    return [f"{key} = {_value(value)}" for key, value in constants.items()]


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_value(item) for item in value)}]"
    number = float(f"{value:.{DIGITS}g}")
    return repr(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
