"""How a run's engine is built, where that is not the default: given once to `compress build`, remembered in the run.

`verify` and `report` may build again when something before them has changed; they then build what was asked for.
Imports no torch: `compress build` runs on the device.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.errors import RunError
from exporters.builder import BuildOptions, EngineOptions
from profiles.atomic import write_text

FILE = "build.json"
ENGINE = frozenset(
    {
        "workspace_mib",
        "memory_mib",
        "tf32",
        "hardware",
        "version_compatible",
        "strip_weights",
        "optimisation_level",
        "timing_cache",
        "only_cached_timings",
        "dla_core",
        "gpu_fallback",
    }
)
OTHER = frozenset({"capabilities", "batches", "dims", "profiles", "seconds"})


def options(choices: Mapping[str, Any]) -> BuildOptions:
    """The builders' options for remembered choices.

    Raises:
        ExportError: a value is out of its range.
    """
    engine = {name: value for name, value in choices.items() if name in ENGINE}
    if "timing_cache" in engine:
        engine["timing_cache"] = Path(engine["timing_cache"])
    other = {name: value for name, value in choices.items() if name in OTHER}
    if "dims" in other:
        other["dims"] = {name: tuple(sizes) for name, sizes in other["dims"].items()}
    if "profiles" in other:
        other["profiles"] = tuple(
            {name: tuple(tuple(shape) for shape in three) for name, three in one.items()} for one in other["profiles"]
        )
    for name in ("capabilities", "batches"):
        if name in other:
            other[name] = tuple(other[name])
    return BuildOptions(engine=EngineOptions(**engine), **other)


def remember(run: Path, choices: Mapping[str, Any]) -> None:
    """Keep the choices in the run's folder; none forgets what was kept."""
    options(choices)  # refused before anything is written
    if choices:
        write_text(run / FILE, json.dumps(dict(choices), indent=1, sort_keys=True) + "\n")
    else:
        (run / FILE).unlink(missing_ok=True)


def recall(run: Path) -> dict[str, Any]:
    """What was remembered; empty where nothing was.

    Raises:
        RunError: the file cannot be read, or names what there is not.
    """
    if not (run / FILE).is_file():
        return {}
    try:
        found = json.loads((run / FILE).read_text("utf-8"))
    except ValueError as error:
        raise RunError(f"{run / FILE} cannot be read: {error}", fix="remove it, and give the options again") from error
    if not isinstance(found, dict) or set(found) - ENGINE - OTHER:
        raise RunError(f"{run / FILE} holds no choices of a build", fix="remove it, and give the options again")
    return found
