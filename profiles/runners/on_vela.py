"""Cycles of an int8 network on an Arm Ethos-U, as Arm's own compiler for it (Vela) estimates them.

Vela schedules every operator and counts cycles of the multipliers and of each memory; nothing runs. So the origin of
these costs is "predicted", by the vendor's estimator. The interval goes from one resource that hides all others to no
overlap at all; how far silicon is from that is not known here.

What Vela is told of the memories decides small networks (an autoencoder's weights come once from flash): they are part
of `System`, and each cost's notes say them.

Source: `ethos-u-vela` (PyPI), its configuration format (OPTIONS.md of the package) and defaults (Arm/vela.ini).
"""

import configparser
import csv
import importlib.util
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiles.cost import Cost, LayerCost
from profiles.errors import ProfileError
from profiles.runners import Loaded
from profiles.runners.cortex_m import toolchain
from profiles.target import Target

PACKAGE = "pip install ethos-u-vela"
ACCELERATORS = ("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u65-512")
TIMEOUT_S = 120.0
_AXI_BYTES: Mapping[str, int] = {"u55": 8, "u65": 16}  # per cycle and port


@dataclass(frozen=True)
class System:
    """An NPU with its memories: tensors live in SRAM, weights in flash.

    Attributes:
        accelerator: one of ACCELERATORS; the number is multiply-accumulates per cycle.
        clock_mhz: > 0, of the NPU.
        sram_gbs, flash_gbs: > 0, peak; at most what one port moves at that clock.
        The defaults are those of Vela's "High End Embedded" system.
    """

    accelerator: str = "ethos-u55-128"
    clock_mhz: float = 500.0
    sram_gbs: float = 4.0
    flash_gbs: float = 0.5

    def __post_init__(self) -> None:
        if self.accelerator not in ACCELERATORS:
            raise ProfileError(
                f"Vela knows no accelerator {self.accelerator!r}; there are {', '.join(ACCELERATORS)}",
                fix="name one of these",
            )
        for name in ("clock_mhz", "sram_gbs", "flash_gbs"):
            if not getattr(self, name) > 0:
                raise ProfileError(f"{name} of an NPU is {getattr(self, name)}", fix="give a number above 0")
        for name in ("sram_gbs", "flash_gbs"):
            if getattr(self, name) > self.port_gbs * 1.001:
                raise ProfileError(
                    f"{name} is {getattr(self, name):g}, more than a port of an {self.accelerator} moves at "
                    f"{self.clock_mhz:g} MHz ({self.port_gbs:g} GB/s)",
                    fix="lower it, or raise clock_mhz",
                )

    @property
    def section(self) -> str:
        """Its name in Vela's configuration. Vela takes the width of the memory ports from the start of that name."""
        return f"Ethos_{self.accelerator.split('-')[1].upper()}_Stated"

    @property
    def port_gbs(self) -> float:
        """What one memory port moves at most."""
        return _AXI_BYTES[self.accelerator.split("-")[1]] * self.clock_mhz / 1e3

    def sentence(self) -> str:
        """The system in words."""
        return (
            f"{self.accelerator} at {self.clock_mhz:g} MHz, SRAM {self.sram_gbs:g} GB/s, flash {self.flash_gbs:g} GB/s"
        )


@dataclass(frozen=True)
class Operator:
    """One operator as the NPU runs it."""

    name: str
    kind: str
    macs: int
    cycles: int  # of whichever resource it waits for
    npu_cycles: int  # of the multipliers alone


@dataclass(frozen=True)
class Estimate:
    """What Vela says of one inference.

    Attributes:
        cycles: with the overlap that its schedule has.
        npu_cycles, sram_cycles, flash_cycles: of each resource alone.
        sram_bytes, flash_bytes: that tensors, and weights with commands, take.
        on_core: operators that the NPU cannot run; the core beside it does, and their time is not in `cycles`.
    """

    system: System
    cycles: int
    npu_cycles: int
    sram_cycles: int
    flash_cycles: int
    macs: int
    weights: int
    sram_bytes: int
    flash_bytes: int
    operators: tuple[Operator, ...]
    on_core: int

    @property
    def latency_ms(self) -> float:
        """Cycles at the stated clock."""
        return self.cycles / (self.system.clock_mhz * 1e3)


