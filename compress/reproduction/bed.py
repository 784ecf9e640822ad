"""What several experiments train on: Fashion-MNIST pooled to 14 x 14, small networks, and the shipped training loop."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Examples, Splits, TensorExamples
from compress.contracts.method import Method
from compress.contracts.objective import Objective
from compress.contracts.strategy import DataStrategy
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.errors import TaskError
from compress.objectives.labels import Labels
from compress.strategies.plain import Plain
from compress.tasks.fashion_mnist import TASK as FASHION_MNIST
from compress.teachers.fingerprints import of_module
from compress.teachers.frozen import FrozenTeacher
from compress.teachers.remembered import RememberedTeacher
from compress.training.evaluate import evaluate, outputs_of
from compress.training.fit import fit
from compress.training.supervised import SUPERVISED

MEAN, SPREAD = 0.2860, 0.3530  # of the training pictures


@dataclass(frozen=True)
class Pictures:
    """All of Fashion-MNIST, averaged over 2 x 2 pixels: (N, 1, 14, 14) float32, normalised, and labels (N,)."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    def examples(self, positions: Tensor) -> TensorExamples:
        """Some of the training pictures."""
        return TensorExamples(self.train[positions], self.train_labels[positions], f"pooled:{hash_of(positions)}")

    @property
    def unseen(self) -> TensorExamples:
        """The test pictures."""
        return TensorExamples(self.test, self.test_labels, "pooled:test")


@final
class PooledFashionMnist(Task):
    """Ten classes of 14 x 14 pictures, already normalised."""

    name = "pooled_fashion_mnist"
    labels = FASHION_MNIST.labels
    input_shape = (1, 14, 14)

    def load(self, data: Path | None) -> Splits:
        """Not from a folder: experiments cut their own."""
        raise TaskError("experiments cut their own splits", fix="use the task fashion_mnist")

    def frontend(self) -> nn.Module:
        """Nothing."""
        return nn.Identity()

    def teacher(self) -> nn.Module:
        """Three convolutions of 32, 64 and 128 channels."""
        return cnn((32, 64, 128), len(self.labels))


TASK = PooledFashionMnist()


@dataclass(frozen=True)
class Repeated:
    """The same examples over and over, so that an epoch has as many steps as an experiment wants.

    Attributes:
        length: how many there seem to be; `index` of a batch runs up to it.
    """

    examples: Examples
    length: int

    def __len__(self) -> int:
        return self.length

    def batch(self, index: Tensor) -> Batch:
        """The examples at `index` modulo how many there are."""
        return replace(self.examples.batch(index % len(self.examples)), index=index)

    def fingerprint(self) -> str:
        """Of the examples, and how often."""
        return f"{self.examples.fingerprint()}:{self.length}"


@lru_cache(maxsize=1)
def pictures(data: Path) -> Pictures:
    """Read Fashion-MNIST and pool it; its train and validation splits together are the training pictures. Read once
    for all seeds of a run: nobody may change the tensors.

    Raises:
        TaskError: the files are absent or changed.
    """
    splits = FASHION_MNIST.load(data)
    parts = [_pooled(split) for split in (splits.train, splits.val)]
    test, test_labels = _pooled(splits.test)
    return Pictures(torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), test, test_labels)


def some(count: int, seed: int, of: int = 60_000) -> Tensor:
    """Different positions below `of`, (count,), in random order; a smaller count gives the first of a larger one."""
    return torch.randperm(of, generator=torch.Generator().manual_seed(seed))[:count]


def only(train: Examples, **extras: Examples) -> Splits:
    """Splits of a training that nobody looks at before it ends: no validation and no test data."""
    nothing = TensorExamples(torch.zeros(0, *TASK.input_shape), torch.zeros(0, dtype=torch.int64), "nothing")
    return Splits(train, nothing, nothing, tuple(extras.items()))


def frozen(network: nn.Module) -> FrozenTeacher:
    """A trained network as a teacher."""
    return FrozenTeacher(network, fingerprint=of_module(network))


def remembered(network: nn.Module, train: Examples) -> RememberedTeacher:
    """What a trained network says of the examples of "train" as they are: one pass for all arms of a seed."""
    return RememberedTeacher({"train": answers(network, train)})


def cnn(widths: tuple[int, ...], outputs: int) -> nn.Module:
    """3 x 3 convolutions with batch normalisation, halved after each but the last, then the mean over positions."""
    layers: list[nn.Module] = []
    channels = 1
    for place, width in enumerate(widths):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if place + 1 < len(widths) else []
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, outputs))


def mlp(hidden: tuple[int, ...], outputs: int, inputs: int = 196) -> nn.Module:
    """Linear layers with ReLU between them."""
    sizes = (inputs, *hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in zip(sizes, hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))


def seeded(seed: int, build: Any) -> nn.Module:
    """`build()` with initial weights that depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = build()
    return network


def taught(
    student: nn.Module,
    splits: Splits,
    numbers: TrainingNumbers,
    seed: int,
    *,
    method: Method | None = None,
    objectives: Mapping[str, Objective] | None = None,
    weights: Mapping[str, float] | None = None,
    teachers: Mapping[str, Teacher] | None = None,
    strategy: DataStrategy | None = None,
    task: Task = TASK,
) -> nn.Module:
    """Train `student` in place by the shipped loop, in float32, and give it back in eval mode.

    Args:
        method: None for a plain one of these objectives: weighted sum, one teacher.
        objectives: None for the method's own with their usual numbers; without a method, for labels alone.
        weights: of objectives; the method's own where absent, and 1.
        teachers: none by default: labels alone.
        strategy: None for the method's own, or the train split as it is.
    """
    own = {"labels": Labels} if method is None else method.objectives
    chosen = {name: make() for name, make in own.items()} if objectives is None else dict(objectives)
    plain = Method("an arm of an experiment", {name: type(objective) for name, objective in chosen.items()})
    made = method or (plain if teachers else SUPERVISED)
    fit(
        method=made,
        students={"student": student},
        teachers=teachers or {},
        objectives=chosen,
        weights=weights or {},
        splits=splits,
        task=task,
        numbers=numbers,
        seed=seed,
        precision="fp32",
        strategy=strategy or (None if made.strategy else Plain(augment=False)),
    )
    return student.eval()


def accuracy(network: nn.Module, examples: Examples, task: Task = TASK) -> float:
    """Percent."""
    return 100 * evaluate(network, examples, task, batch_size=1000).score


def answers(network: nn.Module, examples: Examples) -> Tensor:
    """Outputs for all examples, (N, ...)."""
    return outputs_of(network, examples, batch_size=1000)


def hash_of(positions: Tensor) -> str:
    """Tells two choices of positions apart."""
    return f"{len(positions)}:{int((positions.to(torch.int64) * torch.arange(1, len(positions) + 1)).sum())}"


def _pooled(split: Examples) -> tuple[Tensor, Tensor]:
    batch = split.batch(torch.arange(len(split)))
    assert batch.labels is not None
    pooled = nn.functional.avg_pool2d(batch.inputs[0].reshape(-1, 1, 28, 28), 2)
    return (pooled - MEAN) / SPREAD, batch.labels
