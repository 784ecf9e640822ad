"""The latency model of a target: the formula of its family, constants fitted for its kind, and how far it is off.

A target's own `[latency]` table, written by `compress targets calibrate`, takes the place of the family's constants.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # JetPack 6 has Python 3.10
    import tomli as tomllib

from profiles.cost import Precision
from profiles.errors import ProfileError
from profiles.fuse import Kernel
from profiles.latency import cortex_m, ethos_u, nvidia_gpu, riscv_cluster, x86_cpu
from profiles.target import Hardware, Target

CONSTANTS = Path(__file__).parent  # one TOML per family, beside its formula
MEASURED = {"x86-cpu": "x86-64 with AVX-512 VNNI"}  # hardware.core that a family's one table was measured on
STRETCH = 1.5  # of the interval's ends on another kind of device, where the fit does not say
JETSONS = frozenset({"8.7", "11.0", "10.1"})  # compute capabilities of integrated GPUs, for devices without a row


@dataclass(frozen=True)
class Model:
    """The latency model of one device family with its constants and how far it is off."""

    constants: Any  # of the family's own file
    kernel_ms: Callable[[Kernel, Hardware, Any], tuple[float, str]]
    fixed_ms: float
    interval: tuple[float, float]  # factors on the predicted median
    origin: str
    stretched: bool  # no row of this device's generation was there to fit on
    launch_interval: tuple[float, float] | None = None  # the same, where most of the time is the starting of kernels

    float_interval: tuple[float, float] | None = None  # the same, where floats run on another processor than codes do

    def factors(self, launch_share: float, precision: Precision = "int8") -> tuple[float, float]:
        """The interval for a network.

        Args:
            launch_share: of its predicted time, in [0, 1]: the fixed part and kernels that are bound by their start.
            precision: that most of its multiply-accumulates run in.
        """
        if self.float_interval and precision != "int8":
            return self.float_interval
        return self.launch_interval if self.launch_interval and launch_share > 0.5 else self.interval


_FILES: Mapping[str, Any] = {
    "nvidia-gpu": nvidia_gpu,
    "cortex-m": cortex_m,
    "ethos-u": ethos_u,
    "riscv-cluster": riscv_cluster,
    "x86-cpu": x86_cpu,
}


def latency_model(target: Target) -> Model:
    """The constants for a target.

    Raises:
        ProfileError: its family has none.
    """
    model = _latency_model(target.family, target.compute_capability, target.hardware.core)
    return _own(model, target) if target.latency else model


def _own(model: Model, target: Target) -> Model:
    """The model with the constants of the target's own table.

    Raises:
        ProfileError: the table has a key that the family's model does not know.
    """
    given = dict(target.latency)
    known = {f.name for f in fields(model.constants)}
    low, high = given.pop("interval", model.interval)
    fixed_ms = given.pop("fixed_us", model.fixed_ms * 1e3) / 1e3
    scale = given.pop("scale", 1.0)
    origin = given.pop("origin", f"the [latency] table of {target.name}")
    unknown = sorted(set(given) - known)
    if unknown:
        raise ProfileError(
            f"{target.name}: [latency] has an unknown key {unknown[0]!r}; there are {', '.join(sorted(known))}",
            fix=f"calibrate it again: compress targets calibrate {target.name}",
        )
    if "fixed_us" in known:
        given["fixed_us"] = fixed_ms * 1e3
    constants = replace(model.constants, **{key: _frozen(value) for key, value in given.items()})
    kernel_ms = model.kernel_ms if scale == 1.0 else partial(_scaled, model.kernel_ms, scale)
    return Model(constants, kernel_ms, fixed_ms, (low, high), origin, stretched=False)


def _scaled(
    kernel_ms: Callable[[Kernel, Hardware, Any], tuple[float, str]],
    scale: float,
    kernel: Kernel,
    hardware: Hardware,
    constants: Any,
) -> tuple[float, str]:
    """A kernel's time on a device whose anchors take `scale` times what the family's constants say."""
    latency, bound = kernel_ms(kernel, hardware, constants)
    return latency * scale, bound


@lru_cache(maxsize=64)
def _latency_model(family: str, compute_capability: str, core: str) -> Model:
    if family not in _FILES:
        raise ProfileError(f"there is no latency model for {family!r}", fix=f"use one of {', '.join(_FILES)}")
    tables = _fitted(family)
    stretched = False
    if family == "nvidia-gpu":
        fitted = (key for key, table in tables.items() if compute_capability in table["compute_capabilities"])
        near = "jetson" if compute_capability in JETSONS else "a100"
        name = next(fitted, near)
        stretched = compute_capability not in tables[name]["compute_capabilities"]
    else:
        name = core if core in tables else next(iter(tables))
        stretched = core != MEASURED.get(family, name)
    table = tables[name]
    file = _FILES[family]
    wanted = {f.name for f in fields(file.Constants)}
    constants = file.Constants(**{key: _frozen(value) for key, value in table.items() if key in wanted})
    wider = table.get("stretch", STRETCH) if stretched else 1.0
    low, high = table["interval"]
    launch_low, launch_high = table.get("launch_interval", (low, high))
    return Model(
        constants,
        file.kernel_ms,
        table.get("fixed_us", 0.0) / 1e3,
        (low / wider, high * wider),
        table["origin"],
        stretched,
        (launch_low / wider, launch_high * wider),
        cortex_m.interval(ethos_u.HOST) if family == "ethos-u" else None,
    )


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=8)
def _fitted(family: str) -> dict[str, dict[str, Any]]:
    return tomllib.loads((CONSTANTS / f"{family.replace('-', '_')}.toml").read_text(encoding="utf-8"))