def available() -> str | None:
    """Why nothing can be estimated here; None where it can."""
    found = importlib.util.find_spec("ethosu")
    if found is None or importlib.util.find_spec("ethosu.vela") is None:
        return f"ethos-u-vela is not installed: {PACKAGE}"
    return None


def load(path: Path) -> Loaded:
    """Vela estimates; it runs nothing.

    Raises:
        ProfileError: always.
    """
    raise ProfileError(
        f"{path} cannot be run: Vela only estimates cycles", fix="use estimate(), or run the model with onnxruntime"
    )


def estimate(path: Path, system: System | None = None, timeout_s: float = TIMEOUT_S) -> Estimate:
    """Compile a file for an NPU and read Vela's estimate.

    Args:
        path: an int8 .tflite file.
        system: None takes an Ethos-U55-128 in Vela's "High End Embedded" system.

    Raises:
        ProfileError: Vela or the file is missing, the file is not TensorFlow Lite, or Vela refuses it.
    """
    reason = available()
    if reason is not None:
        raise ProfileError(reason.split(":")[0], fix=reason.split(": ")[1])
    chosen = System() if system is None else system
    if not path.is_file():
        raise ProfileError(f"there is no file {path}", fix="pass an int8 .tflite file")
    with path.open("rb") as stream:
        if stream.read(8)[4:] != b"TFL3":
            raise ProfileError(
                f"{path} is not a TensorFlow Lite file",
                fix="make one from ONNX with Q/DQ pairs: exporters.onnx_to_tflite.convert(path, None, out)",
            )
    with tempfile.TemporaryDirectory(prefix="vela-") as scratch:
        work = Path(scratch)
        (work / "model.tflite").write_bytes(path.read_bytes())
        _configuration(chosen, work / "system.ini")
        command = [sys.executable, "-m", "ethosu.vela", "model.tflite", "--accelerator-config", chosen.accelerator]
        command += ["--config", "system.ini", "--system-config", chosen.section, "--memory-mode", "Stated"]
        said = toolchain.run([*command, "--verbose-performance", "--output-dir", "out"], work, timeout_s)
        return _read(work / "out", chosen, said)


def measure(
    path: Path,
    target: Target,
    inputs: Mapping[str, NDArray[np.generic]] | None = None,
    system: System | None = None,
) -> Cost:
    """The estimate as a cost.

    Args:
        path: an int8 .tflite file.
        target: the NPU, or whose core one stands beside; its name is the cost's.
        inputs: not used; Vela does not look at values.
        system: None takes `system_of(target)`.

    Raises:
        ProfileError: as `estimate`.
    """
    return _cost(estimate(path, system_of(target) if system is None else system), target)


def system_of(target: Target) -> System:
    """The NPU and memories of a target of the family ethos-u.

    Beside the core of any other target: an Ethos-U55-128 at its clock, tightly coupled SRAM (a full port), and weights
    in memory that moves an eighth of it.

    Raises:
        ProfileError: Vela does not know the NPU, or the target's memories are faster than its ports.
    """
    hardware = target.hardware
    if target.family == "ethos-u":
        slow = hardware.flash_gbs or hardware.bandwidth_gbs
        return System(hardware.core, hardware.clock_mhz, hardware.bandwidth_gbs, slow)
    port = _AXI_BYTES["u55"] * hardware.clock_mhz / 1e3
    return System("ethos-u55-128", hardware.clock_mhz, port, port / 8)


