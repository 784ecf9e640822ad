"""Small networks that turn a stage's features into logits while a student is trained.

Source: Hao, Guo, Han, Tang, Hu, Wang, Xu, "One-for-All: Bridge the Gap Between Heterogeneous Architectures in Knowledge
Distillation", NeurIPS 2023, arXiv:2310.19444, and its published code: separable convolutions that halve the map for
convolutional students, patch merging and transformer blocks for students of tokens. Numbers that the code fixes for
pictures of 224 pixels (a grid of 7 x 7) are arguments here. The light branch is proposed, for small students: the
published ones cost as much as such a student itself.
"""

import math

from torch import Tensor, nn

from compress.contracts.stages import Stage
from compress.structure.attention import Block

HEADS = 4
RATIO = 4  # of the perceptron's hidden width to the token's


class Light(nn.Module):
    """Mean over positions, layer norm, one linear layer."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(channels), nn.Linear(channels, outputs)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, ...) -> (B, outputs)."""
        logits: Tensor = self.head(self.norm(mean_of(x)))
        return logits


class Convolutions(nn.Module):
    """Separable convolutions that halve the map and double the channels, the mean over positions, a linear layer.

    Args:
        channels: of the stage.
        halvings: blocks; 0 gives one 1x1 convolution instead.
        width: channels that the last block or the 1x1 convolution gives.
    """

    def __init__(self, channels: int, halvings: int, width: int, outputs: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for number in range(1, halvings + 1):
            after = width if number == halvings else 2 * before
            layers += [*separable(before, before, 2), *separable(before, after, 1)]
            before = after
        self.blocks = nn.Sequential(*(layers or [nn.Conv2d(channels, width, 1)]))
        self.head = nn.Linear(width, outputs)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) or (B, channels, L) -> (B, outputs)."""
        logits: Tensor = self.head(mean_of(self.blocks(x if x.ndim == 4 else x.unsqueeze(2))))
        return logits


class Tokens(nn.Module):
    """Patch merging down to a grid, transformer blocks, the mean over tokens, a linear layer.

    Args:
        channels: of the stage's tokens.
        grid: (H, W) of them.
        smallest: rows and columns that merging keeps at least; 7 in the paper. It stops before an odd side, too.
        depth: transformer blocks.
        width: channels of the student's last stage.
    """

    def __init__(
        self, channels: int, grid: tuple[int, int], smallest: int, depth: int, width: int, outputs: int
    ) -> None:
        super().__init__()
        merges: list[nn.Module] = []
        before = channels
        for _ in range(merges_of(grid, smallest)):
            after = min(width, 2 * before) if before < width else width
            merges.append(PatchMerging(before, after))
            before = after
        self.merges = nn.Sequential(*merges)
        self.widen = nn.Identity() if before == width else nn.Linear(before, width)
        heads = math.gcd(HEADS, width)
        self.blocks = nn.Sequential(*(Block(width, heads, RATIO * width) for _ in range(depth)))
        self.head = nn.Linear(width, outputs)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs)."""
        tokens = self.widen(self.merges(x.movedim(1, -1)).flatten(1, 2))
        logits: Tensor = self.head(self.blocks(tokens).mean(1))
        return logits


class PatchMerging(nn.Module):
    """Four neighbours become one token: layer norm, a linear layer without bias, GELU."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, width, bias=False)
        self.gelu = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, channels) with even H and W -> (B, H / 2, W / 2, width)."""
        count, high, wide, channels = x.shape
        four = x.reshape(count, high // 2, 2, wide // 2, 2, channels).transpose(2, 3).flatten(3)
        merged: Tensor = self.gelu(self.reduce(self.norm(four)))
        return merged


def merges_of(grid: tuple[int, int], smallest: int) -> int:
    """How often a grid can be halved while both sides are even and keep `smallest` positions."""
    (high, wide), count = grid, 0
    while high % 2 == wide % 2 == 0 and min(high, wide) // 2 >= smallest:
        high, wide, count = high // 2, wide // 2, count + 1
    return count


def full_branch(
    stage: Stage, channels: int, number: int, count: int, width: int, outputs: int, smallest: int
) -> nn.Module:
    """The published branch of the `number`-th of `count` stages, by the family of its features; vectors get a light
    one.

    Args:
        channels: of the stage.
        width: channels of the branch's last layer.
        smallest: grid that tokens are merged down to at most.
    """
    if not stage.grid:
        return Light(channels, outputs)
    if not stage.tokens:
        return Convolutions(channels, count - number, width, outputs)
    high, wide = stage.grid if len(stage.grid) == 2 else (1, stage.grid[0])
    return Tokens(channels, (high, wide), smallest, max(count - number, 1), width, outputs)


def separable(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Depthwise 3x3, 1x1, batch norm, ReLU."""
    return [
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    ]


def mean_of(x: Tensor) -> Tensor:
    """(B, C, ...) -> (B, C), the mean over positions."""
    return x.flatten(2).mean(2) if x.ndim > 2 else x


def initialise(module: nn.Module) -> None:
    """Convolutions: normal by fan-out; linear layers: truncated normal of 0.02; norms: 1 and 0; biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        elif isinstance(part, nn.BatchNorm2d | nn.LayerNorm):
            nn.init.ones_(part.weight)
        if isinstance(part, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.LayerNorm) and part.bias is not None:
            nn.init.zeros_(part.bias)
