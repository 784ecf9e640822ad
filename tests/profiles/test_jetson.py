from pathlib import Path

import pytest

from profiles import jetson

SETTINGS = """
< PARAM TYPE=FILE NAME=CPU_ONLINE >
CORE_0 /sys/devices/system/cpu/cpu0/online
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=0 >
"""


def program(folder: Path, text: str, status: int = 0) -> str:
    path = folder / "nvpmodel-stand-in"
    path.write_text(f"#!/bin/sh\ncat <<'EOF'\n{text}\nEOF\nexit {status}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ("NV Power Mode: 15W\n0", "15W"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2", "MODE_15W_6CORE"),
        ("NVFAN WARN: x\nnothing else", None),
    ],
)
def test_what_nvpmodel_says(tmp_path: Path, said: str, mode: str | None) -> None:
    assert jetson.power_mode(tmp_path, [program(tmp_path, said), "-q"]) == mode


def test_its_files_are_read_where_it_refuses(tmp_path: Path) -> None:
    status = tmp_path / "var/lib/nvpmodel/status"
    status.parent.mkdir(parents=True)
    status.write_text("pmode:0002 fmode:quiet\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nvpmodel.conf").write_text(SETTINGS)
    assert jetson.power_mode(tmp_path, [program(tmp_path, "root wanted", 1), "-q"]) == "MAXN_SUPER"
    assert jetson.power_mode(tmp_path, ["nvpmodel-absent", "-q"]) == "MAXN_SUPER"
    assert jetson.power_mode(tmp_path / "none", ["nvpmodel-absent"]) is None


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [
        ("15 W", "15W", True),
        ("15 W", "MODE_15W", True),
        ("15 W", "MODE_15W_6CORE", True),
        ("MAXN", "MAXN", True),
        ("MAXN", "MAXN_SUPER", False),
        ("15 W", "25W", False),
        ("5 W", "15W", False),
        ("MAXN", "MODE_MAXN", True),
    ],
)
def test_modes_are_compared(wanted: str, found: str, same: bool) -> None:
    assert (jetson.other_mode(wanted, found) is None) is same


def test_the_board_and_its_gpu(tmp_path: Path) -> None:
    assert jetson.model(tmp_path) is None
    assert jetson.gpu_clock_mhz(tmp_path) == (None, None)
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_bytes(b"NVIDIA Jetson Orin Nano Developer Kit\0")
    assert jetson.model(tmp_path) == "NVIDIA Jetson Orin Nano Developer Kit"
    folder = tmp_path / "sys/class/devfreq/17000000.gpu"
    folder.mkdir(parents=True)
    (folder / "cur_freq").write_text("306000000\n")
    (folder / "max_freq").write_text("624750000\n")
    assert jetson.gpu_clock_mhz(tmp_path) == (306.0, 624.75)
    (tmp_path / "sys/class/devfreq/emc").mkdir()
