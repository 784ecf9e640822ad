from pathlib import Path

import pytest

from profiles import meters
from profiles.meters import Board, Rapl


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def package(root: Path, name: str, energy: int, most: int = 1_000_000) -> Path:
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder


def test_packages_are_summed_and_wrap_around(tmp_path: Path) -> None:
    first, second = package(tmp_path, "intel-rapl:0", 900_000), package(tmp_path, "intel-rapl:1", 100_000)
    package(tmp_path, "intel-rapl:0:0", 5)  # a part of the first: not counted twice
    assert meters.of_processor(tmp_path) is not None
    clock = Clock()
    meter = Rapl([first, second], clock)
    meter.start()
    clock.now = 1.0
    package(tmp_path, "intel-rapl:0", 50_000)  # over the end of its range: 100 000 + 50 000
    package(tmp_path, "intel-rapl:1", 350_000)
    assert meter.stop() == pytest.approx(0.4)  # joules


def test_too_short_or_unmoved_is_no_energy(tmp_path: Path) -> None:
    folder = package(tmp_path, "intel-rapl:0", 100)
    clock = Clock()
    meter = Rapl([folder], clock)
    meter.start()
    clock.now = 1.0
    assert meter.stop() is None  # it did not move
    meter.start()
    clock.now = 1.1
    package(tmp_path, "intel-rapl:0", 900)
    assert meter.stop() is None  # 0.1 s


def test_absent_counters(tmp_path: Path) -> None:
    assert meters.of_processor(tmp_path) is None
    assert meters.of_board(tmp_path) is None


def test_power_of_a_board_is_summed_over_time(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/hwmon/hwmon3"
    folder.mkdir(parents=True)
    (folder / "name").write_text("ina3221\n")
    for channel, label in ((1, "VDD_IN"), (2, "VDD_CPU_GPU_CV")):
        (folder / f"in{channel}_label").write_text(label + "\n")
        (folder / f"in{channel}_input").write_text("5000\n")  # millivolt
        (folder / f"curr{channel}_input").write_text("1000\n")  # milliampere
    assert meters.of_board(tmp_path) is not None
    clock = Clock()
    meter = Board("VDD_IN", folder / "in1_input", folder / "curr1_input", every=60, clock=clock)
    meter.start()
    clock.now = 2.0
    (folder / "curr1_input").write_text("3000\n")
    assert meter.stop() == pytest.approx(20.0)  # 5 W at first, 15 W at the end: 10 W in the middle, for 2 s
    assert "VDD_IN" in meter.name
