"""How much each layer loses by its rounding: on validation data, one layer in float and one layer alone in integers.

Two measures of every variant, both with the standard error over samples. The task's score is what counts but moves in
steps of one sample; the distance of the outputs from the float student's sees every rounding. "Alone" tells what a
layer does to an otherwise exact network (the first-order share that sums over layers: Dong et al. 2019,
arXiv:1905.03696, section 3.1; Nagel et al. 2021, arXiv:2106.08295, section 3.7); "without" tells what keeping it in
float would bring to the network as it ships, where layers mask and mend each other.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.precision.layers import Layer, layers, modules_of
from compress.precision.switches import Rounding, Run, Switches
from compress.qat.prepared import Prepared
from profiles.atomic import write_text

FORMAT = 1
KEPT_BYTES = 256 * 2**20  # activations of one batch, beside which its variants are computed
LARGEST_BATCH = 64
QUANTIZED, FLOAT, OTHERS = "every layer", "no layer", "between layers"  # variants beside those of one layer
OWN = "\0"  # in no name: joins a variant's kind and its layer

Score = Callable[[Tensor, Tensor], Tensor]
"""(output, labels) -> (B,), higher is better."""
Distance = Callable[[Tensor, Tensor], Tensor]
"""(output, the float student's output) -> (B,), 0 where they agree."""


@dataclass(frozen=True)
class Estimate:
    """A mean over samples and its standard error; None where one sample says nothing of the spread."""

    mean: float
    standard_error: float | None


@dataclass(frozen=True)
class Effect:
    """What a variant does, sample by sample against the float student.

    Attributes:
        score: of the variant.
        drop: the float student's score less this one.
        distance: of the outputs.
        gain: score above that of the student with every layer quantised.
        nearer: distance that is gained over it.
    """

    score: Estimate
    drop: Estimate
    distance: Estimate
    gain: Estimate
    nearer: Estimate


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        without: this layer in float, all others quantised.
        alone: this layer quantised, all else in float.
    """

    layer: Layer
    without: Effect
    alone: Effect


@dataclass(frozen=True)
class Study:
    """A student's layers, measured.

    Attributes:
        key: hash of everything that decides the figures.
        score: of the float student.
        quantized: every layer quantised.
        others: no layer quantised, but the roundings between them (additions, pools, concatenations) that the rules
            place whatever the layers do.
    """

    key: str
    samples: int
    score: float
    quantized: Effect
    others: Effect
    rows: tuple[Row, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain


def divergence(output: Tensor, reference: Tensor) -> Tensor:
    """KL(reference || output) of class probabilities.

    Args:
        output, reference: logits, (B, C, ...).

    Returns:
        (B,), nats, >= 0; the mean over what stands behind the class dimension.
    """
    log_p, log_q = F.log_softmax(reference, dim=1), F.log_softmax(output, dim=1)
    return (
        (log_p.exp() * (log_p - log_q)).sum(dim=1).flatten(1).mean(dim=1)
        if output.dim() > 2
        else ((log_p.exp() * (log_p - log_q)).sum(dim=1))
    )


def relative_error(output: Tensor, reference: Tensor) -> Tensor:
    """Squared error over the reference's squares, (B,), >= 0; for outputs that are no class scores, (B, ...)."""
    error, size = (output - reference).flatten(1).square(), reference.flatten(1).square()
    return error.mean(dim=1) / size.mean().clamp_min(torch.finfo(torch.float32).tiny)


def study(
    prepared: Prepared,
    batch_of: Callable[[Tensor], Batch],
    positions: Tensor,
    reference: Callable[..., Tensor],
    *,
    score: Score,
    distance: Distance,
    float_modules: tuple[str, ...] = ("frontend",),
    cache: Path | None = None,
) -> Study:
    """Measure every layer of a prepared student.

    Args:
        prepared: calibrated or trained; left as it is.
        batch_of: positions -> labelled examples.
        positions: (N,) int64; which examples are used, in this order.
        reference: the float student, raw inputs -> outputs.
        float_modules: what `prepared` was prepared with.
        cache: folder for what was measured, by content: asked again for equal weights, ranges and samples, nothing is
            computed; after a kill it goes on behind the last whole batch.

    Raises:
        ValueError: there are no positions, or examples without labels.
    """
    if len(positions) == 0:
        raise ValueError("sensitivity needs at least one example")
    switches = Switches(prepared, float_modules)
    found = layers(prepared)
    plan = _plan(switches, found)
    first = batch_of(positions[:1])
    size = max(1, min(LARGEST_BATCH, KEPT_BYTES // max(1, Run(switches, first.inputs, plan[QUANTIZED]).bytes)))
    key = _key(prepared, found, batch_of, positions, reference, (score, distance), float_modules, size)
    table = _Table(None if cache is None else cache / f"{key}.json", key, tuple(plan))
    for start in range(table.done, len(positions), size):
        batch = batch_of(positions[start : start + size])
        table.add(len(batch), _measured(switches, plan, batch, reference, score, distance))
        table.save()
    effects = table.effects()
    rows = tuple(
        Row(layer, effects["without" + OWN + layer.name], effects["alone" + OWN + layer.name]) for layer in found
    )
    return Study(key, table.done, table.score, effects[QUANTIZED], effects[OTHERS], rows)


class Measurer:
    """Measures whole assignments, one at a time, on the samples of a study; answers are kept.

    Args: as of `study`.
    """

    def __init__(
        self,
        prepared: Prepared,
        batch_of: Callable[[Tensor], Batch],
        positions: Tensor,
        reference: Callable[..., Tensor],
        *,
        score: Score,
        distance: Distance,
        float_modules: tuple[str, ...] = ("frontend",),
    ) -> None:
        self._switches = Switches(prepared, float_modules)
        self._layers = layers(prepared)
        self._batch_of, self._positions, self._reference = batch_of, positions, reference
        self._score, self._distance = score, distance
        self._known: dict[frozenset[str], Effect] = {}

    def __call__(self, floats: frozenset[str]) -> Effect:
        """The student with these layers in float."""
        if floats not in self._known:
            marks = self._switches.marks(modules_of(self._layers, floats))
            plan = {
                QUANTIZED: self._switches.rounding(self._switches.marks(())),
                "asked": self._switches.rounding(marks),
            }
            table = _Table(None, "", tuple(plan))
            for index in torch.split(self._positions, LARGEST_BATCH):
                batch = self._batch_of(index)
                outputs = {name: Run(self._switches, batch.inputs, rounding).output for name, rounding in plan.items()}
                table.add(len(batch), _figures(outputs, batch, self._reference, self._score, self._distance))
            self._known[floats] = table.effects()["asked"]
        return self._known[floats]


def _plan(switches: Switches, found: tuple[Layer, ...]) -> dict[str, Rounding]:
    """Every variant by name; those of one base behind it."""
    everything = switches.marks(())
    names = [layer.name for layer in found]
    between = switches.marks(modules_of(found, names))
    plan = {QUANTIZED: switches.rounding(everything)}
    for layer in found:
        plan["without" + OWN + layer.name] = switches.rounding(switches.marks(layer.modules))
    plan[FLOAT] = switches.rounding(everything - everything)
    plan[OTHERS] = switches.rounding(between)
    for layer in found:
        rest = modules_of(found, (name for name in names if name != layer.name))
        plan["alone" + OWN + layer.name] = switches.rounding(switches.marks(rest) - between)
    return plan


def _measured(
    switches: Switches,
    plan: Mapping[str, Rounding],
    batch: Batch,
    reference: Callable[..., Tensor],
    score: Score,
    distance: Distance,
) -> dict[str, dict[str, Tensor]]:
    outputs: dict[str, Tensor] = {}
    base: Run | None = None
    for name, rounding in plan.items():
        if name in (QUANTIZED, FLOAT):
            base = Run(switches, batch.inputs, rounding)
            outputs[name] = base.output
        else:
            assert base is not None
            outputs[name] = base.variant(rounding)
    return _figures(outputs, batch, reference, score, distance)


def _figures(
    outputs: Mapping[str, Tensor], batch: Batch, reference: Callable[..., Tensor], score: Score, distance: Distance
) -> dict[str, dict[str, Tensor]]:
    if batch.labels is None:
        raise ValueError("sensitivity needs labelled examples")
    with torch.no_grad():
        exact = reference(*batch.inputs)
        best = score(exact, batch.labels).double()
        scores = {name: score(output, batch.labels).double() for name, output in outputs.items()}
        apart = {name: distance(output, exact).double() for name, output in outputs.items()}
    return {
        name: {
            "score": scores[name],
            "drop": best - scores[name],
            "distance": apart[name],
            "gain": scores[name] - scores[QUANTIZED],
            "nearer": apart[QUANTIZED] - apart[name],
        }
        for name in outputs
    }


_FIGURES = ("score", "drop", "distance", "gain", "nearer")


class _Table:
    """Sums over samples, kept in a file that is whole at any time."""

    def __init__(self, path: Path | None, key: str, names: tuple[str, ...]) -> None:
        self._path, self._key, self._names = path, key, names
        self.done = 0
        # Welford's update: sums of squares would lose the small spread of nearly equal figures.
        self._sums = {name: {figure: (0.0, 0.0) for figure in _FIGURES} for name in names}
        if path is not None:
            self._read(path)

    @property
    def score(self) -> float:
        """Mean score of the float student."""
        figures = self._sums[self._names[0]]
        return figures["score"][0] + figures["drop"][0]

    def add(self, count: int, figures: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take in one batch."""
        whole = self.done + count
        for name, found in figures.items():
            for figure, values in found.items():
                mean, spread = self._sums[name][figure]
                new = float(values.mean())
                step = new - mean
                spread += float((values - new).square().sum()) + step * step * self.done * count / whole
                self._sums[name][figure] = (mean + step * count / whole, spread)
        self.done = whole

    def effects(self) -> dict[str, Effect]:
        """Every variant's figures."""
        return {
            name: Effect(**{figure: _estimate(mean, spread, self.done) for figure, (mean, spread) in found.items()})
            for name, found in self._sums.items()
        }

    def save(self) -> None:
        """Write what is known, whole or not at all."""
        if self._path is not None:
            content = {"format": FORMAT, "key": self._key, "done": self.done, "sums": self._sums}
            write_text(self._path, json.dumps(content))

    def _read(self, path: Path) -> None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT or content["key"] != self._key or set(content["sums"]) != set(self._names):
                return
            sums = {
                name: {figure: (float(found[figure][0]), float(found[figure][1])) for figure in _FIGURES}
                for name, found in content["sums"].items()
            }
            done = int(content["done"])
        except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError, IndexError):
            return  # absent, or not ours: files of ours appear whole
        self.done, self._sums = done, {name: sums[name] for name in self._names}


def _estimate(mean: float, spread: float, count: int) -> Estimate:
    """Mean and standard error from Welford's sums."""
    return Estimate(mean, math.sqrt(spread / (count - 1) / count) if count > 1 else None)


def _key(
    prepared: Prepared,
    found: Iterable[Layer],
    batch_of: Callable[[Tensor], Batch],
    positions: Tensor,
    reference: Callable[..., Tensor],
    measures: tuple[Score, Distance],
    float_modules: tuple[str, ...],
    size: int,
) -> str:
    """Hash of the weights and ranges, the samples, what the float student says of them, and how all is judged."""
    known = hashlib.sha256()

    def take(*values: object) -> None:
        known.update(json.dumps(values, default=str).encode())

    def tensor(value: Tensor) -> None:
        plain = value.detach().cpu().contiguous()
        take(str(plain.dtype), list(plain.shape))
        known.update(plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b"")

    take(FORMAT, prepared.quantizer, [asdict(layer) for layer in found], list(float_modules), size, torch.__version__)
    take([f"{getattr(measure, '__module__', '')}.{getattr(measure, '__qualname__', '')}" for measure in measures])
    for name, value in prepared.state_dict().items():
        take(name)
        tensor(value)
    for index in torch.split(positions, LARGEST_BATCH):
        batch = batch_of(index)
        with torch.no_grad():
            for value in (*batch.inputs, *(() if batch.labels is None else (batch.labels,)), reference(*batch.inputs)):
                tensor(value)
    return known.hexdigest()


__all__ = ["Effect", "Estimate", "Measurer", "Row", "Study", "divergence", "relative_error", "study"]
