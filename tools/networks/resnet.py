"""Residual blocks, two of them strided with a convolution on the skip (He et al. 2016, arXiv:1512.03385)."""

import torch
from torch import Tensor, nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.digits import digits


def _conv(cin: int, cout: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout))


class Residual(nn.Module):
    """relu(skip(x) + conv(relu(conv(x))))."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.first = _conv(cin, cout, 3, stride)
        self.second = _conv(cout, cout, 3, 1)
        self.skip = _conv(cin, cout, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H / stride, W / stride)."""
        y = self.second(torch.relu(self.first(x)))
        return torch.relu(y + self.skip(x))


def make() -> nn.Module:
    """(B, 1, 16, 16) -> (B, 10) logits."""
    return nn.Sequential(
        _conv(1, 16, 3, 1), nn.ReLU(inplace=True), Residual(16, 16, 1), Residual(16, 32, 2), Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def samples(count: int, seed: int, part: Part) -> Split:
    """Noisy digits."""
    images, labels = digits(count, seed, part)
    return Split((images,), labels)


NETWORK = Network("resnet", "ResNet", make, samples, cross_entropy, top1, epochs=4)
