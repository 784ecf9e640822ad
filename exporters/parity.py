"""How far one runtime's outputs are from another's, in the units in which a quantised output can differ.

Outputs may come batch by batch: a `Comparison` keeps counts, a histogram and the worst samples, so that memory does not
grow with the data. `compare` does the same for two arrays that are there at once.

Where an output's rows are vectors that are read through their inner products, single values say little: a code that
falls to the other side deep inside moves many of them a little. There the angle between the two vectors counts, by the
chord: |a - b| / |a| = 2 sin(angle / 2) where both have one length, and more where the lengths differ. By Cauchy and
Schwarz no inner product with a unit vector moves by more than the chord. A change of r steps (root mean square over
the d values of a vector of length 1) is a chord of r * step * sqrt(d): `angle_of_steps`.

What a runtime may change by rounding alone has a cause: every tensor that is rounded again on the way to the output may
land half a step beside where it lay. `rerounded` counts them along the longest path; half a step each is what
`explained_steps` gives.
"""

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

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
WORST = 5  # samples that are kept
STEP_EDGES = (0.5, 1.5, 2.5, 4.5, 8.5, 16.5)  # of the histogram, on either side of 0
DECADES = tuple(range(-8, 3))  # of the histogram of outputs without a step
HALF_A_STEP = 0.5  # what rounding a tensor again can move it by


@dataclass(frozen=True)
class Worst:
    """Where one sample differs most.

    Attributes:
        sample: its index in the data.
        element: where in the sample, without the batch.
        reference, candidate: the two values there.
        difference: their distance; infinite where only one side is NaN.
        steps: the same in steps, None without a step.
    """

    sample: int
    element: tuple[int, ...]
    reference: float
    candidate: float
    difference: float
    steps: float | None


@dataclass(frozen=True)
class Histogram:
    """How many elements differ by how much.

    Attributes:
        unit: "steps", signed (candidate minus reference); or "absolute", the magnitude, where there is no step.
        edges: bin i counts differences above edges[i] up to edges[i + 1]; the outer edges are infinite.
        counts: one per bin.
        equal: elements that are the same on both sides, NaN beside NaN too.
        unordered: elements whose difference is no number: NaN or opposite infinities on one side.
    """

    unit: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    equal: int
    unordered: int


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
        histogram: of all differences.
        worst: the samples that differ most, the worst first; samples that do not differ are left out.
        width: elements of a row, where rows are directions; else None, as the two angles are.
        largest_angle: largest angle between a row and its counterpart, in degrees, by the chord: a row of another
            length counts as turned. 0 to 180; infinite where NaN or infinity is on one side alone, or where the
            reference is zero and the other row is not.
        rms_angle: the same by the root mean square of all rows' chords.
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
    histogram: Histogram
    worst: tuple[Worst, ...]
    width: int | None = None
    largest_angle: float | None = None
    rms_angle: float | None = None


