"""What the result follows from: task, target, recipe, versions, seeds, hashes, and how long it took."""

from collections.abc import Mapping, Sequence
from typing import Any

from compress.page import numbers
from compress.page.html import Markup, details, facts, join, table, tag
from compress.page.reading import Row, number, part, rows, word


def origins(content: Row) -> Markup | None:
    """Everything that somebody needs who wants the same again."""
    found, task, target = part(content, "provenance"), part(content, "task"), part(content, "target")
    stages = rows(content, "stages")
    blocks: list[object] = []
    if task or target:
        blocks.append(tag("div", _task(task), _target(target), cls="columns"))
    if found:
        blocks.append(tag("div", _machine(found), _packages(found), cls="columns"))
    if stages:
        blocks.append(_stages(stages))
    environment = part(found, "environment")
    if environment:
        blocks.append(details(f"All packages that were loaded ({len(environment)})", facts(list(environment.items()))))
    identities = part(found, "identities")
    if identities:
        listed = [(name, tag("code", value)) for name, value in identities.items()]
        blocks.append(details("Hashes of data, teacher and target", facts(listed)))
    recipe = part(found, "recipe")
    if recipe:
        blocks.append(details("The whole recipe", _nested(recipe)))
    sources = part(target, "sources")
    if sources:
        blocks.append(details(f"Where the target's figures come from ({len(sources)})", facts(list(sources.items()))))
    return join(blocks) if blocks else None


def _task(task: Row) -> Markup:
    labels = task.get("labels")
    examples = task.get("examples")
    known: list[tuple[str, object]] = [
        ("task", f"{word(task, 'name', numbers.NOTHING)} ({word(task, 'kind', 'kind not stated')})"),
        ("metric", word(task, "metric", numbers.NOTHING)),
        ("input", _inputs(rows(task, "inputs"))),
        ("preprocessing", word(task, "preprocessing") or "none"),
        ("data", _plain(examples)),
    ]
    if isinstance(labels, list):
        some = ", ".join(str(label) for label in labels[:20]) + (", …" if len(labels) > 20 else "")
        known.append((f"{len(labels)} outputs", some))
    return tag("div", tag("h3", "Task"), facts(known))


def _inputs(inputs: Sequence[Row]) -> str:
    """Shapes; names and types too where there are several inputs, or another type than usual."""
    told = []
    for one in inputs:
        shape = one.get("shape")
        size = " × ".join(str(n) for n in shape) if isinstance(shape, list) else numbers.NOTHING
        plain = len(inputs) == 1 and word(one, "type") in ("", "float32")
        told.append(size if plain else f"{word(one, 'name')}: {size} {word(one, 'type')}")
    return ", ".join(told) or numbers.NOTHING


def _target(target: Row) -> Markup:
    known: list[tuple[str, object]] = [
        ("target", word(target, "name", numbers.NOTHING)),
        ("device", word(target, "device", numbers.NOTHING)),
        ("description", word(target, "description") or numbers.NOTHING),
        ("runtime", f"{word(target, 'runtime')} {word(target, 'runtime_version')}".strip() or numbers.NOTHING),
        ("quantiser", word(target, "quantizer", numbers.NOTHING)),
    ]
    return tag("div", tag("h3", "Target"), facts(known))


def _machine(found: Row) -> Markup:
    names = {
        "compress": "compress",
        "git": "git revision",
        "seed": "seed",
        "python": "python",
        "platform": "platform",
        "cpu_capability": "CPU capability",
        "threads": "threads",
    }
    known = [(title, word(found, key, "not known")) for key, title in names.items() if key in found]
    known += [
        (key.replace("_", " "), _plain(value))
        for key, value in found.items()
        if key not in names and key not in ("packages", "environment", "recipe", "identities")
    ]
    return tag("div", tag("h3", "Made with"), facts(known))


def _packages(found: Row) -> Markup:
    packages = part(found, "packages")
    known = [(name, "not installed" if version is None else version) for name, version in packages.items()]
    return tag("div", tag("h3", "Packages"), facts(known)) if known else Markup("")


def _stages(stages: list[dict[str, Any]]) -> Markup:
    taken = [number(stage, "seconds") for stage in stages]
    whole = sum(value for value in taken if value is not None)
    cells = [
        (word(stage, "name"), numbers.seconds(value), numbers.percent(value / whole, 0) if value and whole else "")
        for stage, value in zip(stages, taken, strict=True)
    ]
    cells.append((tag("b", "together"), tag("b", numbers.seconds(whole)), ""))
    columns = (("stage", ""), ("wall time (measured)", "number"), ("share", "number"))
    return join((tag("h3", "Time"), table(columns, cells, label="Wall time of each stage")))


def _nested(value: Mapping[str, Any]) -> Markup:
    """Nested tables as nested lists."""
    return facts(
        [(name, _nested(item) if isinstance(item, Mapping) and item else _plain(item)) for name, item in value.items()]
    )


def _plain(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
