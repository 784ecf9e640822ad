from pathlib import Path

import pytest

import profiles
from profiles.errors import ProfileError
from profiles.target import Budget, names, target

OWN = """
inherit = "jetson"
[target]
aliases = ["bench"]
[hardware]
clock_mhz = 1020
"""


@pytest.mark.parametrize("name", names())
def test_every_target_loads_and_names_the_source_of_its_hardware(name: str) -> None:
    found = target(name)
    assert found.name == name
    assert found.hardware.tops.keys() & {"int8", "fp32"}
    assert {"tops", "bandwidth_gbs"} <= set(found.sources)
    assert all(text.strip() for text in found.sources.values())
    assert found.budget.latency_limit_ms() is not None


@pytest.mark.parametrize("name", ["hearing-aid", "hearing_aid", "Hearing-Aid"])
def test_separators_and_case_do_not_matter(name: str) -> None:
    assert target(name) == target("hearing_aid")


def test_an_alias_is_its_target() -> None:
    assert target("jetson-orin-jp6") == target("jetson")


def test_no_alias_is_given_twice() -> None:
    given = [alias for name in names() for alias in (name, *target(name).aliases)]
    plain = [alias.lower().replace("-", "_") for alias in given]
    assert len(plain) == len(set(plain))


def test_a_wrong_name_says_what_there_is_and_what_is_near() -> None:
    with pytest.raises(ProfileError, match="no target is called 'jetsn'; there are a100") as caught:
        target("jetsn")
    assert "'jetson'" in caught.value.what
    assert "targets/jetsn.toml" in caught.value.fix


def test_inheritance_keeps_the_rest() -> None:
    base, variant = target("a100"), target("a100_80gb")
    assert variant.hardware.bandwidth_gbs == 2039
    assert variant.hardware.tops == base.hardware.tops
    assert variant.budget == base.budget
    assert not set(base.aliases) & set(variant.aliases)


def test_a_users_own_file_is_found_first_and_may_inherit_from_its_namesake(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "jetson.toml").write_text(OWN)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert target("jetson", tmp_path).hardware.clock_mhz == 1020
    assert target("bench", tmp_path).hardware.clock_mhz == 1020
    assert target("jetson", tmp_path).hardware.units == target("jetson").hardware.units
    assert names(tmp_path) == names()


def test_a_file_beside_the_users_recipe_is_found(tmp_path: Path) -> None:
    (tmp_path / "my-board.toml").write_text(OWN)
    assert target("my_board", tmp_path).hardware.clock_mhz == 1020
    assert "my_board" in names(tmp_path)
    assert target(str(tmp_path / "my-board.toml")).hardware.clock_mhz == 1020


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[target]\nprecison = "int8"', "unknown key 'precison'"),
        ('[target]\nprecision = "int7"', "precision is 'int7'"),
        ("[target]\nopset = '20'", "target.opset is a string, not a whole number"),
        ("[target]\nopset = true", "target.opset is a boolean"),
        ("[target]\nbuilders = 'onnx_to_engine'", "target.builders is a string, not a list of strings"),
        ("[hardware]\ntops = { int9 = 1 }", "int9"),
        ("[hardware]\ntops = { int8 = 'fast' }", "not a table of numbers"),
        ("[hardware]\nclock_mhz = 0", "clock_mhz is 0"),
        ("[hardware]\nclock_mhz = nan", "clock_mhz is nan"),
        ("[budget]\nlatency_ms = -1", "budget.latency_ms is -1"),
        ("[budget]\ncompute_share = 2", "compute_share is 2"),
        ("[bugdet]\nlatency_ms = 1", "unknown table or key 'bugdet'"),
        ("[source]\ntops = 3", "not text"),
        ("[target\n", "not valid TOML"),
    ],
)
def test_a_broken_file_is_refused_naming_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "targets" / "mine.toml"
    path.parent.mkdir()
    path.write_text(f'inherit = "a100"\n{text}\n')
    with pytest.raises(ProfileError) as caught:
        target("mine", tmp_path)
    assert said in caught.value.what
    assert "mine.toml" in caught.value.what


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bare.toml"
    path.write_text("[hardware]\nclock_mhz = 1\nunits = 1\nbandwidth_gbs = 1\ntops = { int8 = 1 }\n")
    with pytest.raises(ProfileError, match=r"\[target\] lacks device, family"):
        target(str(path))


def test_circular_inheritance_is_refused(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "one.toml").write_text('inherit = "two"\n')
    (tmp_path / "targets" / "two.toml").write_text('inherit = "one"\n')
    with pytest.raises(ProfileError, match="inherits from itself"):
        target("one", tmp_path)


def test_the_latency_limit_is_the_given_one_or_a_share_of_the_period() -> None:
    assert Budget(latency_ms=3.0, compute_share=0.5).latency_limit_ms(100.0) == 3.0
    assert Budget(compute_share=0.5).latency_limit_ms(100.0) == 50.0
    assert Budget(compute_share=0.5).latency_limit_ms() == 4.0  # half of an 8 ms hop
    assert Budget().latency_limit_ms() is None


def test_the_package_offers_the_function_even_after_its_module_is_loaded() -> None:
    assert profiles.target("a100").name == "a100"
    assert [item.name for item in profiles.targets()] == names()
