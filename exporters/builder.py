"""What every builder is: a module of this folder that turns an ONNX file into what a target runs.

`Target.builders` and `Target.checks` name such modules by file name. A module is a builder when it has the two
functions of `Builder`; no class is written and nothing is registered. `load` imports one and checks that.

Importing a builder must be cheap and must not need the tool that it drives: `can_run` says what is missing.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray

from exporters.artifact import Artifact
from exporters.errors import ExportError
from exporters.remote import Machine
from profiles.target import Target

Arrays = Mapping[str, NDArray[np.generic]]
"""Tensor name -> array."""

FOLDER = Path(__file__).parent

Hardware = Literal["none", "ampere_plus", "same_compute_capability"]
Three = tuple[int, int, int]
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, typical and largest shape of one input."""


@dataclass(frozen=True)
class EngineOptions:
    """How TensorRT builds; the defaults are what a device's owner wants who has one device.

    Attributes:
        workspace_mib: memory that kernels may use beside weights and activations; on a Jetson the GPU shares it with
            everything else.
        tf32: let float layers compute with 10 bits of mantissa; off, for then they differ by more than a quantisation
            step may.
        hardware: run on further GPUs: "ampere_plus" (from Ampere on; 8.6), "same_compute_capability" (10.9). Slower.
        version_compatible: run with later TensorRT releases, too (8.6). Slower, and the engine carries code.
        strip_weights: leave the weights out; they come from the ONNX file when it is loaded (10.0).
        optimisation_level: 0 to 5, of TensorRT's effort; None is its own choice (3).
        timing_cache: folder of kernel timings on the machine that builds, one file for each release and GPU; None is
            the user's cache folder there, and that of the bundle where one is run by hand.
        only_cached_timings: refuse to time a kernel anew, so that equal builds give equal engines (10.0).
        dla_core: run on this deep-learning accelerator of a Xavier or an Orin; None is the GPU.
        gpu_fallback: layers that the DLA lacks run on the GPU; else they refuse the model.
        memory_mib: limit on the building process.
    """

    workspace_mib: int = 1024
    tf32: bool = False
    hardware: Hardware = "none"
    version_compatible: bool = False
    strip_weights: bool = False
    optimisation_level: int | None = None
    timing_cache: Path | None = None
    only_cached_timings: bool = False
    dla_core: int | None = None
    gpu_fallback: bool = False
    memory_mib: int = 24 << 10

    def __post_init__(self) -> None:
        if self.hardware not in get_args(Hardware):
            raise ExportError(
                f"hardware compatibility {self.hardware!r} is unknown", fix=f"use {', '.join(get_args(Hardware))}"
            )
        if self.optimisation_level is not None and not 0 <= self.optimisation_level <= 5:
            raise ExportError(
                f"optimisation level {self.optimisation_level} is not 0 to 5", fix="leave it out, or 0 to 5"
            )
        if self.workspace_mib < 1 or self.memory_mib < 256:
            raise ExportError(
                f"{self.workspace_mib} MiB of workspace and {self.memory_mib} MiB for the build are too little",
                fix="give a workspace of 1 MiB and a build of 256 MiB at least",
            )
        if self.gpu_fallback and self.dla_core is None:
            raise ExportError("falling back to the GPU was asked for without a DLA", fix="name the core: --dla-core 0")


