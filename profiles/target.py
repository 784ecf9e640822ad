"""What a device is: one TOML file per target, read once and checked at the edge.

A file is found by its name in the user's own folder first, then among those that ship with the package. It may
`inherit = "other"`: tables are merged key by key, the file's own keys win; aliases are not inherited.
"""

import difflib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:  # JetPack 6 has Python 3.10
    import tomli as tomllib

from profiles.cost import Precision
from profiles.errors import ProfileError

FOLDER = Path(__file__).parent / "targets"
FAMILIES = ("nvidia-gpu", "cortex-m", "x86-cpu")
RATES = ("fp32", "tf32", "fp16", "bf16", "int8")  # what hardware.tops may name
DEFAULT_PERIOD_MS = 8.0  # one hop of a hearing aid's filter bank


@dataclass(frozen=True)
class Budget:
    """Limits at batch 1. None is no limit."""

    latency_ms: float | None = None  # median
    peak_activation_bytes: int | None = None
    weight_bytes: int | None = None
    macs: int | None = None
    accuracy_drop: float | None = None  # teacher minus artifact, as a fraction: 0.01 is one point
    compute_share: float | None = None  # of the task's decision period; used where latency_ms is not given
    default_period_ms: float = DEFAULT_PERIOD_MS  # where the task names no decision period

    def latency_limit_ms(self, period_ms: float | None = None) -> float | None:
        """The limit on the median latency, in milliseconds; None where the target sets none.

        Args:
            period_ms: > 0, time between two decisions of the task; None takes the target's default period.
        """
        if self.latency_ms is not None:
            return self.latency_ms
        if self.compute_share is None:
            return None
        return self.compute_share * (self.default_period_ms if period_ms is None else period_ms)


@dataclass(frozen=True)
class Hardware:
    """Figures that the cost model needs. Peaks are dense; rates are per second."""

    clock_mhz: float
    units: int  # streaming multiprocessors, or cores
    tops: Mapping[str, float]  # precision -> tera-operations per second (2 per multiply-accumulate)
    bandwidth_gbs: float
    cache_kib: int = 0
    core: str = ""  # cortex-m33, ...
    power_mode: str = ""  # clocks, units and bandwidth above are those of this mode
    ram_kib: int = 0  # 0 is not stated
    flash_kib: int = 0


@dataclass(frozen=True)
class Target:
    """One device with the runtime that its users have."""

    name: str
    device: str
    family: str  # nvidia-gpu, cortex-m, x86-cpu
    runtime: str  # tensorrt, c, onnxruntime
    runtime_version: str
    precision: Precision  # what the pipeline ships
    quantizer: str  # file of compress/qat
    opset: int  # of the exported ONNX
    width_multiple: int  # channels that the runtime's int8 kernels want
    builders: tuple[str, ...]  # files of exporters; the first that can run here builds the artifact
    checks: tuple[str, ...]  # files of exporters that always run beside it
    runners: tuple[str, ...]  # files of profiles/runners that can run its artifact
    compute_capability: str  # "" where there is none
    check_capability: str  # of the ahead-of-time check
    budget: Budget
    hardware: Hardware
    sources: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    description: str = ""
    latency: Mapping[str, Any] = field(default_factory=dict)  # constants of a calibration; see profiles.latency.models


_TABLES = ("target", "budget", "hardware", "source", "latency")
_NOT_IN_TABLE = {"name", "budget", "hardware", "sources", "latency"}  # of Target: the file's stem and the other tables
_Raw = dict[str, dict[str, Any]]


def names(search: Path | None = None) -> list[str]:
    """The targets there are, sorted: those of the package and those in `search`, with '_' as separator."""
    return sorted({_canonical(path.stem) for path in _files(search)})


def target(name: str, search: Path | None = None) -> Target:
    """Read one target.

    Args:
        name: a target's name or alias ('-' and '_' are the same, case does not matter), or a path ending in .toml.
        search: the user's folder; `<name>.toml` and `targets/<name>.toml` in it are found before the package's own.

    Raises:
        ProfileError: no such target, or its file is not valid: unknown key, wrong type, missing key, circular
            inheritance. The message names file and key.
    """
    path = _find(name, search)
    raw = _with_inheritance(path, search, ())
    return _checked(path, raw)


