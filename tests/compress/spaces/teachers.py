"""Teachers as users bring them, each with features (1, 28, 28) and 10 outputs."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.spaces.int8_conv import ConvNet, Plan

SHAPE = (1, 28, 28)


def plain() -> nn.Module:
    """Convolutions, a flatten with several positions per channel, linear layers."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.PReLU(64),
        nn.Flatten(),
        nn.Linear(64 * 49, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


def residual() -> nn.Module:
    """A ResNet with projection shortcuts."""
    return ConvNet(Plan("residual", 2, (32, 48, 64), (2, 2, 2)), SHAPE, 10)


class Separable(nn.Sequential):
    """Depthwise and pointwise convolution with batch norm."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )


def separable() -> nn.Module:
    """A MobileNet: depthwise convolutions, repeated blocks without addition."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        Separable(32, 64),
        Separable(64, 64),
        Separable(64, 96, 2),
        Separable(96, 96),
        Separable(96, 96),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(96, 10),
    )


class Concat(nn.Module):
    """Two branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, stride=2)
        self.left = nn.Conv2d(32, 32, 3, padding=1)
        self.right = nn.Conv2d(32, 48, 1)
        self.norm = nn.BatchNorm2d(80)
        self.last = nn.Conv2d(80, 32, 3, stride=4)
        self.head = nn.Linear(32 * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 10)."""
        x = self.first(x).relu()
        both = self.norm(torch.cat([self.left(x), self.right(x)], dim=1))
        output: Tensor = self.head(self.last(both.relu()).flatten(1))
        return output


def perceptron() -> nn.Module:
    """Linear layers only."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 10))


class Attention(nn.Module):
    """Heads by reshape."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> the same."""
        batch, length, width = x.shape
        parts = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0], parts[1], parts[2])
        output: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return output


class EncoderBlock(nn.Module):
    """Attention and a perceptron, each added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, 4)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, width) -> the same."""
        x = x + self.attention(self.norm1(x))
        output: Tensor = x + self.perceptron(self.norm2(x))
        return output


class Transformer(nn.Module):
    """A small ViT with a class token and a position embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, 32, 7, 7)
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.position = nn.Parameter(torch.zeros(1, 17, 32))
        self.blocks = nn.Sequential(*[EncoderBlock(32) for _ in range(3)])
        self.norm = nn.LayerNorm(32)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 10)."""
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1) + self.position
        output: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return output


class GroupNormed(nn.Module):
    """Two group norms of different group counts over coupled channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 64, 3, stride=2)
        self.norm1 = nn.GroupNorm(4, 64)
        self.two = nn.Conv2d(64, 64, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 10)."""
        x = self.norm1(self.one(x)).relu()
        x = x + self.norm2(self.two(x)).relu()
        output: Tensor = self.head(x.mean(dim=(2, 3)))
        return output


class Shared(nn.Module):
    """One convolution that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, stride=2)
        self.twice = nn.Conv2d(32, 32, 3, padding=1)
        self.last = nn.Conv2d(32, 32, 3)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 10)."""
        x = self.twice(self.twice(self.first(x).relu()).relu()).relu()
        output: Tensor = self.head(self.last(x).relu().mean(dim=(2, 3)))
        return output


class Grouped(nn.Module):
    """A grouped convolution that is not depthwise."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 64, 3, stride=2)
        self.grouped = nn.Conv2d(64, 64, 3, groups=4)
        self.last = nn.Conv2d(64, 48, 1)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 10)."""
        x = self.last(self.grouped(self.first(x).relu()).relu()).relu()
        output: Tensor = self.head(x.mean(dim=(2, 3)))
        return output


class Gate(nn.Module):
    """Squeeze and excite."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, 16)
        self.up = nn.Linear(16, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        return x * self.up(self.down(x.mean(dim=(2, 3))).relu()).sigmoid()[:, :, None, None]


class InvertedBlock(nn.Module):
    """Expand, depthwise, gate, project, add."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, 2 * width, 1)
        self.depthwise = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.gate = Gate(2 * width)
        self.project = nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        inner = self.gate(self.depthwise(self.expand(x).relu()).relu())
        output: Tensor = x + self.project(inner)
        return output


class Gated(nn.Module):
    """Blocks of an EfficientNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, stride=2)
        self.stage = nn.Sequential(InvertedBlock(32), InvertedBlock(32), InvertedBlock(32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 10)."""
        output: Tensor = self.head(self.stage(self.stem(x).relu()).mean(dim=(2, 3)))
        return output


class Recurrent(nn.Module):
    """A GRU over the rows of a feature map."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 32, 3, 2, 1)
        self.rows = nn.GRU(32 * 14, 32, batch_first=True)
        self.middle = nn.Linear(32, 48)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 28, 28) -> (B, 10)."""
        x = self.first(x).relu().permute(0, 2, 1, 3).flatten(2)
        output: Tensor = self.head(self.middle(self.rows(x)[0][:, -1]).relu())
        return output


TEACHERS: Mapping[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "residual": residual,
    "separable": separable,
    "concat": Concat,
    "perceptron": perceptron,
    "transformer": Transformer,
    "group_normed": GroupNormed,
    "shared": Shared,
    "grouped": Grouped,
    "gated": Gated,
    "recurrent": Recurrent,
}


def teacher(name: str) -> nn.Module:
    """In eval mode, with norms whose statistics and weights are not those they start with."""
    torch.manual_seed(0)
    network = TEACHERS[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()
