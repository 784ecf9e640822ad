import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import profiles
from profiles.errors import ProfileError
from profiles.target import Budget, names, target

ORIN = "jetson-agx-orin-64gb"

SLOW = "[hardware]\npower_mode = 'fast'\n[mode.slow]\nunits = 1\nbandwidth_gbs = 1\n"
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
        ("[hardware]\nrate = { int9 = 1 }", "int9"),
        ("[hardware]\nrate = { int8 = 0 }", "rate.int8 is 0"),
        ("[hardware]\nrate = { int8 = 1 }\ntops = { int8 = 1 }", "both rate and tops"),
        ("[hardware]\npower_w = -1", "power_w is -1"),
        ("[source]\ntops = 3", "not text"),
        ("[[mode]]", "'mode' is a list, not a table"),
        ("[mode]\nslow = 3", "mode.slow is a whole number, not a table"),
        ("[hardware]\npower_mode = 'fast'\n[mode.slow]\nclock_mhz = 1", "[mode.slow] lacks units, bandwidth_gbs"),
        ("[mode.slow]\nclock_mhz = 1\nunits = 1\nbandwidth_gbs = 1", "does not say which power mode it describes"),
        ("[hardware]\npower_mode = 'slow'\n[mode.slow]\nclock_mhz = 1", "[mode.slow] is the power mode"),
        (SLOW + "clocc = 1", "unknown key 'clocc'"),
        (SLOW + "clock_mhz = 0", "mode.slow.clock_mhz is 0"),
        (SLOW + "clock_mhz = 1\nsource = 1", "mode.slow.source is a whole number"),
        ("[latency]\norigin = 3", "latency.origin is a whole number, not text"),
        ("[latency]\ninterval = [0.5]", "latency.interval is [0.5]"),
        ("[latency]\ninterval = [2.0, 0.5]", "two positive factors"),
        ("[latency]\ninterval = [0.0, 0.5]", "two positive factors"),
        ("[latency]\ninterval = ['a', 'b']", "two positive factors"),
        ("[latency]\nlaunch_us = 'short'", "latency.launch_us is a string, not a number"),
        ("[latency]\nlaunch_us = -1", "latency.launch_us is -1"),
        ("[latency]\nlaunch_us = inf", "latency.launch_us is inf"),
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


def test_a_users_own_jetson_leaves_the_packages_other_ones(tmp_path: Path) -> None:
    latency = '[latency]\norigin = "here"\ninterval = [0.5, 3.0]\n'
    own(tmp_path, "jetson", f'inherit = "jetson"\n[hardware]\nclock_mhz = 1\n{latency}')
    own(tmp_path, "mine", 'inherit = "jetson"\n')
    assert target("jetson", tmp_path).hardware.clock_mhz == target("mine", tmp_path).hardware.clock_mhz == 1
    for name in ("jetson_agx_orin_64gb", "jetson_tx2", "jetson_orin_nano_super"):
        assert target(name, tmp_path) == target(name)


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


def own(folder: Path, name: str, text: str) -> Path:
    """A target file of the user's."""
    path = folder / "targets" / f"{name}.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_peaks_follow_from_processors_and_clock(tmp_path: Path) -> None:
    own(tmp_path, "mine", 'inherit = "jetson"\n[hardware]\nclock_mhz = 1000\nunits = 2\n')
    # per SM and clock 4096 int8 and 256 FP32 operations: 2 x 4096 x 1 GHz = 8.192 TOPS
    assert target("mine", tmp_path).hardware.tops["int8"] == pytest.approx(8.192)
    assert target("mine", tmp_path).hardware.tops["fp32"] == pytest.approx(0.512)
    own(tmp_path, "stated", 'inherit = "jetson"\n[hardware]\ntops = { fp32 = 1, int8 = 7 }\n')
    assert target("stated", tmp_path).hardware.tops == {"fp32": 1.0, "int8": 7.0}
    assert target("stated", tmp_path).hardware.rate == {}
    own(tmp_path, "again", 'inherit = "stated"\n[hardware]\nrate = { int8 = 4096 }\n')
    assert target("again", tmp_path).hardware.tops == {"int8": pytest.approx(20.48)}


def test_a_power_mode_sets_processors_clock_and_memory_together() -> None:
    full, low = target(ORIN), target(f"{ORIN}:15w")
    assert (full.name, full.mode) == ("jetson_agx_orin_64gb", "maxn")
    assert (low.name, low.mode) == ("jetson_agx_orin_64gb:15w", "15w")
    assert (low.hardware.units, low.hardware.clock_mhz, low.hardware.bandwidth_gbs) == (6, 420.75, 136.5)
    assert low.hardware.tops["int8"] == pytest.approx(10.34, rel=1e-3)  # 6 x 4096 x 420.75 MHz
    assert low.hardware.power_w == 15
    assert list(low.modes) == list(full.modes) == ["maxn", "50w", "30w", "15w"]
    assert low.modes["15w"] == low.hardware
    assert low.modes["maxn"] == full.hardware
    assert "mask 248" in low.sources["units"]
    assert "6 x rate x 420.75 MHz" in low.sources["tops"]
    assert (low.budget, low.device, low.runners) == (full.budget, full.device, full.runners)


@pytest.mark.parametrize("name", ["agx-orin:MAXN", f"{ORIN}:maxn", "Jetson_AGX-Orin : maxn"])
def test_the_default_mode_by_name_is_the_target_itself(name: str) -> None:
    assert target(name) == target(ORIN)


