"""Convolution, batch norm and ReLU in a row, with max-pools."""

from torch import nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.digits import digits


def _block(cin: int, cout: int) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


def make() -> nn.Module:
    """(B, 1, 16, 16) -> (B, 10) logits."""
    return nn.Sequential(
        *_block(1, 16), nn.MaxPool2d(2), *_block(16, 32), *_block(32, 32), nn.MaxPool2d(2), *_block(32, 64),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip


def samples(count: int, seed: int, part: Part) -> Split:
    """Noisy digits."""
    images, labels = digits(count, seed, part)
    return Split((images,), labels)


NETWORK = Network("plain_cnn", "plain CNN", make, samples, cross_entropy, top1)
