"""A task, networks and teachers that train in milliseconds."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.teachers.frozen import FrozenTeacher

CLASSES = 3


class ToyTask(Task):
    """Three classes of 8x8 images that differ in brightness."""

    name = "toy"
    labels = ("a", "b", "c")
    input_shape = (1, 8, 8)

    def load(self, data: Path | None) -> Splits:
        return splits()

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return network(8)


class NoisyTask(ToyTask):
    """The same with an augmentation."""

    augments: ClassVar[bool] = True

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch.with_inputs(batch.inputs[0] + 0.1 * torch.randn(batch.inputs[0].shape, generator=generator))


def images(count: int, seed: int) -> TensorExamples:
    """`count` labelled images."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=source)
    pixels = torch.randn(count, 1, 8, 8, generator=source) + labels.view(-1, 1, 1, 1)
    return TensorExamples(pixels, labels, f"toy-{seed}")


@dataclass(frozen=True)
class Connected:
    """Images on a ring, of which the first few have labels that are known."""

    images: TensorExamples
    known: int = 12

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Tensor) -> Batch:
        place = torch.full((len(self),), -1)
        place[index] = torch.arange(len(index))
        ends = torch.stack([place, place.roll(-1)])[:, (place >= 0) & (place.roll(-1) >= 0)]
        plain = self.images.batch(index)
        assert plain.labels is not None
        extras = {"known_label": torch.where(index < self.known, plain.labels, -1), "node": index}
        common = {"edges": torch.cat([ends, ends.flip(0)], dim=1), "loops": torch.arange(len(index))}
        return replace(plain, labels=None, extras=extras, common=common)

    def fingerprint(self) -> str:
        return f"ring:{self.images.fingerprint()}"


def streams() -> tuple[tuple[str, TensorExamples | Connected], ...]:
    """Further streams, for methods that train on other data than labelled examples one by one."""
    return ("unlabelled", images(48, 9)), ("graph", Connected(images(48, 10)))


def splits(train: int = 96, val: int = 48, extras: tuple[tuple[str, TensorExamples | Connected], ...] = ()) -> Splits:
    """Train, validation and test images."""
    return Splits(images(train, 1), images(val, 2), images(8, 3), extras)


def network(width: int = 4, *, norm: bool = True, dropout: float = 0.0, seed: int = 0) -> nn.Sequential:
    """Images -> three logits. The module "body" is a feature map, "pool" a vector."""
    torch.manual_seed(seed)
    parts: dict[str, nn.Module] = {"conv": nn.Conv2d(1, width, 3, bias=not norm)}
    if norm:
        parts["norm"] = nn.BatchNorm2d(width)
    parts |= {"body": nn.ReLU(), "squeeze": nn.AdaptiveAvgPool2d(1), "pool": nn.Flatten()}
    if dropout:
        parts["dropout"] = nn.Dropout(dropout)
    parts["head"] = nn.Linear(width, CLASSES)
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    return model


def teacher(width: int = 6, *, taps: tuple[str, ...] = (), seed: int = 7) -> FrozenTeacher:
    """A frozen network, untrained."""
    return FrozenTeacher(network(width, seed=seed), taps=taps, fingerprint=f"toy-teacher-{width}-{seed}")


NUMBERS = TrainingNumbers(epochs=2, batch_size=32, learning_rate=1e-2)


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of everything in the state dict."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
