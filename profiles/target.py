"""What a device is: one TOML file per target, read once and checked at the edge.

A file is found by its name in the user's own folder first, then among those that ship with the package. It may
`inherit = "other"`: tables are merged key by key, the file's own keys win; aliases are not inherited, and neither is
the source of a figure that the file states itself.

Peaks are written as `rate`, the operations of one processor per clock, or as `tops`, of the whole device. With `rate`,
tops = units * rate * clock: it follows the processors and the clock of a variant or a power mode.

A power mode switches processors off and lowers two clocks, so it sets units, clock_mhz and bandwidth_gbs together.
`[hardware]` is the mode that a name alone means; each `[mode.NAME]` is another one, asked for as "target:NAME". A file
that states one of these three figures in its own [hardware] describes another device: it inherits no modes.
"""

import copy
import difflib
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 11):
    import tomllib
else:  # JetPack 6 has Python 3.10
    import tomli as tomllib

from profiles.cost import Precision
from profiles.errors import ProfileError

FOLDER = Path(__file__).parent / "targets"
FAMILIES = ("nvidia-gpu", "cortex-m", "ethos-u", "riscv-cluster", "x86-cpu")
RATES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8")  # what hardware.tops and hardware.rate may name
OF_A_MODE = ("units", "clock_mhz", "bandwidth_gbs")  # of hardware: what every power mode states
DEFAULT_PERIOD_MS = 8.0  # one hop of a hearing aid's filter bank


@dataclass(frozen=True)
class Budget:
    """Limits at batch 1. None is no limit."""

    latency_ms: float | None = None  # median
    peak_activation_bytes: int | None = None
    weight_bytes: int | None = None
    macs: int | None = None
    energy_mj: float | None = None  # of one inference
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
    """Figures that the cost model needs. Peaks are dense, without 2:4 sparsity; 0 is not stated."""

    clock_mhz: float
    units: int  # streaming multiprocessors, or cores
    tops: Mapping[str, float]  # precision -> tera-operations per second (2 per multiply-accumulate)
    bandwidth_gbs: float
    rate: Mapping[str, float] = field(default_factory=dict)  # operations per unit and clock; {} where tops was given
    cache_kib: int = 0  # of the last level
    core: str = ""  # cortex-m33, ...
    power_mode: str = ""  # clocks, units and bandwidth above are those of this mode
    power_w: float = 0.0  # that the mode or the card is limited to
    uw_per_mhz: float = 0.0  # microwatts per MHz that a microcontroller draws while it works
    memory_gb: float = 0.0
    ram_kib: int = 0
    flash_kib: int = 0
    flash_gbs: float = 0.0  # of the memory that an NPU reads weights from
    dla_tops: float = 0.0  # int8, of the deep-learning accelerators beside the GPU; not part of `tops`


@dataclass(frozen=True)
class Target:
    """One device with the runtime that its users have."""

    name: str
    device: str
    family: str  # one of FAMILIES
    runtime: str  # tensorrt, c, onnxruntime
    runtime_version: str
    precision: Precision  # what the pipeline ships
    quantizer: str  # file of compress/qat: the number format that ships
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
    leftovers: Literal["fp32", "fp16", "bf16"] = "fp32"  # what the layers that are not quantised are written in
    aliases: tuple[str, ...] = ()
    description: str = ""
    latency: Mapping[str, Any] = field(default_factory=dict)  # constants of a calibration; see profiles.latency.models
    mode: str = ""  # power mode of `hardware`; "" where the device has one state only
    modes: Mapping[str, Hardware] = field(default_factory=dict)  # every power mode, the default first


_TABLES = ("target", "budget", "hardware", "mode", "source", "latency")
_NOT_IN_TABLE = frozenset({"name", "budget", "hardware", "sources", "latency", "mode", "modes"})  # of Target
_Raw = dict[str, dict[str, Any]]


def names(search: Path | None = None) -> list[str]:
    """The targets there are, sorted: those of the package and those in `search`, with '_' as separator."""
    return sorted({_canonical(path.stem) for path in _files(search)})


