"""Blocks that several networks are made of. Only shapes matter: nothing here is trained."""

from torch import Tensor, nn


def conv(
    i: int, o: int, k: int, s: int = 1, g: int = 1, act: nn.Module | None = None, pad: int | None = None
) -> nn.Module:
    """Convolution, batch normalisation, activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(i, o, k, s, k // 2 if pad is None else pad, groups=g, bias=False),
        nn.BatchNorm2d(o),
    ]
    return nn.Sequential(*layers, *([act] if act is not None else []))


class Add(nn.Module):
    """A residual block: branch plus skip, then an activation."""

    def __init__(self, branch: nn.Module, skip: nn.Module | None = None, act: nn.Module | None = None) -> None:
        super().__init__()
        self.branch, self.skip, self.act = branch, skip or nn.Identity(), act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.branch(x) + self.skip(x))


class SqueezeExcite(nn.Module):
    """Hu et al. 2018."""

    def __init__(self, channels: int, inner: int, act: nn.Module | None = None, gate: nn.Module | None = None) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)
        self.act, self.gate = act or nn.ReLU(), gate or nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(self.act(self.down(x.mean((2, 3), keepdim=True)))))


def inverted(
    i: int, o: int, k: int, s: int, inner: int, act: nn.Module, squeeze: int = 0, gate: nn.Module | None = None
) -> nn.Module:
    """Inverted residual: widen, depthwise, narrow (Sandler et al. 2018); squeeze is the inner width of an attention."""
    body = nn.Sequential(
        *([conv(i, inner, 1, act=act)] if inner != i else []),
        conv(inner, inner, k, s, inner, act=act),
        *([SqueezeExcite(inner, squeeze, act, gate)] if squeeze else []),
        conv(inner, o, 1),
    )
    return Add(body) if s == 1 and i == o else body


def fused_inverted(i: int, o: int, s: int, inner: int, act: nn.Module) -> nn.Module:
    """Inverted residual whose first two convolutions are one dense 3x3 (Tan and Le 2021)."""
    body = nn.Sequential(conv(i, inner, 3, s, act=act), conv(inner, o, 1)) if inner != i else conv(i, o, 3, s, act=act)
    return Add(body) if s == 1 and i == o else body


def eight(value: float, least: int = 8) -> int:
    """The multiple of eight that mobile networks round a width to, never more than a tenth below it."""
    rounded = max(least, int(value + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * value else rounded + 8


def classifier(channels: int, classes: int = 1000) -> list[nn.Module]:
    """Mean over the image, then one linear layer."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
