"""Encoder, decoder, concatenated skips, transposed convolutions (Ronneberger et al. 2015, arXiv:1505.04597)."""

import torch
from torch import Tensor, nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.pictures import CLASSES, pictures


def _pair(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True),
        nn.Conv2d(cout, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True),
    )  # fmt: skip


class UNet(nn.Module):
    """Two levels down and up."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.middle, self.deep = _pair(1, 16), _pair(16, 32), _pair(32, 48)
        self.pool = nn.MaxPool2d(2)
        self.up2, self.join2 = nn.ConvTranspose2d(48, 32, 2, 2), _pair(64, 32)
        self.up1, self.join1 = nn.ConvTranspose2d(32, 16, 2, 2), _pair(32, 16)
        self.classify = nn.Conv2d(16, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 32, 32) -> (B, 3, 32, 32) logits."""
        first = self.enter(x)
        second = self.middle(self.pool(first))
        third = self.deep(self.pool(second))
        second = self.join2(torch.cat([second, self.up2(third)], 1))
        first = self.join1(torch.cat([first, self.up1(second)], 1))
        return self.classify(first)  # type: ignore[no-any-return]


def samples(count: int, seed: int, part: Part) -> Split:
    """Pictures of shapes; a tenth of the usual number, because each has a thousand labelled pixels."""
    images, labels = pictures(max(1, count // 10) if count >= 1000 else count, seed, part)
    return Split((images,), labels)


NETWORK = Network(
    "unet", "U-Net with concat and transposed convolution", UNet, samples, cross_entropy, top1,
    output_names=("logits",), epochs=14, batch=16,
)  # fmt: skip
