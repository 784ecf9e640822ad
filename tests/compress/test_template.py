import dataclasses
import re
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest

from compress.recipe import Recipe, load
from compress.template import TASK, keys, project

SETTING = re.compile(r"# ([a-z0-9_]+ = .+?)(  # example)?")


def paths(kind: type, prefix: str = "") -> list[str]:
    """Every key of a recipe; a table whose names are free is one key."""
    found: list[str] = []
    for name, hint in typing.get_type_hints(kind).items():
        found += paths(hint, f"{prefix}{name}.") if dataclasses.is_dataclass(hint) else [prefix + name]
    return found


def loaded(text: str, folder: Path) -> Recipe:
    file = folder / "project.toml"
    file.write_text(text, encoding="utf-8")
    return load(file)


def settings() -> list[tuple[int, str, bool]]:
    """Lines that are off: place, what they say, whether they are examples."""
    found = []
    for place, line in enumerate(project().splitlines()):
        match = SETTING.fullmatch(line)
        if match:
            found.append((place, match[1], match[2] is not None))
    return found


def with_on(places: set[int]) -> str:
    lines = project().splitlines()
    return "\n".join(line.removeprefix("# ") if n in places else line for n, line in enumerate(lines)) + "\n"


def test_it_is_what_the_embedded_default_does(tmp_path: Path) -> None:
    default = load(overrides={"task": {"name": TASK}})
    assert loaded(project(), tmp_path) == dataclasses.replace(default, name="project")


def test_every_key_of_a_recipe_is_in_it_and_no_other() -> None:
    assert sorted(key.path for key in keys()) == sorted([*paths(Recipe), "recipe"])


def test_every_key_can_be_seen_in_the_text() -> None:
    text = project()
    for key in keys():
        if isinstance(key.example, dict):
            assert f"[{key.path}]" in text
            continue
        table, _, name = key.path.rpartition(".")
        body = text.split(f"[{table}]\n")[1].split("\n[")[0] if table else text.split("\n[")[0]
        assert re.search(rf"^(# )?{name} = ", body, flags=re.MULTILINE), key.path


def test_every_key_is_explained() -> None:
    assert all(key.about or isinstance(key.example, dict) for key in keys())
    lines = project().splitlines()
    for place, said, _ in settings():
        assert lines[place - 1].startswith(("# ", "[")), said


@pytest.mark.parametrize(("place", "said", "example"), settings(), ids=lambda value: str(value)[:40])
def test_each_setting_loads_when_it_is_switched_on(place: int, said: str, example: bool, tmp_path: Path) -> None:
    plain, changed = loaded(project(), tmp_path), loaded(with_on({place}), tmp_path)
    if not example:  # what it shows is what holds without it
        assert changed == plain
    else:
        assert changed != plain


def test_all_settings_load_together(tmp_path: Path) -> None:
    text = with_on({place for place, _, _ in settings()})
    recipe = loaded(text, tmp_path)
    assert recipe.task.file == tmp_path / "my_task.py"
    assert recipe.distill.objectives["soft_targets"]["temperature"] == 4.0

    def flat(table: dict[str, Any], prefix: str = "") -> set[str]:
        names = set()
        for name, value in table.items():
            deeper = isinstance(value, dict) and prefix + name not in (
                "distill.objectives",
                "distill.strategy",
                "select.settings",
            )
            names |= flat(value, f"{prefix}{name}.") if deeper else {prefix + name}
        return names

    assert flat(tomllib.loads(text)) == {*paths(Recipe), "recipe"}


def test_lines_fit_a_terminal_and_nothing_is_of_this_machine() -> None:
    text = project()
    assert max(map(len, text.splitlines())) <= 100
    assert str(Path.cwd()) not in text
    assert text == project()
