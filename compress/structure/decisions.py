"""Plans as decisions: what the student spaces do alike with them, whatever they decide."""

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from compress.contracts.space import Space, SpaceContext
from compress.errors import RecipeError

P = TypeVar("P")
T = TypeVar("T")

ITEMS: Mapping[type, type] = {tuple: int, list: str}  # what lists of these two kinds hold


def stable_hash(data: Mapping[str, Any]) -> int:
    """Of a plan's JSON, in [0, 2^56): the same in every process, where Python salts the hashes of texts."""
    return int.from_bytes(hashlib.sha256(json.dumps(data).encode()).digest()[:7], "big")


def exchanged(values: tuple[T, ...], place: int, value: T) -> tuple[T, ...]:
    """`values` with another one at `place`."""
    return (*values[:place], value, *values[place + 1 :])


def others(offered: Iterable[T], present: T) -> list[T]:
    """What a decision could be instead."""
    return [value for value in offered if value != present]


def steps(offered: Sequence[int], present: int) -> list[int]:
    """The values next to `present` among those that are offered in ascending order."""
    place = offered.index(present)
    return [offered[other] for other in (place - 1, place + 1) if 0 <= other < len(offered)]


def one_of(neighbours: Iterable[Sequence[P]], plan: P, rng: random.Random) -> P:
    """A plan of `neighbours`, which has one list per decision: each decision is as likely, then each value of it.

    Where there is no other plan at all, `plan` itself.
    """
    possible = [plans for plans in neighbours if plans]
    return rng.choice(rng.choice(possible)) if possible else plan


def inherited(one: tuple[T, ...], other: tuple[T, ...], count: int, rng: random.Random) -> tuple[T, ...]:
    """`count` values, each of either parent that has one at its place. At least one parent has `count`."""
    return tuple(
        rng.choice([parent[place] for parent in (one, other) if place < len(parent)]) for place in range(count)
    )


def checked(space: str, data: Mapping[str, Any], kinds: Mapping[str, type]) -> dict[str, Any]:
    """The decisions of a stored plan; lists become tuples.

    Args:
        space: for the message.
        data: what was read from a file.
        kinds: decision -> str, int or bool; tuple for a list of whole numbers, list for one of names; object for what
            the space checks itself.

    Raises:
        RecipeError: a decision is missing or unknown, or is of another type.
    """
    fix = "take the plan from candidates.json of a run as it stands there"
    if set(data) != set(kinds):
        found = ", ".join(map(str, data)) or "none"
        raise RecipeError(f"a plan of {space} has the keys {', '.join(kinds)}; this one has {found}", fix=fix)
    for key, kind in kinds.items():
        value, items = data[key], ITEMS.get(kind)
        if items is None and kind is not object and type(value) is not kind:
            raise RecipeError(f"a plan of {space} has {key} = {value!r}, which is no {kind.__name__}", fix=fix)
        if items is not None and not (isinstance(value, list | tuple) and all(type(item) is items for item in value)):
            raise RecipeError(f"a plan of {space} has {key} = {value!r}, no list of {items.__name__}", fix=fix)
    return {key: tuple(data[key]) if kind in ITEMS else data[key] for key, kind in kinds.items()}


def refuse(space: str, wrong: str | None) -> None:
    """Refuse a stored plan that another target or task has made.

    Raises:
        RecipeError: `wrong` says what is wrong with it.
    """
    if wrong:
        raise RecipeError(f"a plan of {space} {wrong}", fix="take a plan that was made for the same target and task")


def odd_value(plan: object, offered: Mapping[str, Iterable[object]]) -> str | None:
    """What is wrong with the first decision whose value is not on offer; None where each is."""
    for name, values in offered.items():
        if (found := getattr(plan, name)) not in (known := tuple(values)):
            return f"has {name} {found!r}; here there are {listed(known)}"
    return None


def once_per_example(space: str, context: SpaceContext) -> None:
    """Refuse a task that wants an answer for every position, where the context says so.

    Raises:
        RecipeError: the teacher's answers have more than one axis.
    """
    if len(context.answer) > 1:
        raise RecipeError(
            f"students of {space} give {context.outputs} numbers per example; this task's answers are {context.answer}",
            fix="choose the space 'unet', which answers every position, or 'derived'",
        )


def map_or_signal(space: str, context: SpaceContext) -> tuple[int, ...]:
    """Shape of one example's features, (C, H, W) or (C, L), for spaces of convolutions.

    Raises:
        RecipeError: it is another, or the task wants an answer for every position.
    """
    once_per_example(space, context)
    shape = tuple(context.features.shape[1:])
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise RecipeError(
            f"the space {space} takes features (B, C, H, W) or (B, C, L); here they are"
            f" {tuple(context.features.shape)}",
            fix="choose the space 'derived', which scales the teacher itself, or give the task a front-end that"
            " makes an image or a signal",
        )
    return shape


def made_for(name: str, kind: type[Space[Any]], context: SpaceContext) -> Space[Any]:
    """The space for this context.

    Raises:
        RecipeError: the front-end gives integers or several tensors and the space takes none, or the space refuses.
    """
    given = (context.features, *context.more)
    if not kind.tokens and (len(given) > 1 or not context.features.is_floating_point()):
        found = listed(f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for tensor in given)
        raise RecipeError(
            f"students of {name} take one tensor of real numbers; the front-end gives {found}",
            fix="choose a space for tokens, such as 'token_encoder', or let the task's front-end make one real tensor",
        )
    return kind(context)


def listed(values: Iterable[Any]) -> str:
    """For messages."""
    return ", ".join(map(str, values))
