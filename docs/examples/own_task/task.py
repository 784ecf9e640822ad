"""Which shape is in a noisy picture: a task of one's own, with generated data, so that there is nothing to download."""

import hashlib
from pathlib import Path

import torch
from teacher import build
from torch import Tensor, nn

from compress.contracts.batch import Batch
from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.task import Task, TrainingNumbers
from compress.data_checks import check_splits
from compress.frontends.normalise import Normalise

SIDE = 16  # pixels
MEAN, STD = 0.27, 0.20  # of the training pixels


class Shapes(Task):
    """Four classes in equal parts; 2,000 / 400 / 800 pictures of 16x16 pixels in [0, 1]."""

    name = "shapes"
    labels = ("disc", "ring", "square", "cross")
    input_shape = (1, SIDE, SIDE)
    preprocessing = f"grey pixels in [0, 1], (x - {MEAN}) / {STD}"
    augments = True
    teacher_numbers = TrainingNumbers(epochs=8, batch_size=64, learning_rate=4e-3)

    def load(self, data: Path | None) -> Splits:
        splits = Splits(train=pictures(2000, seed=1), val=pictures(400, seed=2), test=pictures(800, seed=3))
        check_splits(self, splits)  # empty splits, NaN, labels out of range: said before anything trains
        return splits

    def frontend(self) -> nn.Module:
        return Normalise([MEAN], [STD])

    def teacher(self) -> nn.Module:
        return build()

    def augment(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Swap left and right in half of the pictures."""
        (pixels,) = batch.inputs
        coins = torch.rand(len(batch), 1, 1, 1, generator=generator, device=generator.device).to(pixels.device)
        return batch.with_inputs(torch.where(coins < 0.5, pixels.flip(-1), pixels))


def pictures(count: int, seed: int) -> TensorExamples:
    """`count` pictures, (count, 1, 16, 16); the same ones for the same seed."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    labels = torch.arange(count) % len(Shapes.labels)
    axis = torch.arange(SIDE, dtype=torch.float32)
    down = (axis.view(1, SIDE, 1) - uniform(5.0, 10.0)).abs()
    right = (axis.view(1, 1, SIDE) - uniform(5.0, 10.0)).abs()
    size = uniform(3.0, 5.0)
    away = (down.square() + right.square()).sqrt()
    reach = torch.maximum(down, right)
    shapes = torch.stack(
        [
            away <= size,
            (away - size).abs() <= 0.8,
            reach <= size * 0.85,
            (torch.minimum(down, right) <= 0.8) & (reach <= size),
        ]
    )
    drawn = shapes[labels, torch.arange(count)].to(torch.float32)
    noise = 0.12 * torch.randn(count, SIDE, SIDE, generator=generator)
    pixels = (0.2 + drawn * uniform(0.25, 0.6) + noise).clamp(0, 1).unsqueeze(1)
    digest = hashlib.sha256(pixels.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    return TensorExamples(pixels, labels, digest)


TASK = Shapes()
