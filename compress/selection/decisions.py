"""Plans of any space as named decisions: for what proposes values one by one and knows no space.

A plan's JSON is flattened: a number or a name under its path, a list of numbers as its length and its entries, a list
of distinct names (blocks left out) as one yes or no per name. Which values a decision has is learned from plans that
are at hand. A proposal is not turned back into JSON: the plan nearest to it is looked for, first among the known ones,
then by mutations of the space itself, so that every answer is a plan of the space, whatever its rules are.
"""

import random
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from compress.contracts.selector import Candidate
from compress.contracts.space import Space
from compress.selection.ranking import capacity

Value = str | int | float | bool | None
Decisions = Mapping[str, Value]

SPACE = "space"  # the first decision
CAPACITY = "capacity"  # not a decision but what decisions make: of candidates that were costed
STEPS = 120  # mutations that are tried on the way to a proposal
LENGTH = "length"


def flat(data: Any, path: str, sets: Container[str]) -> dict[str, Value]:
    """Values by path.

    Args:
        data: JSON: nested mappings and lists of strings, numbers, truth values and null.
        path: in front of every name.
        sets: paths whose lists count as sets of names.
    """
    if isinstance(data, Mapping):
        found: dict[str, Value] = {}
        for key, value in data.items():
            found |= flat(value, f"{path}.{key}", sets)
        return found
    if isinstance(data, list | tuple):
        if path in sets:
            return {f"{path}.{entry}": True for entry in data}
        found = {f"{path}.{LENGTH}": len(data)}
        for place, value in enumerate(data):
            found |= flat(value, f"{path}.{place}", sets)
        return found
    return {path: data}


def name_lists(data: Any, path: str) -> dict[str, list[str]]:
    """Lists that hold names alone (empty ones, too), by path."""
    if isinstance(data, Mapping):
        found: dict[str, list[str]] = {}
        for key, value in data.items():
            found |= name_lists(value, f"{path}.{key}")
        return found
    if isinstance(data, list | tuple) and all(isinstance(entry, str) for entry in data):
        return {path: [str(entry) for entry in data]}
    return {}


@dataclass(frozen=True)
class Domain:
    """The values that one decision was seen to have.

    Attributes:
        values: ascending where they are numbers.
        ordered: they are numbers.
    """

    values: tuple[Value, ...]
    ordered: bool

    @cached_property
    def _places(self) -> dict[tuple[bool, Value], int]:
        return {(isinstance(value, bool), value): place for place, value in enumerate(self.values)}

    def place(self, value: Value) -> int | None:
        """Where the value stands; the nearest number where it was not seen; None for a name that was not seen."""
        known = self._places.get((isinstance(value, bool), value))
        if known is not None or not self.ordered or not isinstance(value, int | float):
            return known
        number = value
        return min(range(len(self.values)), key=lambda place: abs(_number(self.values[place]) - number))

    def apart(self, one: Value, other: Value) -> float:
        """0 for the same value, 1 for the farthest apart."""
        first, second = self.place(one), self.place(other)
        if first is None or second is None:
            return float(not _same(one, other))
        if not self.ordered:
            return float(first != second)
        return abs(first - second) / max(1, len(self.values) - 1)


def _number(value: Value) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _same(one: Value, other: Value) -> bool:
    return one == other and isinstance(one, bool) == isinstance(other, bool)