@dataclass(frozen=True)
class BuildOptions:
    """What a builder may use beside the model and the target; each builder ignores what it has no use for.

    Attributes:
        golden_inputs: real samples by input name, batch first. Builders that write self-checks store them.
        golden_outputs: what onnxruntime gives for exactly those inputs, by output name, batch first.
        output_step: quantisation step of the first output (scale of its DequantizeLinear), None where it is float.
            `exporters.parity.output_step(model)` reads it.
        remote: a machine that builds, reached by ssh ("user@host", or a `Machine` with more); None builds here.
        capability: compute capability to build for, such as "8.6"; None takes the target's own.
        capabilities: several of them for one engine, where the builder compiles ahead of time; () takes `capability`.
        purpose: "artifact" (what the user ships) or "check" (proves something, is not shipped).
        threads: threads of the runtime, where it is a CPU.
        batches: smallest, typical and largest batch of a model with a dynamic batch dimension.
        shapes: input name -> shape without the batch dimension, for models with further dynamic dimensions.
        dims: name of a dynamic dimension -> smallest, typical and largest size, such as {"length": (1, 64, 512)}.
        profiles: whole optimisation profiles, each input name -> smallest, typical, largest shape; they go before
            `batches`, `shapes` and `dims`.
        name: file or folder name of the artifact; None takes the builder's own default.
        seconds: time limit of the build.
        engine: how TensorRT builds.
        progress: gets a line every few seconds while a build lasts; None keeps silent.
    """

    golden_inputs: Arrays = field(default_factory=dict)
    golden_outputs: Arrays = field(default_factory=dict)
    output_step: float | None = None
    remote: str | Machine | None = None
    capability: str | None = None
    capabilities: tuple[str, ...] = ()
    purpose: str = "artifact"
    threads: int = 1
    batches: tuple[int, int, int] = (1, 8, 64)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    dims: Mapping[str, Three] = field(default_factory=dict)
    profiles: tuple[Mapping[str, Shapes], ...] = ()
    name: str | None = None
    seconds: float = 1800.0
    engine: EngineOptions = field(default_factory=EngineOptions)
    progress: Callable[[str], None] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        smallest, typical, largest = self.batches
        if not 1 <= smallest <= typical <= largest:
            raise ExportError(
                f"batches {self.batches} are not 1 <= smallest <= typical <= largest", fix="give them in that order"
            )
        for name, (low, middle, high) in self.dims.items():
            if not 1 <= low <= middle <= high:
                raise ExportError(
                    f"sizes {low}, {middle}, {high} of dimension {name!r} are not 1 <= smallest <= typical <= largest",
                    fix="give them in that order",
                )
        if self.purpose not in ("artifact", "check"):
            raise ExportError(f"purpose {self.purpose!r} is unknown", fix="use 'artifact' or 'check'")


class Builder(Protocol):
    """The two functions that a builder module has."""

    def can_run(self, target: Target, *, remote: str | Machine | None = None) -> str | None:
        """None where `convert` can run for `target` on this machine (or on `remote`); else what is missing."""

    def convert(self, model: Path, target: Target, out: Path, *, options: BuildOptions) -> Artifact:
        """Build what `target` runs from the ONNX file `model`.

        Args:
            model: an ONNX file, as `exporters.torch_to_onnx.convert` writes it.
            target: the device.
            out: a folder; the artifact is written below it, whole or not at all. Made where absent.
            options: samples, remote machine and the like.

        Returns:
            The artifact. The same model, target and options give the same bytes; where the tool underneath cannot,
            `facts["reproducible"]` is False.

        Raises:
            ExportError: the model is refused, or something is missing; nothing is left under the artifact's name.
        """


def load(name: str) -> Builder:
    """The builder module `exporters/<name>.py`.

    Raises:
        ExportError: there is no such file, or it is not a builder.
    """
    if name not in names():
        raise ExportError(
            f"no builder is called {name!r}; there are {', '.join(names())}",
            fix="name one of these in the target's `builders` or `checks`",
        )
    module: ModuleType = importlib.import_module(f"exporters.{name}")
    missing = [function for function in ("can_run", "convert") if not callable(vars(module).get(function))]
    if missing:
        raise ExportError(
            f"exporters/{name}.py has no {' and no '.join(missing)}, so it is not a builder",
            fix="add what exporters/builder.py describes",
        )
    return cast(Builder, module)


def names() -> list[str]:
    """Names of the builder files there are, sorted."""
    return sorted(path.stem for path in FOLDER.glob("onnx_to_*.py"))
