"""What a Jetson says of itself: its model, its power mode, its GPU's clock."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from profiles import system_files

SECONDS = 10.0  # nvpmodel answers at once, or not at all


def model(root: Path = Path("/")) -> str | None:
    """The board's name; None where this is no Jetson."""
    name = system_files.text(root / "proc/device-tree/model").strip("\0 \n")
    is_jetson = "jetson" in name.lower() or (root / "etc/nv_tegra_release").exists()
    return (name or "a Jetson") if is_jetson else None


def power_mode(root: Path = Path("/"), command: Sequence[str] = ("nvpmodel", "-q")) -> str | None:
    """The power mode's name, such as "15W" or "MAXN_SUPER"; None where it cannot be read.

    `nvpmodel -q` is asked first; where it is absent or wants the administrator, its files are read.
    """
    program = shutil.which(command[0], path="/usr/sbin:/usr/bin:/sbin:/bin") or shutil.which(command[0])
    if program is not None:
        try:
            done = subprocess.run(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return _from_files(root)
        found = re.search(r"NV Power Mode:\s*(\S+)", done.stdout)
        if done.returncode == 0 and found is not None:
            return found.group(1)
    return _from_files(root)


def other_mode(wanted: str, found: str) -> str | None:
    """What differs between a target's power mode and this board's, in words; None if nothing does.

    "15 W", "15W", "MODE_15W" are the same; "MODE_15W_6CORE" is 15 W with a number of cores that the target leaves open.
    """
    want, have = _plain(wanted), _plain(found)
    if have == want or (want.endswith("W") and have.startswith(f"{want}_")):
        return None
    return f"the target's power mode is {wanted}, this board runs in {found}"


def gpu_clock_mhz(root: Path = Path("/")) -> tuple[float | None, float | None]:
    """The GPU's clock now and its highest in this power mode; None where the board does not tell."""
    for folder in sorted((root / "sys/class/devfreq").glob("*")):
        # 17000000.gpu (Orin), 57000000.gpu (Nano), 17000000.gv11b (Xavier), 17000000.gp10b (TX2), gpu-gpc-0 (Thor)
        if re.search(r"\.(gpu|ga10b|gv11b|gp10b|gm20b)$|^gpu-gpc", folder.name):
            now, most = system_files.text(folder / "cur_freq"), system_files.text(folder / "max_freq")
            return (
                int(now) / 1e6 if now.isdigit() else None,
                int(most) / 1e6 if most.isdigit() else None,
            )
    return None, None


def _from_files(root: Path) -> str | None:
    """The mode's number from nvpmodel's status, its name from nvpmodel's settings."""
    number = re.search(r"pmode:(\d+)", system_files.text(root / "var/lib/nvpmodel/status"))
    if number is None:
        return None
    pattern = r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>"
    names = dict(re.findall(pattern, system_files.text(root / "etc/nvpmodel.conf")))
    return names.get(str(int(number.group(1))))


def _plain(mode: str) -> str:
    return re.sub(r"\s+", "", mode).upper().removeprefix("MODE_")