def test_modes_are_spelled_freely() -> None:
    assert target("orin-nano:MAXN-Super") == target("jetson:maxn_super")
    assert target("jetson: 25 W").hardware.clock_mhz == 918


def test_a_wrong_mode_says_which_there_are() -> None:
    with pytest.raises(ProfileError, match="no power mode '20w'; there are maxn, 50w, 30w, 15w") as caught:
        target(f"{ORIN}:20w")
    assert "[mode.20w]" in caught.value.fix
    with pytest.raises(ProfileError, match="a100 has no power mode '300w'; there are none"):
        target("a100:300w")


def test_a_file_may_inherit_from_one_mode(tmp_path: Path) -> None:
    path = own(tmp_path, "quiet", f'inherit = "{ORIN}:30w"\n[budget]\nlatency_ms = 9\n')
    quiet, parent = target("quiet", tmp_path), target(f"{ORIN}:30w")
    assert quiet.hardware == parent.hardware
    assert quiet.sources["units"] == parent.sources["units"]
    assert (quiet.name, quiet.mode, list(quiet.modes)) == ("quiet", "30w", ["30w"])
    assert target(f"{path}:30w").hardware == parent.hardware
    assert "latency_ms" not in quiet.sources


def test_modes_are_inherited_unless_the_file_describes_another_device(tmp_path: Path) -> None:
    own(tmp_path, "board", f'inherit = "{ORIN}"\n[mode.quiet]\nunits = 4\nclock_mhz = 300\nbandwidth_gbs = 50\n')
    assert list(target("board", tmp_path).modes) == ["maxn", "50w", "30w", "15w", "quiet"]
    assert target("board:quiet", tmp_path).hardware.units == 4
    own(tmp_path, "half", 'inherit = "board"\n[mode.quiet]\nclock_mhz = 150\n')
    half = target("half:quiet", tmp_path).hardware
    assert (half.units, half.clock_mhz, half.bandwidth_gbs) == (4, 150, 50)
    own(tmp_path, "other", f'inherit = "{ORIN}"\n[hardware]\nclock_mhz = 1000\n')
    assert list(target("other", tmp_path).modes) == ["maxn"]


def test_the_source_of_a_figure_is_not_inherited_by_another_figure(tmp_path: Path) -> None:
    own(tmp_path, "mine", 'inherit = "a100"\n[hardware]\nbandwidth_gbs = 1000\n[budget]\nlatency_ms = 2\n')
    sources = target("mine", tmp_path).sources
    assert not {"bandwidth_gbs", "latency_ms"} & set(sources)
    assert sources["units"] == target("a100").sources["units"]


def test_a_calibrations_table_comes_with_the_target(tmp_path: Path) -> None:
    text = 'inherit = "jetson"\n[latency]\norigin = "here"\ninterval = [0.9, 1.2]\nlaunch_us = 3\ncurve = [1, 2, 3]\n'
    own(tmp_path, "mine", text)
    assert target("mine", tmp_path).latency == {
        "origin": "here", "interval": [0.9, 1.2], "launch_us": 3, "curve": [1, 2, 3],
    }  # fmt: skip


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    own(tmp_path, "mine", 'inherit = "a100"\n[budget]\nlatency_ms = 2\n')
    assert target("mine", tmp_path).budget.latency_ms == 2
    own(tmp_path, "mine", 'inherit = "a100"\n[budget]\nlatency_ms = 3.5\n')
    assert target("mine", tmp_path).budget.latency_ms == 3.5


POSITIVE = st.floats(min_value=0.001, max_value=1e5, allow_nan=False)
OWN_FIGURES = st.fixed_dictionaries(
    {},
    optional={
        "units": st.integers(1, 300),
        "clock_mhz": POSITIVE,
        "bandwidth_gbs": POSITIVE,
        "cache_kib": st.integers(0, 10**6),
        "power_w": POSITIVE,
    },
)


@given(parent=st.sampled_from(["a100", "jetson", "jetson_agx_orin_64gb", "x86", "cortex_m4"]), figures=OWN_FIGURES)
@settings(max_examples=60, deadline=None)
def test_a_variant_differs_from_its_parent_in_what_it_states_and_in_nothing_else(
    parent: str, figures: dict[str, float]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = "\n".join(f"{key} = {value!r}" for key, value in figures.items())
        own(Path(folder), "mine", f'inherit = "{parent}"\n[hardware]\n{lines}\n')
        base, found = target(parent), target("mine", Path(folder))
    expected = {name: getattr(base.hardware, name) for name in base.hardware.__dataclass_fields__} | figures
    expected.pop("tops")
    assert {name: getattr(found.hardware, name) for name in expected} == expected
    scale = found.hardware.units * found.hardware.clock_mhz / (base.hardware.units * base.hardware.clock_mhz)
    assert found.hardware.tops == pytest.approx({name: peak * scale for name, peak in base.hardware.tops.items()})
    assert set(base.sources) - set(found.sources) == set(figures) & set(base.sources)
    same_device = not {"units", "clock_mhz", "bandwidth_gbs"} & set(figures)
    assert (list(found.modes) == list(base.modes)) or not same_device
    assert (found.budget, found.runners, found.family) == (base.budget, base.runners, base.family)
