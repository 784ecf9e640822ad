"""Inverted residuals with squeeze-excite and hard-swish (Howard et al. 2019, arXiv:1905.02244)."""

from torch import Tensor, nn

from tools.networks import Network, Part, Split, cross_entropy, top1
from tools.networks.data.digits import digits


def _conv(cin: int, cout: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(cout, eps=1e-3)
    )


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate that sees their means (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels // 4, 1), nn.ReLU(inplace=True),
            nn.Conv2d(channels // 4, channels, 1), nn.Hardsigmoid(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        return x * self.gate(x)  # type: ignore[no-any-return]


class Inverted(nn.Module):
    """Expand, depthwise, squeeze-excite, project; added to the input where the shape stays."""

    def __init__(self, cin: int, wide: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _conv(cin, wide), nn.Hardswish(inplace=True),
            _conv(wide, wide, 3, stride, wide), nn.Hardswish(inplace=True), SqueezeExcite(wide),
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
        _conv(1, 16, 3), nn.Hardswish(inplace=True), Inverted(16, 64, 16, 1), Inverted(16, 64, 32, 2),
        Inverted(32, 96, 32, 1), Inverted(32, 96, 32, 2), _conv(32, 96), nn.Hardswish(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 64), nn.Hardswish(inplace=True), nn.Linear(64, 10),
    )  # fmt: skip


def samples(count: int, seed: int, part: Part) -> Split:
    """Noisy digits."""
    images, labels = digits(count, seed, part)
    return Split((images,), labels)


NETWORK = Network("mobilenet_v3", "MobileNetV3 with SE and hard-swish", make, samples, cross_entropy, top1)
