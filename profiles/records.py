"""Records (frozen dataclasses) as JSON values and back, checked against their annotations.

What comes from another machine is data: every key must be known, every value of the type that the field names, every
number finite. Nothing is ever evaluated.
"""

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from profiles.errors import ProfileError

Record = TypeVar("Record")
_UNIONS = (Union, types.UnionType)
_DEEPEST = 32


def to_json(value: Any) -> Any:
    """A record, with all that is in it, as dictionaries, lists, numbers, strings and None."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: to_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[Record], data: Any) -> Record:
    """A record of `kind` from what `to_json` made of one.

    Raises:
        ProfileError: a key is unknown or missing, or a value is not of the type that the field names.
    """
    return cast(Record, _read(kind, data, kind.__name__, 0))


def _read(kind: Any, data: Any, where: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise _refused(where, data, "something less deep")
    origin, inside = get_origin(kind), get_args(kind)
    if kind is Any:
        return _plain(data, where, depth)
    if origin in _UNIONS:
        return _one_of(inside, data, where, depth)
    if origin is Literal:
        if data not in inside or isinstance(data, bool):
            raise _refused(where, data, f"one of {', '.join(map(str, inside))}")
        return data
    if is_dataclass(kind):
        return _record(cast("type[Any]", kind), data, where, depth)
    if origin is tuple:
        return _tuple(inside, data, where, depth)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(data, dict):
            raise _refused(where, data, "a table")
        return {key: _read(inside[1], item, f"{where}.{key}", depth + 1) for key, item in data.items()}
    return _scalar(kind, data, where)


def _record(kind: type[Any], data: Any, where: str, depth: int) -> Any:
    if not isinstance(data, dict):
        raise _refused(where, data, "a table")
    known = {item.name: item for item in fields(kind)}
    strange = sorted(set(data) - set(known))
    missing = sorted(
        name
        for name, item in known.items()
        if name not in data and item.default is MISSING and item.default_factory is MISSING
    )
    if strange or missing:
        what = f"an unknown key {strange[0]!r}" if strange else f"no {missing[0]}"
        raise ProfileError(f"{where} has {what}", fix="use the same version of this package on both machines")
    hints = get_type_hints(kind)
    return kind(**{name: _read(hints[name], item, f"{where}.{name}", depth + 1) for name, item in data.items()})


def _one_of(kinds: tuple[Any, ...], data: Any, where: str, depth: int) -> Any:
    if data is None and type(None) in kinds:
        return None
    refused: ProfileError | None = None
    for kind in kinds:
        if kind is not type(None):
            try:
                return _read(kind, data, where, depth + 1)
            except ProfileError as error:
                refused = error
    raise refused or _refused(where, data, "nothing")


def _tuple(inside: tuple[Any, ...], data: Any, where: str, depth: int) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise _refused(where, data, "a list")
    kinds = [inside[0]] * len(data) if len(inside) == 2 and inside[1] is Ellipsis else list(inside)
    if len(kinds) != len(data):
        raise _refused(where, data, f"a list of {len(kinds)}")
    pairs = enumerate(zip(kinds, data, strict=True))
    return tuple(_read(kind, item, f"{where}[{index}]", depth + 1) for index, (kind, item) in pairs)


def _scalar(kind: Any, data: Any, where: str) -> Any:
    if kind is float and isinstance(data, int | float) and not isinstance(data, bool):
        if not math.isfinite(data):
            raise _refused(where, data, "a finite number")
        return float(data)
    if kind is int and isinstance(data, int) and not isinstance(data, bool):
        return data
    if kind in (str, bool) and isinstance(data, kind):
        return data
    raise _refused(where, data, getattr(kind, "__name__", str(kind)))


def _plain(data: Any, where: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise _refused(where, data, "something less deep")
    if isinstance(data, dict):
        return {key: _plain(item, f"{where}.{key}", depth + 1) for key, item in data.items()}
    if isinstance(data, list):
        return [_plain(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(data)]
    if isinstance(data, float) and not math.isfinite(data):
        raise _refused(where, data, "a finite number")
    return data


def _refused(where: str, data: Any, wanted: str) -> ProfileError:
    return ProfileError(f"{where} is {str(data)[:60]!r}, not {wanted}", fix="measure again; the answer was damaged")
