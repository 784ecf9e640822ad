"""What a device is: one TOML file per target, read once and checked at the edge."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:  # JetPack 6 has Python 3.10
    import tomli as tomllib

from profiles.errors import ProfileError

FOLDER = Path(__file__).parent / "targets"


@dataclass(frozen=True)
class Budget:
    """Limits at batch 1. None is no limit."""

    latency_ms: float | None = None  # median
    peak_activation_bytes: int | None = None
    weight_bytes: int | None = None
    accuracy_drop: float | None = None  # teacher minus artifact, as a fraction: 0.01 is one point
    compute_share: float | None = None  # of the task's decision period; used where latency_ms is not given


@dataclass(frozen=True)
class Hardware:
    """Figures that the cost model needs. Peaks are dense; rates are per second."""

    clock_mhz: float
    units: int  # streaming multiprocessors, or cores
    tops: Mapping[str, float]  # precision -> tera-operations per second (2 per multiply-accumulate)
    bandwidth_gbs: float
    cache_kib: int = 0
    core: str = ""  # cortex-m33, ...


@dataclass(frozen=True)
class Target:
    """One device with the runtime that its users have."""

    name: str
    device: str
    family: str  # nvidia-gpu, cortex-m, x86-cpu
    runtime: str  # tensorrt, c, onnxruntime
    runtime_version: str
    precision: str  # what the pipeline ships
    quantizer: str  # file of compress/qat
    opset: int  # of the exported ONNX
    width_multiple: int  # channels that the runtime's int8 kernels want
    builders: tuple[str, ...]  # files of exporters; the first that can run here builds the artifact
    checks: tuple[str, ...]  # files of exporters that always run beside it
    runners: tuple[str, ...]  # files of profiles/runners that can run its artifact
    compute_capability: str  # "" where there is none
    check_capability: str  # of the ahead-of-time check
    budget: Budget
    hardware: Hardware
    sources: Mapping[str, str]
    aliases: tuple[str, ...] = ()
    description: str = ""
