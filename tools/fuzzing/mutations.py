"""Seeded damage to bytes, to texts and to trees of plain data."""

import copy
from typing import Any

from tools.fuzzing.kind import Rng

INTEGERS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    128,
    255,
    256,
    65535,
    1 << 31,
    (1 << 31) - 1,
    1 << 32,
    (1 << 63) - 1,
    -(1 << 63),
    1 << 70,
)
NUMBERS = (0.0, -0.0, 1e-320, 1e308, -1e308, float("inf"), float("-inf"), float("nan"), 0.5, 3)
TEXTS = (
    "",
    " ",
    "\0",
    "../../etc/passwd",
    "/etc/passwd",
    "a" * 10_000,
    "💥",
    "\u202e",
    "$(touch /tmp/x)",
    "; rm -rf /",
    "<script>alert(1)</script>",
    "%s%n",
    "-1",
    "NaN",
    "null",
    "__class__",
)


def of_bytes(data: bytes, rng: Rng) -> bytes:
    """One to four flips, cuts, removals, insertions, repeats, or overwritten integers."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            return data
        where = rng.randrange(len(data))
        # Headers decide most, so half of the damage is done near the beginning.
        where = where if rng.random() < 0.5 else min(where, rng.randrange(1, 128))
        size = rng.choice((1, 2, 4, 8, 64))
        match rng.randrange(7):
            case 0:
                data = data[:where] + bytes([data[where] ^ 1 << rng.randrange(8)]) + data[where + 1 :]
            case 1:
                data = data[:where]
            case 2:
                data = data[:where] + data[where + size :]
            case 3:
                data = data[:where] + rng.randbytes(size) + data[where:]
            case 4:
                data = data[:where] + data[where : where + size] * rng.choice((2, 100)) + data[where:]
            case 5:
                width = rng.choice((1, 2, 4, 8))
                value = rng.choice(INTEGERS) % (1 << 8 * width)
                data = data[:where] + value.to_bytes(width, rng.choice(("little", "big"))) + data[where + width :]
            case _:
                data = data + rng.randbytes(size)
    return data


def of_text(text: str, rng: Rng) -> bytes:
    """Damage to a text: as bytes, or lines dropped, doubled, swapped, or a word replaced by a hostile one."""
    lines = text.splitlines(keepends=True)
    match rng.randrange(5):
        case 0:
            return of_bytes(text.encode(), rng)
        case 1 if lines:
            lines.pop(rng.randrange(len(lines)))
        case 2 if lines:
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
        case 3 if lines:
            rng.shuffle(lines)
        case _ if lines:
            number = rng.randrange(len(lines))
            words = lines[number].split(" ")
            words[rng.randrange(len(words))] = rng.choice((*TEXTS, str(rng.choice(INTEGERS)), "[]", "{}", '"'))
            lines[number] = " ".join(words) + "\n"
    return "".join(lines).encode("utf-8", "surrogatepass")


def of_tree(value: Any, rng: Rng) -> Any:
    """A copy of plain data in which one to three places hold something else, or are gone, or doubled."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return anything(rng)
        holder, key = rng.choice(places)
        match rng.randrange(6):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice((*TEXTS, "name", "extra"))] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case 3:
                holder[key] = _near(holder[key], rng)
            case _:
                holder[key] = anything(rng)
    return value


def anything(rng: Rng, depth: int = 0) -> Any:
    """Plain data of any kind."""
    kind = rng.randrange(8 if depth < 2 else 6)
    if kind == 6:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(3))]
    if kind == 7:
        return {rng.choice(TEXTS): anything(rng, depth + 1) for _ in range(rng.randrange(3))}
    return (rng.choice(INTEGERS), rng.choice(NUMBERS), rng.choice(TEXTS), True, False, None)[kind]


def _near(value: Any, rng: Rng) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, -value, value * 1_000_000, rng.choice(INTEGERS)))
    if isinstance(value, float):
        return rng.choice((-value, value * 1e9, rng.choice(NUMBERS)))
    if isinstance(value, str):
        return rng.choice((value.upper(), value[:-1], value + " ", value * 3, rng.choice(TEXTS)))
    return type(value)() if isinstance(value, list | dict) else value


def _places(value: Any) -> Any:
    """Every (holder, key) in a tree."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)