class Vocabulary:
    """The decisions of a set of plans.

    Attributes:
        domains: by name, in a fixed order; decisions that were never taken differently are left out.
    """

    def __init__(self, plans: Sequence[tuple[str, Any]]) -> None:
        """
        Args:
            plans: (space, plan), as many as there are.
        """
        lists: dict[str, list[list[str]]] = {}
        for space, plan in plans:
            for path, names in name_lists(plan.to_json(), space).items():
                lists.setdefault(path, []).append(names)
        # A list in which a name comes twice says what stands where; any other says which are there.
        self._sets = {
            path for path, seen in lists.items() if any(seen) and all(len(set(names)) == len(names) for names in seen)
        }
        self._members: dict[str, list[str]] = {}
        for path in sorted(self._sets):
            names = sorted({name for seen in lists[path] for name in seen})
            self._members.setdefault(path.partition(".")[0], []).extend(f"{path}.{name}" for name in names)
        values: dict[str, list[Value]] = {}
        for space, plan in plans:
            for name, value in self.of(space, plan).items():
                known = values.setdefault(name, [])
                if not any(_same(value, other) for other in known):
                    known.append(value)
        self.domains: dict[str, Domain] = {}
        for name in sorted(values, key=lambda name: (name != SPACE, not name.endswith(f".{LENGTH}"), name)):
            if len(values[name]) < 2:
                continue
            ordered = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values[name])
            self.domains[name] = Domain(tuple(sorted(values[name], key=_number if ordered else repr)), ordered)

    def of(self, space: str, plan: Any) -> dict[str, Value]:
        """A plan's decisions, that of its space first."""
        found = flat(plan.to_json(), space, self._sets)
        absent: dict[str, Value] = {name: False for name in self._members.get(space, ()) if name not in found}
        return {SPACE: space, **found, **absent}

    def asked(self, name: str, before: Decisions, space: str) -> bool:
        """Whether a decision comes up after these: it belongs to the space, and to lists that are long enough."""
        if name == SPACE or not name.startswith(f"{space}."):
            return False
        parts = name.split(".")
        for place, part in enumerate(parts):
            length = before.get(".".join((*parts[:place], LENGTH)))
            if part.isdigit() and isinstance(length, int) and int(part) >= length:
                return False
        return True

    def apart(self, one: Decisions, other: Decisions) -> float:
        """How many decisions differ, those of a number by how much; infinite between two spaces."""
        if one.get(SPACE) != other.get(SPACE):
            return float("inf")
        total = 0.0
        for name, domain in self.domains.items():
            if name in one and name in other:
                total += domain.apart(one[name], other[name])
            elif name in one or name in other:
                total += 1.0
        return total


def capacity_range(candidates: Sequence[Candidate]) -> tuple[float, float]:
    """Least and largest capacity, never equal."""
    sizes = [capacity(candidate.cost) for candidate in candidates]
    return (min(sizes), max(max(sizes), min(sizes) + 1e-6))


def nearest(
    vocabulary: Vocabulary,
    wanted: Decisions,
    candidates: Sequence[Candidate],
    sizes: tuple[float, float],
    weight: float,
) -> Candidate:
    """The candidate whose decisions, and whose capacity where `wanted` has one, are nearest.

    Args:
        wanted: may lack decisions, and may have `CAPACITY`.
        candidates: at least one. Those of another space are taken only where there is none of the wanted one.
        sizes: `capacity_range` of the pool.
        weight: of the capacity, in decisions.
    """

    def distance(candidate: Candidate) -> tuple[float, float, str]:
        apart = vocabulary.apart(wanted, vocabulary.of(candidate.space, candidate.plan))
        size = 0.0
        if CAPACITY in wanted:
            size = weight * abs(capacity(candidate.cost) - _number(wanted[CAPACITY])) / (sizes[1] - sizes[0])
        return (apart + size, size, candidate.identity)

    return min(candidates, key=distance)


def walk(
    vocabulary: Vocabulary, wanted: Decisions, space: Space[Any], name: str, start: Any, rng: random.Random
) -> Any:
    """The plan that mutations of `start` lead to when each has to come nearer to `wanted`.

    Args:
        name: of the space.
    """
    plan, left = start, vocabulary.apart(wanted, vocabulary.of(name, start))
    for _ in range(STEPS):
        if left <= 0.0:
            break
        other = space.mutate(plan, rng)
        distance = vocabulary.apart(wanted, vocabulary.of(name, other))
        if distance < left:
            plan, left = other, distance
    return plan
