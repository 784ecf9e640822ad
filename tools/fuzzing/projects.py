"""Project files: TOML with wrong syntax, types, names, ranges and nesting."""

import json
from pathlib import Path
from typing import Any

from tools.fuzzing import mutations
from tools.fuzzing.kind import Kind, Rng


def _prepare(folder: Path) -> Any:
    import tomllib

    from compress.recipe import recipes
    from compress.template import project

    shipped = Path(__file__).resolve().parents[2] / "compress" / "recipes"
    texts = [(shipped / f"{name}.toml").read_text() for name in recipes()] + [project()]
    return texts, [tomllib.loads(text) for text in texts]


def _examine(samples: Any, rng: Rng, folder: Path) -> None:
    from compress.recipe import load

    texts, trees = samples
    path = folder / "project.toml"
    if rng.random() < 0.5:
        path.write_bytes(mutations.of_text(rng.choice(texts), rng))
    else:
        path.write_text(_toml(mutations.of_tree(rng.choice(trees), rng)), encoding="utf-8", errors="surrogatepass")
    load(path)


def _toml(tree: Any) -> str:
    """TOML of plain data, as far as TOML can say it; what it cannot say is left to the reader to refuse."""
    if not isinstance(tree, dict):
        return f"value = {_value(tree)}\n"
    return "".join(f"{json.dumps(str(key))} = {_value(value)}\n" for key, value in tree.items())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if value is None:
        return "null"
    return json.dumps(value) if isinstance(value, str) else repr(value)


KIND = Kind("projects", _prepare, _examine)
