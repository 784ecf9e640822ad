"""The parity ledger: every artifact beside its predecessor on real data, batch by batch, in constant memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.contracts.batch import Batch
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
    """

    pair: Pair
    outputs: Mapping[str, parity.Parity]

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
    for batch in _batches(job):
        outputs = {side.name: side.answer(batch) for side in sides}
        if look is not None:
            look(batch, outputs)
        for name, found in outputs.items():
            scores[name].add(_tensor(found[first_output]), batch.labels)
        for pair, stream in zip(pairs, streams, strict=True):
            before, after = outputs[pair.reference], outputs[pair.artifact]
            for name, comparison in stream.items():
                if name in before and name in after:
                    comparison.add(before[name], after[name])
    entries = [
        Entry(pair, {name: found.result() for name, found in stream.items() if found.compared})
        for pair, stream in zip(pairs, streams, strict=True)
    ]
    return {name: tally.value() for name, tally in scores.items()}, entries


def _tensor(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))


def _batches(job: Job) -> Iterator[Batch]:
    for index in torch.split(torch.arange(len(job.splits.test)), BATCH):
        yield job.splits.test.batch(index)
