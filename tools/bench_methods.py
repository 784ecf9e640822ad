"""What one training step costs by each method, as a ratio to plain distillation of the same student.

    python tools/bench_methods.py tgeo_kd [pld ...] [--rounds 5] [--steps 24] [--width 32] [--batch 128]

A convolutional student learns from answers that are remembered, so that the teacher costs the same and nearly nothing.
Each round trains by plain distillation and by every method, one after the other, and takes the ratios within the round;
the median of the rounds is printed with the least and the largest. Times are CPU time of this process in its training
steps; preparation, validation and the first epoch are left out.
"""

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from compress import catalog
from compress.contracts.clock import Clock
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.method import Method
from compress.contracts.task import Task, TrainingNumbers
from compress.reproduction.bed import cnn, seeded
from compress.teachers.remembered import RememberedTeacher
from compress.training.fit import fit

PLAIN = "vanilla_kd"
CLASSES = 10


class Noise(Task):
    """Ten classes of 28x28 noise: only the time counts."""

    name = "noise"
    labels = tuple(map(str, range(CLASSES)))
    input_shape = (1, 28, 28)

    def load(self, data: Path | None) -> Splits:
        raise NotImplementedError

    def frontend(self) -> nn.Module:
        return nn.Identity()

    def teacher(self) -> nn.Module:
        raise NotImplementedError


def noise(count: int, seed: int) -> TensorExamples:
    """That many examples."""
    source = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=source)
    return TensorExamples(torch.randn(count, 1, 28, 28, generator=source), labels, f"noise-{seed}")


def seconds_per_step(name: str, width: int, batch: int, steps: int) -> float:
    """CPU seconds of one step, over one epoch after a first one."""
    method: Method = catalog.load("compress.methods", name).METHOD
    objectives = {key: make() for key, make in method.objectives.items()}
    kept = 1.0 if method.strategy is None else 0.9  # about what a strategy leaves to train on
    splits = Splits(noise(round(batch * steps / kept), 1), noise(1, 2), noise(1, 3))
    answers = torch.randn(len(splits.train), CLASSES, generator=torch.Generator().manual_seed(4))
    student = seeded(0, lambda: cnn((width, 2 * width, 4 * width), CLASSES))
    begun: dict[int, float] = {}
    ended: dict[int, float] = {}
    taken: dict[int, int] = {}

    def note(clock: Clock) -> None:
        begun.setdefault(clock.epoch, time.process_time())
        ended[clock.epoch] = time.process_time()  # of the steps before this one
        taken[clock.epoch] = taken.get(clock.epoch, -1) + 1

    fit(
        method=method,
        students={"student": student},
        teachers=method.teachers(RememberedTeacher({"train": answers}), {"student": student}),
        objectives=objectives,
        weights={},
        splits=replace(splits, val=noise(0, 2)),
        task=Noise(),
        numbers=TrainingNumbers(epochs=2, batch_size=batch, learning_rate=1e-3),
        seed=0,
        precision="fp32",
        before_step=note,
    )
    return (ended[1] - begun[1]) / taken[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=24, help="of the epoch that is timed; an even number")
    parser.add_argument("--width", type=int, default=32, help="channels of the student's first convolution")
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ratios: dict[str, list[float]] = {name: [] for name in options.methods}
    for number in range(options.rounds):
        plain = seconds_per_step(PLAIN, options.width, options.batch, options.steps)
        for name, found in ratios.items():
            found.append(seconds_per_step(name, options.width, options.batch, options.steps) / plain)
        shown = ", ".join(f"{name} {found[-1]:.2f}" for name, found in ratios.items())
        print(f"round {number}: {PLAIN} {1000 * plain:.1f} ms of CPU a step; times as much: {shown}", flush=True)
    for name, found in ratios.items():
        print(f"{name}: {statistics.median(found):.2f} times {PLAIN} ({min(found):.2f} to {max(found):.2f})")


if __name__ == "__main__":
    main()