def target(name: str, search: Path | None = None) -> Target:
    """Read one target.

    Args:
        name: a target's name or alias ('-' and '_' are the same, case does not matter), or a path ending in .toml;
            after a colon the power mode: "jetson-agx-orin-64gb:30w".
        search: the user's folder; `<name>.toml` and `targets/<name>.toml` in it are found before the package's own.

    Raises:
        ProfileError: no such target or power mode, or its file is not valid: unknown key, wrong type, missing key,
            circular inheritance. The message names file and key.
    """
    return _shipped(name) if search is None and not _is_path(name) else _read(name, search)


@lru_cache(maxsize=256)  # files of the package do not change; a loop over students asks by name each time
def _shipped(name: str) -> Target:
    return _read(name, None)


def _read(name: str, search: Path | None) -> Target:
    plain, mode = _split(name)
    path = _find(plain, search)
    return _checked(path, _with_inheritance(path, search, ()), mode)


def _is_path(name: str) -> bool:
    return _split(name)[0].endswith(".toml")


def _canonical(name: str) -> str:
    return name.strip().lower().replace("-", "_")


def _split(name: str) -> tuple[str, str]:
    """The name and the power mode behind its colon; "" where there is none. A drive's colon is part of a path."""
    plain, colon, mode = name.rpartition(":")
    if not colon or len(plain) < 2 or mode.endswith(".toml"):
        return name, ""
    return plain, _mode_name(mode)


