"""How far one runtime's outputs are from another's, in the units in which a quantised output can differ."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters import check_onnx, graph
from exporters.errors import ExportError

HANDS_ON = (
    "Reshape",
    "Flatten",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Slice",
    "Gather",
    "MaxPool",
    "Relu",
)
"""Operators after DequantizeLinear that keep values on its grid."""


@dataclass(frozen=True)
class Parity:
    """Differences between two outputs of the same inputs. NaN counts as equal to NaN and to nothing else.

    Attributes:
        step: the unit, None where the output is float and has none.
        max_abs: largest absolute difference, in the output's own unit; infinite where only one side is NaN or both are
            infinite with different signs.
        mean_abs: mean absolute difference over the elements that are finite on both sides.
        max_steps: max_abs / step, None without a step.
        mean_steps: mean_abs / step, None without a step.
        within_one_step: share of elements that differ by at most one step (and float rounding), None without a step.
        top1_agreement: share of rows (all but the last axis) with the same largest element, None where the last axis
            has one element. Rows that have a NaN on one side only disagree.
        spread: standard deviation of the reference's finite elements, to judge `mean_abs` against.
        not_a_number: elements that are NaN on exactly one side.
        elements: how many were compared.
    """

    step: float | None
    max_abs: float
    mean_abs: float
    max_steps: float | None
    mean_steps: float | None
    within_one_step: float | None
    top1_agreement: float | None
    spread: float
    not_a_number: int
    elements: int


def compare(reference: NDArray[np.generic], candidate: NDArray[np.generic], step: float | None) -> Parity:
    """Compare outputs of the same inputs.

    Args:
        reference: any shape, batch first, at least one element.
        candidate: the same shape.
        step: quantisation step of the output, > 0; None for float outputs.

    Raises:
        ExportError: the shapes differ, there is nothing to compare, or the step is not positive and finite.
    """
    if reference.shape != candidate.shape or reference.size == 0:
        raise ExportError(
            f"outputs of shape {reference.shape} and {candidate.shape} cannot be compared",
            fix="give both runtimes the same inputs, at least one",
        )
    if step is not None and not (np.isfinite(step) and step > 0):
        raise ExportError(f"a quantisation step of {step} is no unit", fix="read it with output_step(model)")
    first, second = reference.astype(np.float64), candidate.astype(np.float64)
    difference = _difference(first, second)
    finite = np.isfinite(first) & np.isfinite(second)
    mean = float(difference[finite].mean()) if finite.any() else float(difference.max())
    largest = float(difference.max())
    known = first[np.isfinite(first)]
    # Dequantised codes are rounded to float32, so one step may come out a few units in the last place longer.
    rounding = 4.0 * np.finfo(np.float32).eps * np.where(finite, np.maximum(np.abs(first), np.abs(second)), 0.0)
    return Parity(
        step=step,
        max_abs=largest,
        mean_abs=mean,
        max_steps=None if step is None else largest / step,
        mean_steps=None if step is None else mean / step,
        within_one_step=None if step is None else float((difference <= step + rounding).mean()),
        top1_agreement=_top1(first, second),
        spread=float(known.std()) if known.size else 0.0,
        not_a_number=int((np.isnan(first) != np.isnan(second)).sum()),
        elements=int(first.size),
    )


def output_step(model: Path) -> float | None:
    """Quantisation step of a model's first output.

    It is the scale of the DequantizeLinear that makes the output, also through operators that keep values on its grid
    (Reshape, MaxPool and the like). None where the output is float or has one scale per channel.

    Raises:
        ExportError: the file cannot be used.
    """
    loaded = check_onnx.load(model)
    makers = graph.producers(loaded.graph)
    known = graph.constants(loaded.graph)
    name = loaded.graph.output[0].name
    while name in makers and makers[name].op_type in HANDS_ON:
        name = makers[name].input[0]
    if name not in makers or makers[name].op_type != "DequantizeLinear" or makers[name].input[1] not in known:
        return None
    scale = graph.array(known[makers[name].input[1]]).astype(np.float64).ravel()
    return float(scale[0]) if scale.size == 1 else None


def _difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        difference = np.abs(first - second)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    difference[same] = 0.0
    return np.where(np.isnan(difference), np.inf, difference)


def _top1(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    if first.ndim < 2 or first.shape[-1] < 2:
        return None
    rows, others = first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1])
    broken = np.isnan(rows).any(axis=1) != np.isnan(others).any(axis=1)
    largest = np.argmax(np.where(np.isnan(rows), -np.inf, rows), axis=1)
    other_largest = np.argmax(np.where(np.isnan(others), -np.inf, others), axis=1)
    return float(((largest == other_largest) & ~broken).mean())
