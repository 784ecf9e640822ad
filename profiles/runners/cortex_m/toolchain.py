"""Compile C for a Cortex-M core or for this machine, and read sizes from the result."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from profiles.errors import ProfileError

FOLDER = Path(__file__).parent
PACKAGES = "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
TIMEOUT_S = 300.0

OPTIMISATION = ("-O3", "-std=c99", "-ffp-contract=off", "-fno-math-errno", "-ffunction-sections", "-fdata-sections")


@dataclass(frozen=True)
class Core:
    """One processor core with the board that QEMU emulates it on.

    Attributes:
        flags: what the compiler needs to know.
        machine: QEMU's board.
        code, data: (address, bytes) of the memory that the linker script uses. The boards with TrustZone start in
            the secure state, which sees its memory at these aliases.
        board_hz: clock of SysTick on that board; QEMU with -icount shift=0 runs one instruction per nanosecond.
    """

    name: str
    flags: tuple[str, ...]
    machine: str
    code: tuple[int, int]
    data: tuple[int, int]
    board_hz: int


_MIB = 1 << 20
_CORES = (
    Core(
        "cortex-m3",
        ("-mcpu=cortex-m3", "-mthumb", "-mfloat-abi=soft"),
        "mps2-an385",
        (0, 4 * _MIB),
        (0x20000000, 4 * _MIB),
        25_000_000,
    ),
    Core(
        "cortex-m4",
        ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"),
        "mps2-an386",
        (0, 4 * _MIB),
        (0x20000000, 4 * _MIB),
        25_000_000,
    ),
    Core(
        "cortex-m7",
        ("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-d16"),
        "mps2-an500",
        (0, 4 * _MIB),
        (0x20000000, 4 * _MIB),
        25_000_000,
    ),
    Core(
        "cortex-m33",
        ("-mcpu=cortex-m33", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
        "mps2-an505",
        (0x10000000, 4 * _MIB),
        (0x38000000, 4 * _MIB),
        20_000_000,
    ),
    Core(
        "cortex-m55",
        ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"),
        "mps3-an547",
        (0x10000000, _MIB // 2),
        (0x31000000, 2 * _MIB),
        32_000_000,
    ),
)
CORES: Mapping[str, Core] = MappingProxyType({core.name: core for core in _CORES})


@dataclass(frozen=True)
class Footprint:
    """Bytes of a linked program: flash holds code, constants and initial values; RAM is static."""

    flash: int
    ram: int


def core_of(name: str) -> Core:
    """The core of that name; a trailing f or Helium mark (cortex-m33f) is understood.

    Raises:
        ProfileError: there is no such core.
    """
    short = name.strip().lower().replace("_", "-").split("+")[0]
    short = short if short.startswith("cortex-") else f"cortex-{short}"
    found = CORES.get(short) or CORES.get(short.removesuffix("f"))
    if found is None:
        raise ProfileError(
            f"no Cortex-M core is called {name!r}; there are {', '.join(CORES)}",
            fix="set hardware.core in the target's file to one of these",
        )
    return found


def missing(*tools: str) -> str | None:
    """Why these programs cannot be used: the first that is not on the path; None where all are."""
    for tool in tools:
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    return None


def host_compiler() -> str | None:
    """This machine's C compiler."""
    return next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)


def run(command: Sequence[str], folder: Path, timeout_s: float = TIMEOUT_S) -> str:
    """Run a program in `folder` and return what it printed.

    Raises:
        ProfileError: it is missing, failed, or took longer than `timeout_s`.
    """
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except FileNotFoundError as error:
        raise ProfileError(f"{command[0]} is not installed", fix=PACKAGES) from error
    except subprocess.TimeoutExpired as error:
        raise ProfileError(
            f"{command[0]} did not finish within {timeout_s:g} s", fix="give it less work, or a longer limit"
        ) from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        tail = " | ".join(said[-3:]) if said else "it said nothing"
        raise ProfileError(
            f"{command[0]} failed with status {done.returncode}: {tail}",
            fix=f"the command was: {' '.join(command)}",
        )
    return done.stdout


def archive(core: Core, sources: Path, folder: Path, name: str) -> Path:
    """Compile model.c of `sources` for `core` into the static library `folder`/`name`, the same bytes every time."""
    shutil.copyfile(sources / "model.c", folder / "model.c")
    shutil.copyfile(sources / "model.h", folder / "model.h")
    run(["arm-none-eabi-gcc", *core.flags, *OPTIMISATION, "-c", "model.c", "-o", "model.o"], folder)
    (folder / name).unlink(missing_ok=True)
    run(["arm-none-eabi-ar", "rcsD", name, "model.o"], folder)
    return folder / name


def footprint(core: Core, folder: Path) -> Footprint:
    """Flash and RAM of model.o of `folder` linked alone with what it calls."""
    command = ["arm-none-eabi-gcc", *core.flags, "-nostartfiles", "--specs=nano.specs", "model.o", "-lm"]
    run([*command, "-Wl,-e,model_run", "-Wl,--gc-sections", "-o", "model.elf"], folder)
    return sizes(folder / "model.elf")


def sizes(elf: Path) -> Footprint:
    """Flash and RAM of a linked program, from its sections."""
    text, data, bss = run(["arm-none-eabi-size", elf.name], elf.parent).splitlines()[1].split()[:3]
    return Footprint(int(text) + int(data), int(data) + int(bss))
