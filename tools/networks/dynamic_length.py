"""Convolutions over a signal of any length, a recurrent layer, and the mean over time."""

import torch
from torch import Tensor, nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.signals import CHANNELS, CLASSES, signals

LENGTH = 48


def _conv(cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    return [
        nn.Conv1d(cin, cout, kernel, stride, dilation * (kernel // 2), dilation, bias=False), nn.BatchNorm1d(cout),
        nn.ReLU(inplace=True),
    ]  # fmt: skip


class AnyLength(nn.Module):
    """Dilated convolutions see the whole order of the patterns."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            *_conv(CHANNELS, 32, 7), *_conv(32, 48, 5, 2), *_conv(48, 48, 5, 1, 2), *_conv(48, 48, 5, 1, 4)
        )
        self.gru = nn.GRU(48, 32, batch_first=True)
        self.head = nn.Linear(80, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 8, samples) -> (B, 6) logits."""
        found = self.network(x)
        states, _ = self.gru(found.transpose(1, 2))
        return self.head(torch.cat([found.mean(2), states[:, -1]], 1))  # type: ignore[no-any-return]


def samples(count: int, seed: int, part: Part) -> Split:
    """Patterns in noise."""
    x, labels = signals(count, seed, part, LENGTH)
    return Split((x,), labels)


NETWORK = Network(
    "dynamic_length", "signal of any length", AnyLength, samples, cross_entropy, top1,
    input_names=("signal",), dynamic={"signal": {2: "length"}}, epochs=4,
)  # fmt: skip
