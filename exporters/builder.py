"""What every builder is: a module of this folder that turns an ONNX file into what a target runs.

`Target.builders` and `Target.checks` name such modules by file name. A module is a builder when it has the two
functions of `Builder`; no class is written and nothing is registered. `load` imports one and checks that.

Importing a builder must be cheap and must not need the tool that it drives: `can_run` says what is missing.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from exporters.artifact import Artifact
from exporters.errors import ExportError
from profiles.target import Target

Arrays = Mapping[str, NDArray[np.generic]]
"""Tensor name -> array."""

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class BuildOptions:
    """What a builder may use beside the model and the target; each builder ignores what it has no use for.

    Attributes:
        golden_inputs: real samples by input name, batch first. Builders that write self-checks store them.
        golden_outputs: what onnxruntime gives for exactly those inputs, by output name, batch first.
        output_step: quantisation step of the first output (scale of its DequantizeLinear), None where it is float.
            `exporters.parity.output_step(model)` reads it.
        remote: "user@host" of a machine that builds, reached by ssh; None builds here.
        capability: compute capability to build for, such as "8.6"; None takes the target's own.
        purpose: "artifact" (what the user ships) or "check" (proves something, is not shipped).
        threads: threads of the runtime, where it is a CPU.
        batches: smallest, typical and largest batch of a model with a dynamic batch dimension.
        shapes: input name -> shape without the batch dimension, for models with further dynamic dimensions.
        name: file or folder name of the artifact; None takes the builder's own default.
        seconds: time limit of the build.
    """

    golden_inputs: Arrays = field(default_factory=dict)
    golden_outputs: Arrays = field(default_factory=dict)
    output_step: float | None = None
    remote: str | None = None
    capability: str | None = None
    purpose: str = "artifact"
    threads: int = 1
    batches: tuple[int, int, int] = (1, 8, 64)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    name: str | None = None
    seconds: float = 1800.0

    def __post_init__(self) -> None:
        smallest, typical, largest = self.batches
        if not 1 <= smallest <= typical <= largest:
            raise ExportError(
                f"batches {self.batches} are not 1 <= smallest <= typical <= largest", fix="give them in that order"
            )
        if self.purpose not in ("artifact", "check"):
            raise ExportError(f"purpose {self.purpose!r} is unknown", fix="use 'artifact' or 'check'")


class Builder(Protocol):
    """The two functions that a builder module has."""

    def can_run(self, target: Target, *, remote: str | None = None) -> str | None:
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
