"""Layers that several student spaces are made of. Batch norm folds into the convolution in front of it."""

from torch import Tensor, nn

Pair = tuple[int, int]

SMALLEST_MAP = 4  # an axis is not halved below this many positions


def convolution(inputs: int, outputs: int, kernel: Pair, stride: Pair = (1, 1), groups: int = 1) -> nn.Sequential:
    """Convolution with batch norm, odd kernels; an axis keeps ceil(size / stride) positions."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


def activated(inputs: int, outputs: int, kernel: Pair, stride: Pair = (1, 1), groups: int = 1) -> nn.Sequential:
    """The same with a ReLU behind it."""
    return nn.Sequential(*convolution(inputs, outputs, kernel, stride, groups), nn.ReLU())


def separable(inputs: int, outputs: int, kernel: Pair, stride: Pair = (1, 1)) -> nn.Sequential:
    """Depthwise and 1x1, each with ReLU, as in DS-CNN (Zhang et al. 2017, arXiv:1711.07128, section 3.6)."""
    return nn.Sequential(*activated(inputs, inputs, kernel, stride, groups=inputs), *activated(inputs, outputs, (1, 1)))


class Residual(nn.Module):
    """relu(second(relu(first(x))) + shortcut(x)); He et al. 2016, arXiv:1512.03385, figure 2."""

    def __init__(self, inputs: int, outputs: int, kernel: Pair, stride: Pair = (1, 1)) -> None:
        super().__init__()
        self.first = activated(inputs, outputs, kernel, stride)
        self.second = convolution(outputs, outputs, kernel)
        same = inputs == outputs and stride == (1, 1)
        self.shortcut = nn.Identity() if same else convolution(inputs, outputs, (1, 1), stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride))."""
        output: Tensor = self.relu(self.second(self.first(x)) + self.shortcut(x))
        return output


def halved(size: int) -> int:
    """Positions that an axis keeps where a stage halves it: short axes stay."""
    return -(-size // 2) if size >= SMALLEST_MAP else size


def widths_of(ladder: tuple[int, ...], multiple: int) -> tuple[int, ...]:
    """A ladder of channels, rounded up to multiples of what the target's int8 kernels want; ascending."""
    return tuple(sorted({-(-width // multiple) * multiple for width in ladder}))


def at_least(widths: tuple[int, ...], channels: int) -> int:
    """The smallest of these ascending widths that is not below `channels`, or the largest there is."""
    return next((width for width in widths if width >= channels), widths[-1])


def pool(size: Pair, smaller: Pair) -> nn.Module:
    """Max-pool that keeps ceil(size / 2) positions of each axis that is halved.

    Windows are 2 wide, and 3 where the axis is odd: then padding is the same on both sides, which every runtime has.
    """
    stride = (1 if smaller[0] == size[0] else 2, 1 if smaller[1] == size[1] else 2)
    window = tuple(1 if step == 1 else 2 + length % 2 for step, length in zip(stride, size, strict=True))
    return nn.Identity() if stride == (1, 1) else nn.MaxPool2d(window, stride, tuple(side // 3 for side in window))
