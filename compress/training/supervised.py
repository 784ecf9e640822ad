"""A network trained on labels alone: the reference teacher of a task whose user brings none."""

from collections.abc import Iterator, Mapping
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
from compress.progress import Progress, Quiet
from compress.tally import shown
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


def train(
    network: nn.Module,
    task: Task,
    splits: Splits,
    numbers: TrainingNumbers,
    *,
    seed: int,
    precision: Precision = "auto",
    checkpoint: Path | None = None,
    progress: Progress | None = None,
    title: str = "training on labels",
    together: bool = True,
) -> Outcome:
    """Train `network`, raw inputs -> outputs, in place on the labels of the train split.

    Args:
        numbers: `task.teacher_numbers` are the task's own for its reference teacher.
        checkpoint: as `fit` takes it.
        progress: shown a bar with `title`; None for silence.

    Raises:
        TrainingError: as `fit` does.
    """
    with (progress or Quiet()).bar(title, numbers.epochs) as bar:

        def show(point: CurvePoint) -> None:
            score = "" if point.validation is None else f"{task.metric} {shown(task, point.validation)}"
            bar.advance(1.0, score)

        return fit(
            method=SUPERVISED,
            students={"student": network},
            teachers={},
            objectives={"labels": Labels()},
            weights={},
            splits=splits,
            task=task,
            numbers=numbers,
            seed=seed,
            precision=precision,
            checkpoint=checkpoint,
            on_point=show,
            together=together,
        )
