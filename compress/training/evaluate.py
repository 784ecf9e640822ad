"""The task's metric of one network on one split."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.contracts.examples import Examples
from compress.contracts.task import Task
from compress.contracts.teacher import Teacher
from compress.errors import TaskError
from compress.tally import Tally
from compress.taps import Taps, observe
from compress.training.devices import laid_out, placed
from compress.training.observe import Autocast, as_float32


@dataclass(frozen=True)
class Evaluation:
    """What a network reaches on a split.

    Attributes:
        score: the task's metric, higher is better.
        count: examples that were scored.
        outputs: (count, ...) float32 on the CPU where they were asked for, in the order of the split.
    """

    score: float
    count: int
    outputs: Tensor | None = None


def evaluate(
    module: nn.Module,
    examples: Examples,
    task: Task,
    *,
    batch_size: int = 256,
    outputs: bool = False,
    autocast: Autocast = nullcontext,
) -> Evaluation:
    """Score a network on all examples, in order, in eval mode; its own modes are restored afterwards.

    Args:
        module: raw inputs -> outputs, on whatever device it is.
        examples: with labels.
        outputs: whether to keep what the network said.
        autocast: mixed precision of the forward pass; none by default.

    Raises:
        TaskError: the split is empty or has no labels.
    """
    if len(examples) == 0:
        raise TaskError("there are no examples to evaluate on", fix="give the split at least one example")
    found, kept = score_part(module, examples, task, range(len(examples)), batch_size, outputs, autocast)
    return Evaluation(found.value(), found.count, torch.cat(kept) if outputs else None)


def evaluate_teacher(teacher: Teacher, examples: Examples, task: Task, *, batch_size: int = 256) -> float:
    """What `evaluate` calls the score, for a teacher of whatever kind.

    Raises:
        TaskError: the split is empty or has no labels.
    """
    if len(examples) == 0:
        raise TaskError("there are no examples to evaluate on", fix="give the split at least one example")
    modules = list(teacher.modules().values())
    device = _device_of(modules[0]) if modules else torch.device("cpu")
    found = Tally(task)
    for index in _cut(range(len(examples)), batch_size):
        batch = laid_out(placed(examples.batch(index), device))
        found.add(as_float32(teacher.observe(batch)).output, batch.labels)
    return found.value()


def outputs_of(module: nn.Module, examples: Examples, *, batch_size: int = 256) -> Tensor:
    """First outputs of a network for all examples, (N, ...) float32 on the CPU, in order, in eval mode."""
    device, kept = _device_of(module), []
    with evaluating(module), torch.no_grad(), Taps(module, ()) as taps:
        for index in _cut(range(len(examples)), batch_size):
            batch = laid_out(placed(examples.batch(index), device))
            kept.append(as_float32(observe(module, batch, taps)).output.cpu())
    return torch.cat(kept)


def score_part(
    module: nn.Module,
    examples: Examples,
    task: Task,
    positions: range,
    batch_size: int,
    keep: bool,
    autocast: Autocast,
) -> tuple[Tally, list[Tensor]]:
    """Scores of some consecutive positions, and outputs where wanted."""
    device = _device_of(module)
    found, kept = Tally(task), []
    with evaluating(module), torch.no_grad(), Taps(module, ()) as taps:
        for index in _cut(positions, batch_size):
            batch = laid_out(placed(examples.batch(index), device))
            with autocast():
                answer = as_float32(observe(module, batch, taps)).output
            found.add(answer, batch.labels)
            if keep:
                kept.append(answer.cpu())
    return found, kept


def _cut(positions: range, batch_size: int) -> Iterator[Tensor]:
    for start in range(positions.start, positions.stop, batch_size):
        yield torch.arange(start, min(start + batch_size, positions.stop))


def _device_of(module: nn.Module) -> torch.device:
    parameter = next(iter(module.parameters()), None)
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every submodule is in the mode that it was in."""
    training, modes = module.training, [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        module.train(training)  # exported graphs switch their own nodes here
        for part, mode in modes:
            part.training = mode
