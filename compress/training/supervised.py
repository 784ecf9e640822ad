"""A network trained on labels alone: the reference teacher of a task whose user brings none."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from torch import nn

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits
from compress.contracts.method import Method, Phase
from compress.contracts.step import Update
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.world import World
from compress.objectives.labels import Labels
from compress.training.curve import CurvePoint, Outcome
from compress.training.devices import Precision
from compress.training.fit import fit


def supervised_step(world: World, batches: Mapping[str, Batch], clock: Clock) -> Iterator[Update]:
    """The mean of the objective "labels" on the first stream; no teacher is asked."""
    batch = next(iter(batches.values()))
    answer = world.observe("student", batch)
    loss = world.objectives["labels"](answer, answer, batch, clock).mean()
    yield Update(loss, logs={"labels": loss})


SUPERVISED = Method(
    source="maximum likelihood", objectives={"labels": Labels}, phases=(Phase("supervised", step=supervised_step),)
)


def supervise(
    network: nn.Module,
    splits: Splits,
    task: Task,
    *,
    seed: int,
    numbers: TrainingNumbers | None = None,
    precision: Precision = "auto",
    checkpoint: Path | None = None,
    on_point: Callable[[CurvePoint], None] | None = None,
) -> Outcome:
    """Train `network`, raw inputs -> outputs, in place on the labels of the train split.

    Args:
        numbers: None for the task's own numbers of its reference teacher.
        others: as `fit` takes them.

    Raises:
        TrainingError: as `fit` does.
    """
    return fit(
        method=SUPERVISED,
        students={"student": network},
        teachers={},
        objectives={"labels": Labels()},
        weights={},
        splits=splits,
        task=task,
        numbers=numbers or task.teacher_numbers,
        seed=seed,
        precision=precision,
        checkpoint=checkpoint,
        on_point=on_point,
    )
