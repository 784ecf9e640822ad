"""What every tool under `tools/bench_qat.py` trains, on which data, and how: the same for all of them.

Imports torch and numpy alone, so that it runs in an environment of the peers, too.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH = 128
CALIBRATION_BATCHES = 8  # the first ones of the training data
WARM_UP = 0.1  # share of the steps
BATCHNORM_FREEZES = 0.5  # share of the fine-tuning; the user's loop does it, so every tool gets it
RANGES_FREEZE = 0.75  # where a tool's ranges move at all
TEMPERATURE = 4.0
SOFT = 0.9  # weight of the teacher's answers


@dataclass(frozen=True)
class Data:
    """Pictures (N, 1, H, W) float32, labels (N,) int64."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def save(self, path: Path) -> None:
        """As npz without pickled objects."""
        names = ("train_x", "train_y", "test_x", "test_y")
        np.savez(path, **dict(zip(names, (part.numpy() for part in (*self.train, *self.test)), strict=True)))

    @staticmethod
    def load(path: Path) -> "Data":
        """What `save` wrote."""
        with np.load(path, allow_pickle=False) as found:
            parts = [torch.from_numpy(found[name]) for name in ("train_x", "train_y", "test_x", "test_y")]
        return Data((parts[0], parts[1]), (parts[2], parts[3]))

    def calibration(self) -> list[Tensor]:
        """The same batches for every tool."""
        return list(self.train[0][: CALIBRATION_BATCHES * BATCH].split(BATCH))


def _conv(cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)
    )


class Inverted(nn.Module):
    """Expand, depthwise, project (Sandler et al. 2018, arXiv:1801.04381)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        wide = 4 * cin
        self.body = nn.Sequential(
            _conv(cin, wide), nn.ReLU(), _conv(wide, wide, 3, stride, wide), nn.ReLU(), _conv(wide, cout)
        )
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H / stride, W / stride)."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


class Residual(nn.Module):
    """Two convolutions and a skip (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _conv(cin, cout, 3, stride), _conv(cout, cout, 3)
        self.skip = _conv(cin, cout, 1, stride) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H / stride, W / stride)."""
        y: Tensor = self.relu(self.second(self.relu(self.first(x))) + self.skip(x))
        return y


def student() -> nn.Module:
    """A narrow depthwise network: (B, 1, H, W) -> (B, 10)."""
    return nn.Sequential(
        _conv(1, 12, 3, 2), nn.ReLU(), Inverted(12, 16, 1), Inverted(16, 16, 1), Inverted(16, 24, 2),
        Inverted(24, 24, 1), _conv(24, 64), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def teacher() -> nn.Module:
    """A wider residual network for the same pictures."""
    return nn.Sequential(
        _conv(1, 24, 3, 2), nn.ReLU(), Residual(24, 24, 1), Residual(24, 48, 2), Residual(48, 48, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 10),
    )  # fmt: skip


def resnet20() -> nn.Module:
    """The network whose step is timed: (B, 3, 32, 32) -> (B, 10)."""
    layers: list[nn.Module] = [_conv(3, 16, 3), nn.ReLU()]
    wide = 16
    for cout, stride in ((16, 1), (32, 2), (64, 2)):
        for number in range(3):
            layers.append(Residual(wide, cout, stride if number == 0 else 1))
            wide = cout
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def answers(network: nn.Module, x: Tensor) -> Tensor:
    """(N, 10) logits."""
    with torch.no_grad():
        return torch.cat([network(part) for part in x.split(500)])


def accuracy(network: nn.Module, data: Data) -> float:
    """Share of the test pictures named right."""
    x, y = data.test
    return float((answers(network, x).argmax(1) == y).double().mean())


def train(
    network: nn.Module,
    data: Data,
    *,
    epochs: int,
    rate: float,
    seed: int,
    soft: Tensor | None = None,
    before_step: Callable[[float], None] = lambda progress: None,
) -> None:
    """AdamW with a linear rise and half a cosine, mirrored pictures, the same order for every tool at one seed.

    Args:
        network: in training mode; left in it.
        soft: (N, 10) the teacher's logits for the training pictures and, behind them, for their mirror images; None
            trains on labels alone.
        before_step: told the share of steps that are done.
    """
    x, y = data.train
    generator = torch.Generator().manual_seed(seed)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0, fused=True)
    steps = epochs * (len(x) // BATCH)
    step = 0
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        mirrored = torch.rand(len(x), generator=generator) < 0.5
        for index in order[: len(x) // BATCH * BATCH].split(BATCH):
            before_step(step / steps)
            flip = mirrored[index]
            pictures = torch.where(flip[:, None, None, None], x[index].flip(3), x[index])
            output = network(pictures)
            loss = F.cross_entropy(output, y[index])
            if soft is not None:
                log_p = F.log_softmax(soft[index + flip * len(x)] / TEMPERATURE, 1)
                log_q = F.log_softmax(output / TEMPERATURE, 1)
                distilled = TEMPERATURE**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)
                loss = SOFT * distilled + (1 - SOFT) * loss
            for group in optimizer.param_groups:
                group["lr"] = rate * _factor(step, steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1


def _factor(step: int, steps: int) -> float:
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm + 1) / max(1, steps - warm)))


def interleaved(networks: dict[str, nn.Module], x: Tensor, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of one training step of each network, one after the other in every round; the first two are dropped.

    Args:
        networks: in training mode.
        x: (B, ...) one batch.

    Returns:
        name -> one time per round, so that times of one round can be compared.
    """
    y = torch.arange(len(x)) % 10
    optimizers = {name: torch.optim.AdamW(n.parameters(), lr=1e-4, fused=True) for name, n in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    for number in range(rounds + 2):
        for name, network in networks.items():
            start = time.process_time()
            loss = F.cross_entropy(network(x), y)
            optimizers[name].zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizers[name].step()
            if number >= 2:
                times[name].append(time.process_time() - start)
    return times


def ratio(times: dict[str, list[float]], name: str) -> tuple[float, float, float]:
    """Median, 10th and 90th percentile of a step's time over the plain one's of the same round."""
    found = sorted(a / b for a, b in zip(times[name], times["plain"], strict=True))
    tenth = len(found) // 10
    return statistics.median(found), found[tenth], found[-1 - tenth]
