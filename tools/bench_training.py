"""How much the training loop costs over a distillation step written by hand, and what a live teacher costs.

    python tools/bench_training.py [--rounds 7] [--steps 40] [--width 32] [--batch 128]

Each round times all variants one after the other and prints their ratios within the round, so that a machine that
slows down meanwhile does not look like a result; the summary is the median of the rounds. Times are process CPU time,
so that other processes disturb little.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.signals import Signals
from compress.contracts.task import Task, TrainingNumbers
from compress.contracts.teacher import Teacher
from compress.methods.vanilla_kd import METHOD
from compress.objectives.labels import Labels
from compress.objectives.soft_targets import SoftTargets
from compress.training.fit import fit


class Images(Task):
    """Ten classes of 28x28 noise: only the time counts."""

    name = "bench"
    labels = tuple("0123456789")
    input_shape = (1, 28, 28)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        return network(64)


def network(width: int) -> nn.Module:
    """Four 3x3 convolutions with batch norm, 28x28 -> ten logits."""
    layers: list[nn.Module] = []
    channels = 1
    for number, wide in enumerate((width, width, 2 * width, 2 * width)):
        layers += [
            nn.Conv2d(channels, wide, 3, stride=1 + number % 2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
        ]
        channels = wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


@dataclass(frozen=True)
class Live(Teacher):
    """Runs its network for every batch."""

    network: nn.Module
    cacheable = True
    fingerprint = "live"

    def observe(self, batch: Batch) -> Signals:
        with torch.no_grad():
            return Signals(self.network(batch.inputs[0]))


@dataclass(frozen=True)
class Cached(Teacher):
    """Looks its answers up."""

    logits: Tensor
    cacheable = True
    fingerprint = "cached"

    def observe(self, batch: Batch) -> Signals:
        return Signals(self.logits[batch.index])


def by_hand(student: nn.Module, teacher: Teacher, data: TensorExamples, steps: int, batch_size: int) -> None:
    """The shortest loop that computes the same updates."""
    student.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    matrices = {"params": [p for p in student.parameters() if p.ndim > 1], "weight_decay": 0.01}
    vectors = {"params": [p for p in student.parameters() if p.ndim <= 1], "weight_decay": 0.0}
    optimizer = torch.optim.AdamW([matrices, vectors], lr=1e-3, fused=True)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps + 1)
    for step in range(steps):
        index = torch.arange(step * batch_size, (step + 1) * batch_size) % len(data)
        batch = data.batch(index)
        inputs = batch.inputs[0].contiguous(memory_format=torch.channels_last)
        log_p = F.log_softmax(teacher.observe(batch.with_inputs(inputs)).output / 4.0, dim=1)
        output = student(inputs)
        log_q = F.log_softmax(output / 4.0, dim=1)
        assert batch.labels is not None
        loss = 0.9 * 16.0 * (log_p.exp() * (log_p - log_q)).sum(dim=1).mean()
        loss = loss + 0.1 * F.cross_entropy(output, batch.labels)
        if not torch.isfinite(loss):
            raise FloatingPointError
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        rates.step()


def by_fit(student: nn.Module, teacher: Teacher, data: TensorExamples, steps: int, batch_size: int) -> None:
    """The project's loop, one epoch, without validation."""
    nothing = TensorExamples(data.inputs[:0], data.labels[:0], "nothing")
    fit(
        method=METHOD,
        students={"student": student},
        teachers={"teacher": teacher},
        objectives={"soft_targets": SoftTargets(4.0), "labels": Labels()},
        weights={},
        splits=Splits(data, nothing, nothing),
        task=Images(),
        numbers=TrainingNumbers(epochs=1, batch_size=batch_size, learning_rate=1e-3),
        seed=0,
        precision="fp32",
    )


def cpu_seconds(work: Callable[[], None]) -> float:
    """Process CPU seconds of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    """Print one line per round and the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=128)
    given = parser.parse_args()
    source = torch.Generator().manual_seed(0)
    count = given.steps * given.batch
    data = TensorExamples(
        torch.randn(count, 1, 28, 28, generator=source), torch.randint(0, 10, (count,), generator=source), "bench"
    )
    large = network(64).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    live, cached = Live(large), Cached(torch.randn(count, 10, generator=source))
    variants: dict[str, Callable[[], None]] = {
        "by hand, cached": lambda: by_hand(network(given.width), cached, data, given.steps, given.batch),
        "fit, cached": lambda: by_fit(network(given.width), cached, data, given.steps, given.batch),
        "by hand, live": lambda: by_hand(network(given.width), live, data, given.steps, given.batch),
        "fit, live": lambda: by_fit(network(given.width), live, data, given.steps, given.batch),
    }
    for work in variants.values():  # warm up
        work()
    ratios: dict[str, list[float]] = {"fit / by hand, cached": [], "fit / by hand, live": [], "live / cached": []}
    for number in range(given.rounds):
        order = list(variants) if number % 2 == 0 else list(reversed(variants))
        seconds = {name: cpu_seconds(variants[name]) for name in order}
        ratios["fit / by hand, cached"].append(seconds["fit, cached"] / seconds["by hand, cached"])
        ratios["fit / by hand, live"].append(seconds["fit, live"] / seconds["by hand, live"])
        ratios["live / cached"].append(seconds["fit, live"] / seconds["fit, cached"])
        steps = ", ".join(f"{name} {1e3 * value / given.steps:.2f}" for name, value in seconds.items())
        print(f"round {number}: CPU ms per step: {steps}")
    for name, values in ratios.items():
        print(f"{name}: median {statistics.median(values):.3f} (from {min(values):.3f} to {max(values):.3f})")


if __name__ == "__main__":
    main()