def _mode_name(text: str) -> str:
    return _canonical(text).replace(" ", "")


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
    if _is_path(name):
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
        fix=f"pass one of these, or write targets/{wanted or 'name'}.toml in your project folder"
        + (" and pass search=that folder" if search is None else ""),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        stat = path.stat()
        return copy.deepcopy(_parsed(path, stat.st_mtime_ns, stat.st_size))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path} is not valid TOML: {error}", fix="mend the line that it names") from error
    except OSError as error:
        raise ProfileError(
            f"{path} cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from error


@lru_cache(maxsize=256)  # finding an alias reads every file
def _parsed(path: Path, changed_ns: int, size: int) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _with_inheritance(path: Path, search: Path | None, seen: tuple[Path, ...]) -> _Raw:
    here = path.resolve()
    if here in seen:
        chain = " -> ".join(step.stem for step in (*seen, here))
        raise ProfileError(f"{path} inherits from itself: {chain}", fix="remove one `inherit` of this circle")
    given = _load(path)
    parent = given.pop("inherit", None)
    for table, content in given.items():
        if table not in _TABLES:
            raise ProfileError(
                f"{path} has an unknown table or key {table!r}; there are inherit, {', '.join(_TABLES)}",
                fix=_spelling(table, _TABLES),
            )
        if not isinstance(content, dict):
            raise ProfileError(f"{path}: {table!r} is a {_kind(content)}, not a table", fix=f"write [{table}]")
    own: _Raw = {table: given.get(table, {}) for table in _TABLES}
    own["mode"] = {_mode_name(name): content for name, content in own["mode"].items()}
    for name, content in own["mode"].items():
        if not isinstance(content, dict):
            raise ProfileError(f"{path}: mode.{name} is a {_kind(content)}, not a table", fix=f"write [mode.{name}]")
    if parent is None:
        return own
    if not isinstance(parent, str):
        raise ProfileError(f"{path}: inherit is a {_kind(parent)}, not a name", fix='write inherit = "a100"')
    plain, mode = _split(parent)
    if path.parent == FOLDER:  # a user's jetson.toml is that device, and not what the package's others begin with
        search = None
    # A user's jetson.toml may inherit from the package's jetson: files on the way here are passed over where another
    # of that name exists; where none does, it is a circle.
    try:
        parent_path = _find(plain, search, (*seen, here))
    except ProfileError:
        parent_path = _find(plain, search)
    base = _in_mode(parent_path, _with_inheritance(parent_path, search, (*seen, here)), mode)
    return _merged(base, own)


def _merged(base: _Raw, own: _Raw) -> _Raw:
    """The parent's tables with the file's own keys laid over them."""
    base["target"].pop("aliases", None)
    for stated, other in (("tops", "rate"), ("rate", "tops")):
        if stated in own["hardware"]:
            base["hardware"].pop(other, None)
    if any(key in own["hardware"] for key in OF_A_MODE):
        base["mode"] = {}
    for table in ("target", "budget", "hardware"):
        for key in own[table]:
            base["source"].pop(key, None)  # it is the source of the parent's figure
    for name, content in own.pop("mode").items():
        table = base["mode"].setdefault(name, {})
        table.pop("source", None)
        table.update(content)
    for name, content in own.items():
        base[name].update(content)
    return base


def _in_mode(path: Path, raw: _Raw, mode: str) -> _Raw:
    """The tables with one power mode's figures in [hardware]; they keep no other mode, except where `mode` is ""."""
    if not mode:
        return raw
    default = _mode_name(str(raw["hardware"].get("power_mode", "")))
    if mode != default:
        if mode not in raw["mode"]:
            there = ", ".join(name for name in (default, *raw["mode"]) if name)
            raise ProfileError(
                f"{_canonical(path.stem)} has no power mode {mode!r}; there are {there or 'none'}",
                fix=f"pass one of these after the colon, or write [mode.{mode}] in a target file of your own",
            )
        figures = dict(raw["mode"][mode])
        source = figures.pop("source", None)
        raw["hardware"].update({"power_mode": mode} | figures)
        for key in figures:
            raw["source"].pop(key, None)
        if source is not None:
            raw["source"].update(dict.fromkeys(figures, source))
    raw["mode"] = {}
    return raw


def _checked(path: Path, raw: _Raw, mode: str) -> Target:
    budget = _record(path, "budget", Budget, raw["budget"])
    modes = _modes(path, raw)
    chosen = _in_mode(path, copy.deepcopy(raw), mode)
    hardware = _hardware(path, "hardware", chosen["hardware"])
    values = _values(path, "target", Target, raw["target"], _NOT_IN_TABLE)
    default = _mode_name(str(raw["hardware"].get("power_mode", "")))
    name = _canonical(path.stem)
    made = Target(
        name=name if mode in ("", default) else f"{name}:{mode}",
        budget=budget,
        hardware=hardware,
        sources=_sources(path, chosen["source"], hardware),
        latency=_latency(path, raw["latency"]),
        mode=mode or default,
        modes=modes,
        **values,
    )
    _one_of(path, "family", made.family, FAMILIES)
    positive = {
        "target.opset": made.opset,
        "target.width_multiple": made.width_multiple,
        "budget.default_period_ms": budget.default_period_ms,
        **{f"budget.{f.name}": v for f in fields(Budget) if (v := getattr(budget, f.name)) is not None},
    }
    _positive(path, positive)
    if budget.compute_share is not None and budget.compute_share > 1:
        raise ProfileError(f"{path}: budget.compute_share is {budget.compute_share}", fix="write a share in (0, 1]")
    return made


def _modes(path: Path, raw: _Raw) -> dict[str, Hardware]:
    """Every power mode with all of its figures, the default first."""
    default = _mode_name(str(raw["hardware"].get("power_mode", "")))
    if default in raw["mode"]:
        raise ProfileError(
            f"{path}: [mode.{default}] is the power mode that [hardware] describes", fix="keep one of the two"
        )
    if raw["mode"] and not default:
        raise ProfileError(
            f"{path}: [hardware] does not say which power mode it describes", fix='write power_mode = "maxn" there'
        )
    found = {default: _hardware(path, "hardware", raw["hardware"])} if default else {}
    for name, content in raw["mode"].items():
        figures = {key: value for key, value in content.items() if key != "source"}
        found[name] = _hardware(path, f"mode.{name}", raw["hardware"] | {"power_mode": name} | figures)
        missing = [key for key in OF_A_MODE if key not in content]
        if missing:
            raise ProfileError(
                f"{path}: [mode.{name}] lacks {', '.join(missing)}; a power mode sets the processors that are on, "
                "their clock and the memory's",
                fix="write the missing keys",
            )
        source = content.get("source", "")
        if not isinstance(source, str):
            raise ProfileError(f"{path}: mode.{name}.source is a {_kind(source)}, not text", fix="write a text there")
    return found


def _hardware(path: Path, table: str, given: dict[str, Any]) -> Hardware:
    """The figures of [hardware] or of one mode, with tops worked out where rates are given."""
    given = dict(given)
    if "rate" in given and "tops" in given:
        raise ProfileError(
            f"{path}: [{table}] has both rate and tops", fix="keep rate: tops = units * rate * clock follows from it"
        )
    rate = _typed(path, f"{table}.rate", given.get("rate", {}), "Mapping[str, float]")
    units, clock = given.get("units"), given.get("clock_mhz")
    if rate:
        known = _is_number(units) and _is_number(clock)  # else the record's own check says what is wrong with them
        given["tops"] = {name: units * value * clock / 1e6 for name, value in rate.items()} if known else {}
    made: Hardware = _record(path, table, Hardware, given)
    for key in made.tops:
        _one_of(path, "tops", key, RATES)
    _positive(
        path,
        {f"{table}.{key}": getattr(made, key) for key in OF_A_MODE}
        | {f"{table}.rate.{key}": value for key, value in rate.items()}
        | {f"{table}.tops.{key}": value for key, value in made.tops.items()},
    )
    for key in ("cache_kib", "power_w", "uw_per_mhz", "memory_gb", "ram_kib", "flash_kib", "flash_gbs", "dla_tops"):
        value = getattr(made, key)
        if not (value >= 0 and math.isfinite(value)):
            raise ProfileError(f"{path}: {table}.{key} is {value}; it cannot be negative", fix="write the real figure")
    if not made.tops:
        raise ProfileError(
            f"{path}: hardware.tops is empty",
            fix="write rate = { int8 = ... } in operations per processor and clock, or tops in tera-operations per "
            "second",
        )
    return made


def _sources(path: Path, given: dict[str, Any], hardware: Hardware) -> dict[str, str]:
    for key, text in given.items():
        if not isinstance(text, str):
            raise ProfileError(
                f"{path}: [source] {key} is a {_kind(text)}, not text", fix="write where the figure is from"
            )
    sources = dict(given)
    if hardware.rate and "rate" in sources:
        sources["tops"] = f"{hardware.units} x rate x {hardware.clock_mhz:g} MHz; rate: {sources['rate']}"
    return sources


def _latency(path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """The table of a calibration. Which constants there are is the latency model's business, not this file's."""
    for key, value in given.items():
        if key == "origin":
            if not isinstance(value, str):
                raise ProfileError(
                    f"{path}: latency.origin is a {_kind(value)}, not text", fix="write how the constants were obtained"
                )
        elif key == "interval":
            pair = value if isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)) else [0, 0]
            if not (0 < pair[0] <= pair[1] and math.isfinite(pair[1])):
                raise ProfileError(
                    f"{path}: latency.interval is {value}; it is two positive factors on the prediction, low and high",
                    fix="write interval = [0.8, 1.3], or calibrate again",
                )
        else:
            numbers = value if isinstance(value, list) and value else [value]
            if not all(map(_is_number, numbers)):
                raise ProfileError(f"{path}: latency.{key} is a {_kind(value)}, not a number", fix="calibrate it again")
            if not all(number >= 0 and math.isfinite(number) for number in numbers):
                raise ProfileError(
                    f"{path}: latency.{key} is {value}; it must be finite and not negative", fix="calibrate it again"
                )
    return given


def _positive(path: Path, figures: Mapping[str, float]) -> None:
    for key, value in figures.items():
        if not (value > 0 and math.isfinite(value)):
            raise ProfileError(f"{path}: {key} is {value}; it must be positive and finite", fix="write the real figure")


def _record(path: Path, table: str, of: type[Any], given: dict[str, Any]) -> Any:
    return of(**_values(path, table, of, given, frozenset()))


def _values(path: Path, table: str, of: type[Any], given: dict[str, Any], skip: frozenset[str]) -> dict[str, Any]:
    """The table's values with the types of the dataclass `of`; every key is checked."""
    hints = get_type_hints(of)
    known = {f.name: f for f in fields(of) if f.name not in skip}
    for key in given:
        if key not in known:
            raise ProfileError(
                f"{path}: [{table}] has an unknown key {key!r}; there are {', '.join(known)}",
                fix=_spelling(key, tuple(known)),
            )
    missing = [
        name for name, f in known.items() if name not in given and f.default is MISSING and f.default_factory is MISSING
    ]
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
