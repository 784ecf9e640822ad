"""ONNX to what it costs on a Cortex-M: C for the core, run on its emulation; predicted where that cannot be."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import profiles
from exporters import onnx_to_any_c, onnx_to_c
from exporters.errors import ExportError
from profiles.cost import Cost
from profiles.runners import on_cortex_m
from profiles.target import Target


def reason_against(target: Target) -> str | None:
    """Why nothing can be emulated for `target` here; None where it can."""
    return onnx_to_c.can_run(target) or on_cortex_m.available()


def emulate(model: Path, target: Target, inputs: Mapping[str, NDArray[np.float32]] | None = None) -> Cost:
    """Cost of one inference of an ONNX model on a Cortex-M target.

    Args:
        model: ONNX with float32 inputs; see `exporters.onnx_to_c`.
        target: of the family cortex-m.
        inputs: graph input -> (N, ...) float32; the mean over N is reported. None: one input of normal random numbers.

    Returns:
        origin "emulated", from instructions of the generated C; of emx-onnx-cgen's C where an operator has no kernel
        here and that generator is installed. Where neither generator takes the graph or a tool is missing: origin
        "predicted". The first note says what happened.

    Raises:
        ProfileError: the target is of another family, the model cannot be read, does not fit the board, or the emulator
            failed.
    """
    if target.family != "cortex-m":
        raise profiles.ProfileError(
            f"{target.name} is {target.family}; only Cortex-M cores are emulated",
            fix="measure on the device, or predict: profiles.profile",
        )
    missing = on_cortex_m.available()
    if missing is not None:
        return _predicted(model, target, missing)
    with tempfile.TemporaryDirectory(prefix="emulate-") as scratch:
        try:
            artifact = onnx_to_any_c.convert(model, target, Path(scratch))
        except ExportError as error:
            return _predicted(model, target, error.what)
        cost = on_cortex_m.measure(artifact.path, target, inputs)
    generator = artifact.facts.get(onnx_to_any_c.GENERATOR)
    return replace(cost, runtime=f"c by {generator}", notes=(artifact.note, *cost.notes)) if generator else cost


def _predicted(model: Path, target: Target, reason: str) -> Cost:
    cost = profiles.profile(model, target)
    return replace(cost, notes=(f"predicted, not emulated: {reason}", *cost.notes))