class Comparison:
    """Differences of one output, gathered batch by batch.

    Args:
        step: quantisation step of the output, > 0; None for float outputs.
        directions: whether rows (all but the last axis, which has two elements or more) are vectors that are read
            through their inner products.

    Raises:
        ExportError: the step is not positive and finite.
    """

    def __init__(self, step: float | None, *, directions: bool = False) -> None:
        if step is not None and not (np.isfinite(step) and step > 0):
            raise ExportError(f"a quantisation step of {step} is no unit", fix="read it with output_step(model)")
        self.step = step
        sides = STEP_EDGES if step is not None else tuple(10.0**power for power in DECADES)
        negative = tuple(-edge for edge in reversed(sides)) if step is not None else ()
        self._edges = (-math.inf, *negative, *sides, math.inf)
        self._counts = np.zeros(len(self._edges) - 1, dtype=np.int64)
        self._equal = self._unordered = self._within = self._nan = self._elements = self._finite = 0
        self._largest = self._sum = 0.0
        self._rows: int | None = None
        self._agreeing = 0
        self._directions, self._width = directions, 0
        self._largest_chord = self._chords = 0.0  # squared; the second is a sum over rows
        self._known, self._mean, self._squares = 0, 0.0, 0.0  # of the reference: Chan's parallel variance
        self._samples = 0
        self._worst: list[tuple[float, int, Worst]] = []

    def add(self, reference: NDArray[np.generic], candidate: NDArray[np.generic]) -> None:
        """Compare the next samples.

        Args:
            reference: any shape, batch first, at least one element.
            candidate: the same shape.

        Raises:
            ExportError: the shapes differ, or there is nothing to compare.
        """
        if reference.shape != candidate.shape or reference.size == 0:
            raise ExportError(
                f"outputs of shape {reference.shape} and {candidate.shape} cannot be compared",
                fix="give both runtimes the same inputs, at least one",
            )
        first, second = reference.astype(np.float64), candidate.astype(np.float64)
        difference = _difference(first, second)
        finite = np.isfinite(first) & np.isfinite(second)
        self._elements += first.size
        self._finite += int(finite.sum())
        self._sum += float(difference[finite].sum())
        self._largest = max(self._largest, float(difference.max()))
        self._nan += int((np.isnan(first) != np.isnan(second)).sum())
        if self.step is not None:
            # Dequantised codes are rounded to float32: one step may come out a few units in the last place longer.
            size = np.where(finite, np.maximum(np.abs(first), np.abs(second)), 0.0)
            rounding = 4.0 * np.finfo(np.float32).eps * size
            self._within += int((difference <= self.step + rounding).sum())
        self._add_histogram(first, second, difference)
        self._add_rows(first, second)
        self._add_chords(first, difference)
        self._add_spread(first[np.isfinite(first)])
        self._add_worst(first, second, difference)

    @property
    def compared(self) -> bool:
        """Whether there is a result yet."""
        return self._elements > 0

    def result(self) -> Parity:
        """What was found so far.

        Raises:
            ExportError: nothing was compared.
        """
        if self._elements == 0:
            raise ExportError("no outputs were compared", fix="give both runtimes the same inputs, at least one")
        step, largest = self.step, self._largest
        mean = self._sum / self._finite if self._finite else largest
        return Parity(
            step=step,
            max_abs=largest,
            mean_abs=mean,
            max_steps=None if step is None else largest / step,
            mean_steps=None if step is None else mean / step,
            within_one_step=None if step is None else self._within / self._elements,
            top1_agreement=None if self._rows is None else self._agreeing / self._rows,
            spread=math.sqrt(self._squares / self._known) if self._known else 0.0,
            not_a_number=self._nan,
            elements=self._elements,
            histogram=Histogram(
                "absolute" if step is None else "steps",
                self._edges if step is not None else (0.0, *self._edges[1:]),
                tuple(int(count) for count in self._counts),
                self._equal,
                self._unordered,
            ),
            worst=tuple(found for _, _, found in sorted(self._worst, key=lambda entry: (-entry[0], -entry[1]))),
            width=self._width or None,
            largest_angle=_degrees(self._largest_chord**0.5) if self._width else None,
            rms_angle=_degrees((self._chords * self._width / self._elements) ** 0.5) if self._width else None,
        )

    def _add_histogram(
        self, first: NDArray[np.float64], second: NDArray[np.float64], difference: NDArray[np.float64]
    ) -> None:
        apart = difference > 0
        self._equal += int(apart.size - apart.sum())
        with np.errstate(invalid="ignore"):
            signed = second[apart] - first[apart]
        known = signed[~np.isnan(signed)]
        self._unordered += int(signed.size - known.size)
        scaled = np.abs(known) if self.step is None else known / self.step
        found = np.searchsorted(np.asarray(self._edges[1:-1]), scaled, side="left")
        self._counts += np.bincount(found, minlength=len(self._counts))

    def _add_rows(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
        if first.ndim < 2 or first.shape[-1] < 2:
            return
        rows, others = first.reshape(-1, first.shape[-1]), second.reshape(-1, second.shape[-1])
        broken = np.isnan(rows).any(axis=1) != np.isnan(others).any(axis=1)
        largest = np.argmax(np.where(np.isnan(rows), -np.inf, rows), axis=1)
        other_largest = np.argmax(np.where(np.isnan(others), -np.inf, others), axis=1)
        self._rows = (self._rows or 0) + len(rows)
        self._agreeing += int(((largest == other_largest) & ~broken).sum())

    def _add_chords(self, first: NDArray[np.float64], difference: NDArray[np.float64]) -> None:
        if not self._directions or first.ndim < 2 or first.shape[-1] < 2:
            return
        self._width = first.shape[-1]
        apart = (difference.reshape(-1, self._width) ** 2).sum(axis=1)
        size = (np.where(np.isfinite(first), first, 0.0).reshape(-1, self._width) ** 2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            chords = np.where(apart > 0, apart / size, 0.0)
        self._largest_chord = max(self._largest_chord, float(chords.max()))
        self._chords += float(chords.sum())

    def _add_spread(self, known: NDArray[np.float64]) -> None:
        if not known.size:
            return
        mean, total = float(known.mean()), self._known + known.size
        shift = mean - self._mean
        self._squares += float(((known - mean) ** 2).sum()) + shift**2 * self._known * known.size / total
        self._mean += shift * known.size / total
        self._known = total

    def _add_worst(
        self, first: NDArray[np.float64], second: NDArray[np.float64], difference: NDArray[np.float64]
    ) -> None:
        samples = len(difference) if difference.ndim else 1
        per_sample = difference.reshape(samples, -1)
        largest = per_sample.max(axis=1)
        for index in np.argsort(-largest, kind="stable")[:WORST]:
            size = float(largest[index])
            if size == 0.0:
                break
            flat = int(per_sample[index].argmax())
            found = Worst(
                sample=self._samples + int(index),
                element=tuple(int(i) for i in np.unravel_index(flat, difference.shape[1:])),
                reference=float(first.reshape(samples, -1)[index, flat]),
                candidate=float(second.reshape(samples, -1)[index, flat]),
                difference=size,
                steps=None if self.step is None else size / self.step,
            )
            heapq.heappush(self._worst, (size, -found.sample, found))  # of equal ones the earlier sample stays
            if len(self._worst) > WORST:
                heapq.heappop(self._worst)
        self._samples += samples


def compare(reference: NDArray[np.generic], candidate: NDArray[np.generic], step: float | None) -> Parity:
    """Compare outputs of the same inputs.

    Args:
        reference: any shape, batch first, at least one element.
        candidate: the same shape.
        step: quantisation step of the output, > 0; None for float outputs.

    Raises:
        ExportError: the shapes differ, there is nothing to compare, or the step is not positive and finite.
    """
    comparison = Comparison(step)
    comparison.add(reference, candidate)
    return comparison.result()


def compare_batches(
    pairs: Iterable[tuple[Mapping[str, NDArray[np.generic]], Mapping[str, NDArray[np.generic]]]],
    steps: Mapping[str, float | None],
) -> dict[str, Parity]:
    """Every output of two runtimes, batch by batch.

    Args:
        pairs: (outputs of the reference, outputs of the candidate) by name, for the same inputs.
        steps: output -> its step; which outputs are compared.

    Raises:
        ExportError: an output is missing on a side, shapes differ, or there is no batch.
    """
    streams = {name: Comparison(step) for name, step in steps.items()}
    for reference, candidate in pairs:
        for name, stream in streams.items():
            if name not in reference or name not in candidate:
                raise ExportError(
                    f"output {name!r} is missing; there are {', '.join(sorted(reference))} "
                    f"and {', '.join(sorted(candidate))}",
                    fix="compare files that were exported from the same model",
                )
            stream.add(np.asarray(reference[name]), np.asarray(candidate[name]))
    return {name: stream.result() for name, stream in streams.items()}


def output_step(model: Path) -> float | None:
    """Quantisation step of a model's first output; see `output_steps`.

    Raises:
        ExportError: the file cannot be used.
    """
    loaded = check_onnx.load(model)
    return output_steps(loaded)[loaded.graph.output[0].name]


def output_steps(model: ModelProto) -> dict[str, float | None]:
    """Output -> quantisation step.

    It is the scale of the DequantizeLinear that makes the output, also through operators that keep values on its grid
    (Reshape, MaxPool and the like). None where the output is float or has one scale per channel.
    """
    makers = graph.producers(model.graph)
    known = graph.constants(model.graph)
    steps: dict[str, float | None] = {}
    for value in model.graph.output:
        name = value.name
        while name in makers and makers[name].op_type in HANDS_ON:
            name = makers[name].input[0]
        steps[value.name] = None
        if name in makers and makers[name].op_type == "DequantizeLinear" and makers[name].input[1] in known:
            scale = graph.array(known[makers[name].input[1]]).astype(np.float64).ravel()
            steps[value.name] = float(scale[0]) if scale.size == 1 else None
    return steps


def angle_of_steps(steps: float, step: float, width: int) -> float:
    """How far a vector of length 1 turns, in degrees, when its values change by so many steps (root mean square).

    1 step is what a change of every value by one step makes; 1 / sqrt(12), the root mean square of an error that is
    even over one step, is what storing the vector on the grid makes (Widrow and Kollar 2008, "Quantization Noise",
    chapter 1).

    Args:
        steps: >= 0.
        step: of the values' grid, > 0.
        width: values of a vector.
    """
    return _degrees(steps * step * math.sqrt(width))


def _degrees(chord: float) -> float:
    """The angle of a chord of the unit circle; 180 for what is longer than its diameter, as long as it is finite."""
    return math.degrees(2.0 * math.asin(min(chord / 2.0, 1.0))) if math.isfinite(chord) else math.inf


def rerounded(model: ModelProto) -> dict[str, int]:
    """Output -> the most tensors that are quantised on one path to it, constants aside."""
    found: dict[str, int] = {value.name: 0 for value in model.graph.input}
    fixed = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:  # a checked model keeps them in topological order
        before = [found[name] for name in node.input if name in found and name not in fixed]
        if before:
            count = max(before) + (node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"))
            found.update(dict.fromkeys(node.output, count))
    return {value.name: found.get(value.name, 0) for value in model.graph.output}


def explained_steps(model: ModelProto) -> dict[str, float]:
    """Output -> the difference in steps that rounding alone explains: half a step for each tensor rounded on the way.

    A runtime that computes a sum in another order, or in integers, may round each quantised tensor to the neighbouring
    code where its value lies next to a half; on average over the data that is less than half a step of this tensor.
    The output's own rounding counts as well. It is a bound to judge the largest difference by, not a gate.
    """
    return {name: HALF_A_STEP * max(1, count) for name, count in rerounded(model).items()}


def plain(found: Parity) -> dict[str, Any]:
    """As plain data for strict JSON: what is no finite number becomes a text ("nan", "inf", "-inf")."""
    made = strict(asdict(found))
    assert isinstance(made, dict)
    return made


def strict(value: object) -> Any:
    """Plain data in which every number is finite; the others become texts."""
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _difference(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        difference = np.abs(first - second)
    same = (first == second) | (np.isnan(first) & np.isnan(second))
    difference[same] = 0.0
    return np.where(np.isnan(difference), np.inf, difference)