def _cost(found: Estimate, target: Target) -> Cost:
    per_ms = found.system.clock_mhz * 1e3
    least = max(found.npu_cycles, found.sram_cycles, found.flash_cycles)
    most = found.npu_cycles + found.sram_cycles + found.flash_cycles
    layers = tuple(
        LayerCost(
            name=operator.name,
            ops=(operator.kind,),
            macs=operator.macs,
            weight_bytes=0,  # Vela does not say them by operator
            activation_bytes=0,
            latency_ms=operator.cycles / per_ms,
            bound_by="compute" if operator.cycles <= operator.npu_cycles else "memory",
            precision="int8",
        )
        for operator in found.operators
    )
    notes = [
        f"vela estimate, not measured: {found.cycles} cycles on an {found.system.sentence()}",
        f"interval: from {least} cycles (one resource hides the others) to {most} (no overlap)",
        f"flash {found.flash_bytes} bytes: weights as Vela encodes them, and commands",
    ]
    if found.on_core:
        notes.append(f"{found.on_core} operators run on the core beside the NPU; their time is not in this")
    return Cost(
        target=target.name,
        runtime="ethos-u-vela",
        batch=1,
        precision="int8",
        macs=found.macs,
        params=found.weights,
        weight_bytes=found.flash_bytes,
        peak_activation_bytes=found.sram_bytes,
        latency_ms=found.latency_ms,
        interval_ms=(min(least, found.cycles) / per_ms, max(most, found.cycles) / per_ms),
        origin="predicted",
        layers=layers,
        notes=tuple(notes),
    )


def _configuration(system: System, path: Path) -> None:
    """Vela's own description of a system: clock scales are shares of what a port moves."""
    parser = configparser.ConfigParser()
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # its keys have capitals
    values = {"core_clock": f"{system.clock_mhz * 1e6:.0f}", "axi0_port": "Sram", "axi1_port": "OffChipFlash"}
    for name, gbs, latency, reads in (("Sram", system.sram_gbs, 32, 4), ("OffChipFlash", system.flash_gbs, 64, 2)):
        values |= {
            f"{name}_clock_scale": f"{min(1.0, gbs / system.port_gbs):.6g}",
            f"{name}_burst_length": "32" if name == "Sram" else "128",
            f"{name}_read_latency": f"{latency}",
            f"{name}_write_latency": "32" if name == "Sram" else "0",
            f"{name}_max_reads": f"{reads}",
            f"{name}_max_writes": "4" if name == "Sram" else "0",
        }
    parser[f"System_Config.{system.section}"] = values
    parser["Memory_Mode.Stated"] = {"const_mem_area": "Axi1", "arena_mem_area": "Axi0", "cache_mem_area": "Axi0"}
    with path.open("w", encoding="utf-8") as stream:
        parser.write(stream)


def _read(folder: Path, system: System, said: str) -> Estimate:
    summaries = sorted(folder.glob("*_summary_*.csv"))
    if not summaries:
        tail = " | ".join(said.strip().splitlines()[-3:])
        raise ProfileError(f"Vela wrote no summary: {tail}", fix="check that the file has one int8 network of batch 1")
    row = _rows(summaries[0])[-1]
    operators = tuple(_operator(line) for path in sorted(folder.glob("*_per-layer.csv")) for line in _rows(path))
    on_core = [line for line in said.splitlines() if line.startswith("CPU operators")]
    return Estimate(
        system=system,
        cycles=_whole(row, "cycles_total"),
        npu_cycles=_whole(row, "cycles_npu"),
        sram_cycles=_whole(row, "cycles_sram_access"),
        flash_cycles=_whole(row, "cycles_off_chip_flash_access"),
        macs=_whole(row, "nn_macs"),
        weights=_whole(row, "total_original_weights"),
        sram_bytes=round(1024 * float(row["sram_memory_used"])),
        flash_bytes=round(1024 * float(row["off_chip_flash_memory_used"])),
        operators=operators,
        on_core=int(on_core[0].split("=")[1].split("(")[0]) if on_core else 0,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [{key.strip(): (value or "").strip() for key, value in row.items()} for row in csv.DictReader(stream)]


def _whole(row: Mapping[str, str], key: str) -> int:
    if key not in row:
        raise ProfileError(
            f"Vela's summary has no column {key!r}", fix="use a version of ethos-u-vela that writes it, such as 5.2"
        )
    return round(float(row[key] or 0))


def _operator(row: Mapping[str, str]) -> Operator:
    return Operator(
        row.get("Name", ""), row.get("NNG Operator", ""), _whole(row, "MAC Count"), _whole(row, "Op Cycles"),
        _whole(row, "NPU"),
    )  # fmt: skip
