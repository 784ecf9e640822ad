"""The stem of small convolutional networks: how far it reduces its input, and with which window."""

from compress.structure.layers import SMALLEST_MAP

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
