"""Plain data to frozen dataclasses, refusing what does not fit; used for recipes and project files."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from compress.errors import RecipeError

T = TypeVar("T")


def read(kind: type[T], data: Mapping[str, Any], where: str, prefix: str = "") -> T:
    """Build `kind` from `data`, section by section.

    Args:
        kind: a dataclass whose fields are numbers, strings, paths, tuples, mappings or further such dataclasses.
        data: as TOML gives it.
        where: the file's name, for messages.
        prefix: of the keys, for messages: "distill." and so on.

    Raises:
        RecipeError: an unknown key (with the keys there are), or a value of another type.
    """
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in data.items():
        if key not in known:
            raise RecipeError(
                f"{where} has the unknown key '{prefix}{key}'; "
                f"there are {', '.join(sorted(prefix + name for name in known))}",
                fix=_suggest(key, list(known), prefix),
            )
        values[key] = _value(hints[key], value, where, prefix + key)
    missing = [
        name
        for name, field in known.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{where} lacks '{prefix}{missing[0]}'", fix=f"add {missing[0]} = ... to it")
    return kind(**values)


def _suggest(key: str, known: list[str], prefix: str) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean '{prefix}{close[0]}'?" if close else "remove it, or see `compress init` for every key"


def _value(hint: Any, value: Any, where: str, key: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        if len(options) == 1:
            return _value(options[0], value, where, key)
        for option in options:
            if isinstance(value, option) and not (isinstance(value, bool) and option is not bool):
                return value
        raise _wrong(where, key, " or ".join(o.__name__ for o in options), value)
    if origin is typing.Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise _wrong(where, key, "one of " + ", ".join(repr(c) for c in choices), value)
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise _wrong(where, key, "a table", value)
        return read(hint, value, where, key + ".")
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise _wrong(where, key, "a list", value)
        element = typing.get_args(hint)[0]
        return tuple(_value(element, item, where, f"{key}[{i}]") for i, item in enumerate(value))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(where, key, "a table", value)
        element = typing.get_args(hint)[1]
        return {name: _value(element, item, where, f"{key}.{name}") for name, item in value.items()}
    return _plain(hint, value, where, key)


def _plain(hint: Any, value: Any, where: str, key: str) -> Any:
    if hint is Any:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (str, bool) and isinstance(value, hint):
        return value
    raise _wrong(
        where,
        key,
        {float: "a number", int: "a whole number", Path: "a path", str: "a text"}.get(hint, "true or false"),
        value,
    )


def _wrong(where: str, key: str, wanted: str, value: object) -> RecipeError:
    return RecipeError(f"{where}: '{key}' must be {wanted}, and is {value!r}", fix=f"write {key} as {wanted}")