def _canonical(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _files(search: Path | None) -> Iterator[Path]:
    """Target files, the user's own first."""
    if search is not None:
        yield from sorted(path for path in Path(search).glob("targets/*.toml") if path.is_file())
        yield from sorted(path for path in Path(search).glob("*.toml") if path.is_file() and _looks_like_target(path))
    yield from sorted(FOLDER.glob("*.toml"))


def _looks_like_target(path: Path) -> bool:
    """Whether a TOML file in a user's folder (beside a pyproject.toml, recipes, ...) is meant as a target."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    lines = {line.split("#")[0].strip() for line in text.splitlines()}
    return "[hardware]" in lines or any(line.startswith("inherit") for line in lines)


def _find(name: str, search: Path | None, exclude: tuple[Path, ...] = ()) -> Path:
    if name.endswith(".toml"):
        path = Path(name) if search is None or Path(name).is_absolute() else Path(search) / name
        if not path.is_file():
            raise ProfileError(f"there is no target file {path}", fix="pass the path of an existing TOML file")
        return path
    wanted = _canonical(name)
    files = [path for path in _files(search) if path.resolve() not in exclude]
    for path in files:
        if _canonical(path.stem) == wanted:
            return path
    aliases: dict[str, Path] = {}
    for path in files:
        given = _load(path).get("target", {}).get("aliases", [])
        for alias in given if isinstance(given, list) else []:
            aliases.setdefault(_canonical(str(alias)), path)
    if wanted in aliases:
        return aliases[wanted]
    there = sorted({_canonical(path.stem) for path in files})
    close = difflib.get_close_matches(wanted, [*there, *aliases], n=3, cutoff=0.6)
    meant = f"; did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
    raise ProfileError(
        f"no target is called {name!r}; there are {', '.join(there)}{meant}",
        fix=f"pass one of these, or write targets/{wanted or 'name'}.toml in your project folder",
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is not valid TOML: {error}", fix="mend the line that it names") from error
    except OSError as error:
        raise ProfileError(
            f"{path} cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from error


def _with_inheritance(path: Path, search: Path | None, seen: tuple[Path, ...]) -> _Raw:
    here = path.resolve()
    if here in seen:
        chain = " -> ".join(step.stem for step in (*seen, here))
        raise ProfileError(f"{path} inherits from itself: {chain}", fix="remove one `inherit` of this circle")
    own = _load(path)
    parent = own.pop("inherit", None)
    for table, content in own.items():
        if table not in _TABLES:
            raise ProfileError(
                f"{path} has an unknown table or key {table!r}; there are inherit, {', '.join(_TABLES)}",
                fix=_spelling(table, _TABLES),
            )
        if not isinstance(content, dict):
            raise ProfileError(f"{path}: {table!r} is a {_kind(content)}, not a table", fix=f"write [{table}]")
    merged: _Raw = {table: dict(own.get(table, {})) for table in _TABLES}
    if parent is None:
        return merged
    if not isinstance(parent, str):
        raise ProfileError(f"{path}: inherit is a {_kind(parent)}, not a name", fix='write inherit = "a100"')
    # A user's jetson.toml may inherit from the package's jetson: files on the way here are passed over where another
    # of that name exists; where none does, it is a circle.
    try:
        parent_path = _find(parent, search, (*seen, here))
    except ProfileError:
        parent_path = _find(parent, search)
    base = _with_inheritance(parent_path, search, (*seen, here))
    base["target"].pop("aliases", None)
    for table in _TABLES:
        base[table].update(merged[table])
    return base


def _checked(path: Path, raw: _Raw) -> Target:
    budget = _record(path, "budget", Budget, raw["budget"], frozenset())
    hardware = _record(path, "hardware", Hardware, raw["hardware"], frozenset())
    for key, text in raw["source"].items():
        if not isinstance(text, str):
            raise ProfileError(
                f"{path}: [source] {key} is a {_kind(text)}, not text", fix="write where the figure is from"
            )
    values = _values(path, "target", Target, raw["target"], _NOT_IN_TABLE)
    made = Target(
        name=_canonical(path.stem),
        budget=budget,
        hardware=hardware,
        sources=dict(raw["source"]),
        latency=raw["latency"],
        **values,
    )
    _one_of(path, "family", made.family, FAMILIES)
    for key in hardware.tops:
        _one_of(path, "tops", key, RATES)
    positive = {
        "target.opset": made.opset,
        "target.width_multiple": made.width_multiple,
        "hardware.clock_mhz": hardware.clock_mhz,
        "hardware.units": hardware.units,
        "hardware.bandwidth_gbs": hardware.bandwidth_gbs,
        "budget.default_period_ms": budget.default_period_ms,
        **{f"hardware.tops.{key}": value for key, value in hardware.tops.items()},
        **{f"budget.{f.name}": v for f in fields(Budget) if (v := getattr(budget, f.name)) is not None},
    }
    for key, value in positive.items():
        if not (value > 0 and math.isfinite(value)):
            raise ProfileError(f"{path}: {key} is {value}; it must be positive and finite", fix="write the real figure")
    if budget.compute_share is not None and budget.compute_share > 1:
        raise ProfileError(f"{path}: budget.compute_share is {budget.compute_share}", fix="write a share in (0, 1]")
    if not hardware.tops:
        raise ProfileError(
            f"{path}: hardware.tops is empty", fix="write tops = { int8 = ... } in tera-operations per second"
        )
    return made


def _record(path: Path, table: str, of: type[Any], given: dict[str, Any], skip: frozenset[str]) -> Any:
    return of(**_values(path, table, of, given, skip))


def _values(
    path: Path, table: str, of: type[Any], given: dict[str, Any], skip: set[str] | frozenset[str]
) -> dict[str, Any]:
    """The table's values with the types of the dataclass `of`; every key is checked."""
    hints = get_type_hints(of)
    known = {f.name: f for f in fields(of) if f.name not in skip}
    for key in given:
        if key not in known:
            raise ProfileError(
                f"{path}: [{table}] has an unknown key {key!r}; there are {', '.join(known)}",
                fix=_spelling(key, tuple(known)),
            )
    missing = [name for name, f in known.items() if name not in given and f.default is MISSING]
    if missing:
        raise ProfileError(
            f"{path}: [{table}] lacks {', '.join(missing)}",
            fix='write the missing keys, or start from another target with inherit = "..." in the first line',
        )
    return {key: _typed(path, f"{table}.{key}", value, hints[key]) for key, value in given.items()}


def _typed(path: Path, key: str, value: Any, hint: Any) -> Any:
    """`value` as the type that an annotation above names."""
    text = str(hint)
    if get_origin(hint) is Literal:
        if isinstance(value, str):
            _one_of(path, key, value, get_args(hint))
            return value
        wanted = "a string"
    elif "tuple[str" in text:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        wanted = "a list of strings"
    elif "Mapping[str, float]" in text:
        if isinstance(value, dict) and all(_is_number(item) for item in value.values()):
            return {name: float(item) for name, item in value.items()}
        wanted = "a table of numbers"
    elif "str" in text:
        if isinstance(value, str):
            return value
        wanted = "a string"
    elif "float" in text:
        if _is_number(value):
            return float(value)
        wanted = "a number"
    else:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        wanted = "a whole number"
    raise ProfileError(f"{path}: {key} is a {_kind(value)}, not {wanted}", fix=f"write {wanted} there")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_of(path: Path, key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ProfileError(f"{path}: {key} is {value!r}; there are {', '.join(allowed)}", fix=_spelling(value, allowed))


def _spelling(given: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "remove it"


def _kind(value: Any) -> str:
    words = {bool: "boolean", int: "whole number", float: "number", str: "string", list: "list", dict: "table"}
    return words.get(type(value), type(value).__name__)
