"""The teacher's network. `compress` calls `build()` and puts the weights of `teacher.safetensors` into it."""

from torch import Tensor, nn


class ShapeNetwork(nn.Module):
    """(B, 1, 16, 16), normalised -> (B, 4) logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(1, 32)
        self.stages = nn.Sequential(_conv(32, 64, stride=2), _conv(64, 64), _conv(64, 128, stride=2), _conv(128, 128))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.stages(self.stem(x))).flatten(1))
        return logits


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def build() -> nn.Module:
    return ShapeNetwork()
