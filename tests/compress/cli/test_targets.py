"""`compress targets`: what a user reads about a device."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from compress.cli.main import main
from compress.recipe import load
from profiles.errors import ProfileError
from profiles.target import names, target

BOARD = 'inherit = "jetson"\n[target]\ndevice = "My board"\n[hardware]\nclock_mhz = 1000\n'


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["targets", *arguments]) == 0
    return capsys.readouterr().out


def parsed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(said(capsys, *arguments, "--json"))
    return result


@pytest.mark.usefixtures("columns")
def test_every_target_has_a_line_that_fits_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "list")
    assert max(map(len, text.splitlines())) <= 80
    first = [line.split()[0].rstrip("*") for line in text.splitlines() if line.strip()]
    assert [name for name in names() if first.count(name) != 1] == []
    line = next(line for line in text.splitlines() if line.startswith("jetson_agx_orin_64gb*"))
    assert line.split()[1:6] == ["85.2", "TOPS", "205", "64", "GB"]
    assert "NVIDIA Jetson AGX Orin 64 GB" not in text


def test_a_wide_terminal_also_shows_the_device(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    assert "NVIDIA Jetson AGX Orin 64 GB" in said(capsys, "list")


def test_the_list_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    found = parsed(capsys, "list")["targets"]
    assert list(found) == names()
    for name, row in found.items():
        assert row["here"]["level"] in ("measure", "emulate", "estimate", "predict"), name
        assert 0 < row["prediction"]["interval"][0] < row["prediction"]["interval"][1], name
        assert row["prediction"]["origin"], name
        assert row["energy"].get("watts", 1) > 0, name
        assert row["energy"].get("origin") or row["energy"]["why_not"], name
    assert found["jetson"]["modes"] == ["15w", "25w", "maxn_super"]


def test_compress_list_targets_is_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    table = said(capsys, "list")
    assert main(["list", "targets"]) == 0
    assert capsys.readouterr().out == table


def test_the_users_own_targets_are_there_and_a_broken_one_hides_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "board.toml").write_text(BOARD)
    (tmp_path / "targets" / "broken.toml").write_text('inherit = "jetson"\n[hardware]\nclocc_mhz = 1\n')
    found = parsed(capsys, "list", "--project", str(tmp_path))["targets"]
    assert found["board"]["device"] == "My board"
    assert "clocc_mhz" in found["broken"]["error"]["what"]
    assert len(found) == len(names()) + 2
    text = said(capsys, "list", "--project", str(tmp_path))
    assert re.search(r"^board +32.8 TOPS", text, re.MULTILINE)
    assert "did you mean 'clock_mhz'?" in text


@pytest.mark.usefixtures("columns")
@pytest.mark.parametrize("name", [*names(), "jetson_agx_orin_64gb:15w"])
def test_a_page_fits_and_names_the_source_of_each_figure(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "show", name)
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith(f"{target(name).name}: {target(name).device}\n")
    assert "no source is given" not in text
    for part in ("Hardware", "Budget at batch 1", "Software", "Latency", "Energy"):
        assert re.search(f"^{part}", text, re.MULTILINE)


@pytest.mark.usefixtures("columns")
def test_a_page_shows_the_modes_and_which_one_it_is_of(capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "show", "jetson-agx-orin-64gb:30w")
    assert "Hardware (power mode 30w)" in text
    assert re.search(r"^ +maxn +16 x +1300.5 MHz +204.8 GB/s +60 W +85.2 TOPS int8$", text, re.MULTILINE)
    assert re.search(r"^  \* 30w +8 x +624.75 MHz +204.8 GB/s +30 W +20.5 TOPS int8$", text, re.MULTILINE)
    assert "mask 240" in text
    assert "also called jetson-agx-orin" in text
    assert "Power modes" not in said(capsys, "show", "a100")


@pytest.mark.usefixtures("columns")
def test_a_figure_without_a_source_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "board.toml").write_text(BOARD)
    text = said(capsys, "show", "board", "--project", str(tmp_path))
    assert re.search(r"clock +1000 MHz\n +\| no source is given", text)


def test_a_page_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    found = parsed(capsys, "show", "hearing-aid")
    assert found["name"] == "hearing_aid"
    assert found["hardware"]["clock_mhz"] == 96
    assert found["sources"]["clock_mhz"].startswith("STM32U385")
    assert found["budget"]["compute_share"] == 0.5
    assert found["energy"]["watts"] == pytest.approx(55e-6 * 96)
    assert found["prediction"]["interval"][0] < 1 < found["prediction"]["interval"][1]


@pytest.mark.parametrize(
    ("arguments", "what", "fix"),
    [
        (["show", "jetsn"], "no target is called 'jetsn'", "targets/jetsn.toml"),
        (["show", "jetson:99w"], "no power mode '99w'; there are 15w, 25w, maxn_super", "[mode.99w]"),
        (["show"], "NAME", "--help"),
        (["calibrate", "jetsn"], "no target is called 'jetsn'", "targets/jetsn.toml"),
        (["calibrate", "x86", "--seconds", "-1"], "--seconds is -1", "--seconds 120"),
        (["lst"], "lst", "--help"),
    ],
)
def test_wrong_words_get_one_message(
    arguments: list[str], what: str, fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["targets", *arguments]) == 2
    error = capsys.readouterr().err
    assert what in error
    assert fix in error
    assert "Traceback" not in error


def test_calibrating_writes_the_users_own_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measuring is tested with profiles.calibration; here: what it is told, and what its user is."""
    asked: dict[str, Any] = {}

    def measured(device: Any, out: Path, *, remote: str | None, seconds: float, anchors: Path | None, say: Any) -> Path:
        asked.update(name=device.name, out=out, remote=remote, seconds=seconds, anchors=anchors)
        say("measuring 3 networks")
        path = out / "targets" / f"{device.name}.toml"
        path.parent.mkdir()
        table = 'origin = "3 networks on this board"\ninterval = [0.9, 1.2]\n'
        path.write_text(f'inherit = "{device.name}"\n[latency]\n{table}')
        return path

    monkeypatch.setattr("profiles.calibration.calibrate", measured)
    arguments = ["targets", "calibrate", "jetson", "--remote", "me@orin", "--seconds", "5", "--project", str(tmp_path)]
    assert main(arguments) == 0
    told = capsys.readouterr()
    assert asked == {"name": "jetson", "out": tmp_path, "remote": "me@orin", "seconds": 5.0, "anchors": None}
    assert told.err == "measuring 3 networks\n"
    assert "3 networks on this board" in told.out
    assert "0.90 to 1.20 times the predicted one" in told.out
    found = parsed(capsys, "show", "jetson", "--project", str(tmp_path))
    assert found["prediction"]["interval"] == [0.9, 1.2]


def test_the_pipeline_finds_the_users_own_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "project" / "targets").mkdir(parents=True)
    (tmp_path / "project" / "targets" / "board.toml").write_text(BOARD)
    monkeypatch.chdir(tmp_path / "project")
    assert load(overrides={"target": "board"}).target == "board"
    assert load(overrides={"target": "jetson:25w"}).target == "jetson:25w"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ProfileError, match="no target is called 'board'"):
        load(overrides={"target": "board"})
