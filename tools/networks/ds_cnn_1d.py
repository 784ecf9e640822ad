"""Depthwise separable convolutions over a raw waveform."""

from torch import nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.sounds import KINDS, sounds

LENGTH = 1024


def _conv(cin: int, cout: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    return [
        nn.Conv1d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm1d(cout),
        nn.ReLU(inplace=True),
    ]  # fmt: skip


def _separable(cin: int, cout: int, stride: int) -> list[nn.Module]:
    return [*_conv(cin, cin, 9, stride, cin), *_conv(cin, cout, 1)]


def make() -> nn.Module:
    """(B, 1, 1024) -> (B, 8) logits."""
    return nn.Sequential(
        *_conv(1, 32, 17, 4), *_separable(32, 48, 2), *_separable(48, 64, 2), *_separable(64, 64, 2),
        *_separable(64, 96, 2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(96, KINDS),
    )  # fmt: skip


def samples(count: int, seed: int, part: Part) -> Split:
    """Synthetic sounds."""
    waves, labels = sounds(count, seed, part, LENGTH)
    return Split((waves,), labels)


NETWORK = Network("ds_cnn_1d", "depthwise 1-D audio", make, samples, cross_entropy, top1, input_names=("waveform",))
