"""Inverted residuals with ReLU6 (Sandler et al. 2018, arXiv:1801.04381)."""

from torch import Tensor, nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.digits import digits


def _conv(cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout)
    )


class Inverted(nn.Module):
    """Expand, depthwise, project; added to the input where the shape stays."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        wide = expand * cin
        self.body = nn.Sequential(
            _conv(cin, wide), nn.ReLU6(inplace=True),
            _conv(wide, wide, 3, stride, wide), nn.ReLU6(inplace=True),
            _conv(wide, cout),
        )  # fmt: skip
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """(B, cin, H, W) -> (B, cout, H / stride, W / stride)."""
        y: Tensor = self.body(x)
        return x + y if self.residual else y


def make() -> nn.Module:
    """(B, 1, 16, 16) -> (B, 10) logits."""
    return nn.Sequential(
        _conv(1, 16, 3), nn.ReLU6(inplace=True), Inverted(16, 16, 1), Inverted(16, 32, 2), Inverted(32, 32, 1),
        Inverted(32, 32, 2), _conv(32, 96), nn.ReLU6(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(96, 10),
    )  # fmt: skip


def samples(count: int, seed: int, part: Part) -> Split:
    """Noisy digits."""
    images, labels = digits(count, seed, part)
    return Split((images,), labels)


NETWORK = Network("mobilenet_v2", "MobileNetV2", make, samples, cross_entropy, top1)
