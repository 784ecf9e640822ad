"""The training loop against that of mdistiller on the same pair and batches: loss values, pictures per second.

    git clone https://github.com/megvii-research/mdistiller PLACE
    python tools/bench_mdistiller.py PLACE [--teacher resnet32x4 --student resnet8x4 --rounds 5 --steps 8 --threads 2]

Its own `train_iter`, `KD` and networks are run as they are, on the CPU (`.cuda()` does nothing meanwhile; tensorboardX
is not needed), with pictures from memory, so that neither side decodes any. Both ask the teacher for every batch. Each
round times all variants one after the other; the summary is the median of the ratios within rounds.
"""

import argparse
import importlib
import itertools
import statistics
import sys
import time
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from compress.contracts.batch import Batch
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.method import Method
from compress.contracts.signals import Signals
from compress.contracts.task import Task, TrainingNumbers
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.strategies.plain import Plain
from compress.teachers.frozen import FrozenTeacher
from compress.training.devices import Precision
from compress.training.fit import fit

CLASSES, SIDE, TEMPERATURE, HARD, SOFT = 100, 32, 4.0, 0.1, 0.9


class Pictures(Task):
    """Noise in a hundred classes: only time and equality count."""

    name = "bench"
    labels = tuple(str(number) for number in range(CLASSES))
    input_shape = (3, SIDE, SIDE)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return nn.Identity()


class InOrder(Plain):
    """Examples as they come."""

    def order(self, stream: str, length: int, clock: Clock, generator: torch.Generator) -> Tensor:
        return torch.arange(length)


class First(nn.Module):
    """The logits of a network that gives (logits, features)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.inner(x)[0]
        return logits


class Noted(Labels):
    """Cross-entropy that keeps its values, by step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        found = super().forward(student, teacher, batch, clock)
        self.seen.append(found.detach().mean())
        return found


class NotedTargets(SoftTargets):
    """Soft targets that keep their values, by step."""

    def __init__(self) -> None:
        super().__init__(TEMPERATURE)
        self.seen: list[Tensor] = []

    def forward(self, student: Signals, teacher: Signals, batch: Batch, clock: Clock) -> Tensor:
        found = super().forward(student, teacher, batch, clock)
        self.seen.append(found.detach().mean())
        return found


@dataclass(frozen=True)
class Peer:
    """What is used of it."""

    trainer: Any
    distiller: Any
    networks: Any

    @classmethod
    def load(cls, place: Path) -> "Peer":
        """Import the files that are needed, without the packages' own imports of data sets and loggers."""
        for name in ("mdistiller", "mdistiller.engine", "mdistiller.distillers", "mdistiller.models"):
            package = types.ModuleType(name)
            package.__path__ = [str(place / Path(*name.split(".")))]
            sys.modules[name] = package
        logger = types.ModuleType("tensorboardX")
        logger.SummaryWriter = object  # type: ignore[attr-defined]
        sys.modules.setdefault("tensorboardX", logger)
        torch.Tensor.cuda = lambda self, *given, **named: self  # type: ignore[method-assign, assignment]
        return cls(
            importlib.import_module("mdistiller.engine.trainer").BaseTrainer,
            importlib.import_module("mdistiller.distillers.KD").KD,
            importlib.import_module("mdistiller.models.cifar.resnet"),
        )

    def run(self, student: nn.Module, teacher: nn.Module, data: TensorDataset, batch: int, rate: float) -> list[float]:
        """One epoch; the loss of every step."""
        loss = types.SimpleNamespace(CE_WEIGHT=HARD, KD_WEIGHT=SOFT)
        settings = types.SimpleNamespace(KD=types.SimpleNamespace(TEMPERATURE=TEMPERATURE, LOSS=loss))
        made = self.trainer.__new__(self.trainer)  # its constructor opens log files
        made.distiller = self.distiller(student, teacher, settings)
        made.optimizer = torch.optim.SGD(made.distiller.get_learnable_parameters(), rate, 0.9, weight_decay=5e-4)
        meters = importlib.import_module("mdistiller.engine.utils").AverageMeter
        kept = {name: meters() for name in ("training_time", "data_time", "losses", "top1", "top5")}
        made.distiller.train()
        losses = []
        for item in DataLoader(data, batch_size=batch):
            made.train_iter(item, 1, kept)
            losses.append(float(kept["losses"].val))
        return losses


def ours(
    student: nn.Module, teacher: nn.Module, data: TensorExamples, batch: int, rate: float, precision: Precision
) -> list[float]:
    """One epoch of the shipped loop; the loss of every step."""
    hard, soft = Noted(), NotedTargets()
    nothing = TensorExamples(data.inputs[:0], data.labels[:0], "nothing")
    task = Pictures()
    fit(
        method=Method("soft targets", {"soft_targets": SoftTargets, "labels": Labels}),
        students={"student": First(student)},
        teachers={"teacher": FrozenTeacher(First(teacher), fingerprint="bench")},
        objectives={"soft_targets": soft, "labels": hard},
        weights={"soft_targets": SOFT, "labels": HARD},
        splits=Splits(data, nothing, nothing),
        task=task,
        numbers=TrainingNumbers(epochs=1, batch_size=batch, learning_rate=rate, weight_decay=5e-4),
        seed=0,
        precision=precision,
        strategy=InOrder(task),
    )
    return [float(HARD * a + SOFT * b) for a, b in zip(hard.seen, soft.seen, strict=True)]


def main() -> None:
    """Losses side by side, then one line per round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", type=Path)
    parser.add_argument("--teacher", default="resnet32x4")
    parser.add_argument("--student", default="resnet8x4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    peer = Peer.load(given.place)
    torch.manual_seed(0)
    count = given.steps * given.batch
    images, labels = torch.randn(count, 3, SIDE, SIDE), torch.randint(0, CLASSES, (count,))
    theirs, own = TensorDataset(images, labels, torch.arange(count)), TensorExamples(images, labels, "bench")

    def pair() -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(1)
        teacher = getattr(peer.networks, given.teacher)(num_classes=CLASSES)
        return getattr(peer.networks, given.student)(num_classes=CLASSES), teacher.eval()

    # A rate so small that both optimisers leave the weights where they are: then only the loss is compared.
    a, b = peer.run(*pair(), theirs, given.batch, 1e-30), ours(*pair(), own, given.batch, 1e-30, "fp32")
    worst = max(abs(x - y) for x, y in zip(a, b, strict=True))
    print(f"loss of the first step {a[0]:.7f} and {b[0]:.7f}; largest difference of {len(a)} steps {worst:.1e}")
    variants: Mapping[str, Callable[[], object]] = {
        "mdistiller": lambda: peer.run(*pair(), theirs, given.batch, 1e-3),
        "fit, fp32": lambda: ours(*pair(), own, given.batch, 1e-3, "fp32"),
        "fit, bf16": lambda: ours(*pair(), own, given.batch, 1e-3, "bf16"),
    }
    ratios: dict[str, list[float]] = {name: [] for name in itertools.islice(variants, 1, None)}
    for number in range(given.rounds):
        order = list(variants) if number % 2 == 0 else list(reversed(variants))
        rates = {}
        for name in order:
            begin = time.process_time()
            variants[name]()
            rates[name] = count / (time.process_time() - begin)
        for name in ratios:
            ratios[name].append(rates[name] / rates["mdistiller"])
        shown = ", ".join(f"{name} {rates[name]:.0f}" for name in variants)
        print(f"round {number}: pictures per CPU second: {shown}", flush=True)
    for name, values in ratios.items():
        print(f"{name} / mdistiller: median {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})")


if __name__ == "__main__":
    main()
