"""The parity ledger: every artifact beside its predecessor on real data, batch by batch, in constant memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.task import Task
from compress.job import Job
from compress.tally import Tally
from compress.taps import Taps, observe
from compress.training.devices import laid_out, placed
from compress.training.evaluate import evaluating
from compress.training.observe import as_float32
from exporters import parity
from profiles import runners

Outputs = dict[str, NDArray[np.generic]]
BATCH = 256
LEVELS = 127  # codes on either side of zero: the step that an output kept in float would have in 8 bits


@dataclass(frozen=True)
class Side:
    """One artifact that can be run.

    Attributes:
        answer: a batch -> its outputs by the task's names, the first one at least.
    """

    name: str
    answer: Callable[[Batch], Outputs]


@dataclass(frozen=True)
class Pair:
    """An artifact and its predecessor.

    Attributes:
        stage: whose gates the comparison feeds; None where it is for information.
    """

    reference: str
    artifact: str
    stage: str | None


@dataclass(frozen=True)
class Entry:
    """What one pair gave.

    Attributes:
        outputs: by name, in the task's order.
        aside: how far the metric moves when the example that moves it most stays as it was; None where the first output
            is no direction.
    """

    pair: Pair
    outputs: Mapping[str, parity.Parity]
    aside: float | None = None

    def rows(self, explained: Mapping[str, float]) -> list[dict[str, Any]]:
        """One row of plain numbers for each output; numbers that are not finite stay as they are."""
        return [
            {
                "reference": self.pair.reference,
                "artifact": self.pair.artifact,
                "stage": self.pair.stage,
                "output": name,
                "explained_steps": explained.get(name),
                **vars(found),
                "histogram": vars(found.histogram),
                "worst": [vars(worst) for worst in found.worst],
            }
            for name, found in self.outputs.items()
        ]


def torch_side(job: Job, name: str, model: nn.Module) -> Side:
    """A module; its further outputs are named after the task's names in their order."""
    parameter = next(iter(model.parameters()), None)
    device = torch.device("cpu") if parameter is None else parameter.device

    def answer(batch: Batch) -> Outputs:
        with evaluating(model), torch.no_grad(), Taps(model, ()) as taps:
            said = as_float32(observe(model, laid_out(placed(batch, device)), taps))
        values = (said.output, *said.others.values())
        return {key: value.cpu().numpy() for key, value in zip(job.task.output_names, values, strict=False)}

    return Side(name, answer)


def file_side(job: Job, name: str, loaded: runners.Loaded) -> Side:
    """A file that a runtime has opened."""
    return Side(name, lambda batch: dict(loaded.run(named_inputs(job, batch))))


def named_inputs(job: Job, batch: Batch) -> Outputs:
    """A batch's inputs under the file's names."""
    return {name: tensor.numpy() for name, tensor in zip(job.task.input_names, batch.inputs, strict=True)}


def largest_outputs(job: Job, side: Side) -> dict[str, float]:
    """Output -> its largest finite magnitude on the test data."""
    found: dict[str, float] = {}
    for batch in _batches(job):
        for name, value in side.answer(batch).items():
            finite = np.abs(value[np.isfinite(value)])
            found[name] = max(found.get(name, 0.0), float(finite.max(initial=0.0)))
    return found


class OneAside:
    """How far the metric moves from one artifact to the next, but for the example that moves it most.

    A ranking ends somewhere: documents whose scores lie closer than a vector may turn change places, and with them one
    query's answer, which among few queries is more than any bound on the metric.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._count = task, 0
        self._before: Tensor | float = 0.0
        self._after: Tensor | float = 0.0
        self._changed: list[Tensor] = []

    def add(self, before: Tensor, after: Tensor, labels: Tensor | None) -> None:
        """The first outputs of one batch, (B, ...) each."""
        assert labels is not None  # the tally has refused that
        first, second = (
            self._task.score(output, labels).double().reshape(len(labels), -1) for output in (before, after)
        )
        moved = second - first
        self._count += len(labels)
        self._before, self._after = self._before + first.sum(dim=0), self._after + second.sum(dim=0)
        self._changed.append(moved[(moved != 0).any(dim=1)])

    def value(self) -> float:
        """>= 0; NaN where an example's score is."""
        assert isinstance(self._before, Tensor)
        assert isinstance(self._after, Tensor)
        reference = self._task.total(self._before, self._count)
        left = [self._after - moved for moved in torch.cat(self._changed)] or [self._after]
        return min(abs(self._task.total(sums, self._count) - reference) for sums in left)


def keep(
    job: Job,
    sides: Sequence[Side],
    pairs: Sequence[Pair],
    steps: Mapping[str, float | None],
    look: Callable[[Batch, Mapping[str, Outputs]], None] | None = None,
) -> tuple[dict[str, float], list[Entry]]:
    """Run all sides on the whole test split, one batch at a time.

    Args:
        steps: output -> the unit of its differences.
        look: is shown every batch with all sides' outputs, for what else is to be summed up.

    Returns:
        Side -> the task's metric, as a fraction; and one entry for each pair, in order.
    """
    scores = {side.name: Tally(job.task) for side in sides}
    turning = job.task.directions
    streams = [
        {name: parity.Comparison(step, directions=name in turning) for name, step in steps.items()} for _ in pairs
    ]
    first_output = job.task.output_names[0]
    asides = [OneAside(job.task) if first_output in turning else None for _ in pairs]
    for batch in _batches(job):
        outputs = {side.name: side.answer(batch) for side in sides}
        if look is not None:
            look(batch, outputs)
        for name, found in outputs.items():
            scores[name].add(_tensor(found[first_output]), batch.labels)
        for pair, stream, aside in zip(pairs, streams, asides, strict=True):
            before, after = outputs[pair.reference], outputs[pair.artifact]
            if aside is not None:
                aside.add(_tensor(before[first_output]), _tensor(after[first_output]), batch.labels)
            for name, comparison in stream.items():
                if name in before and name in after:
                    comparison.add(before[name], after[name])
    entries = [
        Entry(
            pair,
            {name: found.result() for name, found in stream.items() if found.compared},
            None if aside is None else aside.value(),
        )
        for pair, stream, aside in zip(pairs, streams, asides, strict=True)
    ]
    return {name: tally.value() for name, tally in scores.items()}, entries


def _tensor(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def _batches(job: Job) -> Iterator[Batch]:
    for index in torch.split(torch.arange(len(job.splits.test)), BATCH):
        yield job.splits.test.batch(index)
