"""The plain residual network of the reference teachers: nothing but 3x3 and 1x1 convolutions, BN, ReLU and sums, which
every pruner, quantiser and runtime handles.

Source: He et al., "Deep Residual Learning for Image Recognition", arXiv:1512.03385, section 3.3 (basic block,
projection shortcuts).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """relu(shortcut(x) + BN(conv(relu(BN(conv(x))))))

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first convolution and the projection, in both directions.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        outer: Tensor = self.relu2(inner + self.shortcut(x))
        return outer


class ResidualNetwork(nn.Module):
    """Stem, stages of residual blocks (each later stage halves height and width), average pooling, one linear layer.

    Args:
        channels: of the input.
        widths: of the stages; the stem has the first one's.
        depths: blocks per stage.
        outputs: classes.
        dropout: before the linear layer.
        stem_stride: 2 where the first map would otherwise cost more than it is worth.
    """

    def __init__(
        self,
        channels: int,
        widths: Sequence[int],
        depths: Sequence[int],
        outputs: int,
        dropout: float = 0.0,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        if len(widths) != len(depths) or not widths:
            raise ValueError(f"{len(widths)} widths, {len(depths)} depths")
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, stride=stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        stages = []
        previous = widths[0]
        for number, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            blocks = []
            for place in range(depth):
                blocks.append(ResidualBlock(previous, width, stride=2 if number and not place else 1))
                previous = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(previous, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ResidualBlock):
                nn.init.zeros_(module.bn2.weight)  # every block starts as its shortcut: steadier early steps

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> (B, outputs) logits."""
        x = self.stages(self.stem(x))
        logits: Tensor = self.head(self.dropout(torch.flatten(self.pool(x), 1)))
        return logits
