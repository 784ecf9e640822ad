"""Small convolutional networks: a stem, which reduces its input, and stages of blocks, which halve the map."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from compress.structure.layers import SMALLEST_MAP, Pair, halved

LADDER = (8, 12, 16, 24, 32, 48, 64, 96, 128)  # channels, before rounding up to the target's multiple
LARGEST_MAP = 64  # positions per axis that the first stage may see; larger inputs are reduced in the stem
LARGEST_SIGNAL = 512  # the same for one-dimensional signals, whose cost grows with length only
STEM_CHOICES = 3  # reductions offered, in powers of two


def stem_strides(axes: tuple[int, ...]) -> tuple[int, ...]:
    """Reductions worth offering for an input of this size, each a power of two, the smallest first."""
    longest, most = max(axes), LARGEST_MAP if len(axes) == 2 else LARGEST_SIGNAL
    first = 1
    while longest / first > most:
        first *= 2
    return (first, *(s for i in range(1, STEM_CHOICES) if longest / (s := first * 2**i) >= SMALLEST_MAP))


def most_stages(axes: tuple[int, ...], stem_stride: int, most: int) -> int:
    """Stages that an input of this size has room for, two to `most`: from the second on, each halves the map."""
    return max(2, min(most, (max(axes) // stem_stride).bit_length() - 1))


def reduced(size: int, stride: int) -> int:
    """The reduction that one axis gets when `stride` is asked for: no axis falls below `SMALLEST_MAP` positions."""
    while stride > 1 and size / stride < SMALLEST_MAP:
        stride //= 2
    return stride


def stem_kernel(size: int, stride: int) -> int:
    """Odd, so that the padding is the same on both sides. Each position is seen by about four windows, whatever the
    stride; for stride 4 this is the usual 7."""
    return 1 if size == 1 else max(3, 2 * stride - 1)


@dataclass(frozen=True)
class Stem:
    """The first convolution.

    Attributes:
        kernel, stride: along both axes.
        size: of the map that it gives.
    """

    kernel: Pair
    stride: Pair
    size: Pair


def stem_of(shape: tuple[int, ...], stem_stride: int) -> Stem:
    """The stem for features (C, H, W), or (C, L), which is a map one high."""
    height, width = (1, shape[1]) if len(shape) == 2 else (shape[1], shape[2])
    stride = (reduced(height, stem_stride), reduced(width, stem_stride))
    kernel = (stem_kernel(height, stride[0]), stem_kernel(width, stride[1]))
    return Stem(kernel, stride, (-(-height // stride[0]), -(-width // stride[1])))


def stages_of(
    size: Pair, widths: Sequence[int], depths: Sequence[int], block: Callable[[int, int, int, Pair, Pair], nn.Module]
) -> nn.Sequential:
    """A sequence of blocks for each stage; from the second stage on, the first block halves each axis that is long
    enough.

    Args:
        size: of the map that the stem gives, with as many channels as the first stage.
        widths, depths: channels and blocks of each stage.
        block: makes one from (stage, inputs, outputs, size of the map in front of it, stride).
    """
    stages: list[nn.Module] = []
    inputs = widths[0]
    for stage, (channels, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks: list[nn.Module] = []
        for number in range(depth):
            after = (halved(size[0]), halved(size[1])) if stage > 0 and number == 0 else size
            stride = (1 if after[0] == size[0] else 2, 1 if after[1] == size[1] else 2)
            blocks.append(block(stage, inputs, channels, size, stride))
            size, inputs = after, channels
        stages.append(nn.Sequential(*blocks))
    return nn.Sequential(*stages)


def window(extent: int, size: Pair) -> Pair:
    """A kernel of this extent along each axis that has more than one position."""
    return (extent if size[0] > 1 else 1, extent if size[1] > 1 else 1)
