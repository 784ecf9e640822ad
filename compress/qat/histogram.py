"""Counts of a tensor's values over many batches, in bins of constant relative width.

The bin of a value is the head of its float32 code: sign, exponent and nine bits of the mantissa. So the bins need no
range beforehand, an outlier does not coarsen the bins of the rest, counts of two parts of the data add up to the counts
of the whole in any order, and zero has a bin of its own.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MANTISSA = 9  # bits kept: a bin is 2^-10 to 2^-9 of its value wide, a quarter of a step at the end of an 8-bit range
LEAST_EXPONENT = -24  # magnitudes below 2^-24 count as zero: no scale is smaller
LARGEST_EXPONENT = 40  # magnitudes from 2^40 on count into the last bin
_SHIFT = 23 - MANTISSA
_FIRST = (LEAST_EXPONENT + 127) << MANTISSA  # head of the code of 2^-24
_BINS = (LARGEST_EXPONENT - LEAST_EXPONENT) << MANTISSA  # of one sign, without zero


@dataclass(frozen=True)
class Histogram:
    """Where the values of a tensor lie.

    Attributes:
        centres: (N,) float64, ascending; the middle of each bin that holds a value.
        counts: (N,) float64, values in it, > 0.
    """

    centres: Tensor
    counts: Tensor


def empty(device: torch.device | None = None) -> Tensor:
    """Counts of nothing: (bins,) int64, to be added to."""
    return torch.zeros(2 * _BINS + 1, dtype=torch.int64, device=device)


def counted(x: Tensor) -> Tensor:
    """Counts of one tensor.

    Args:
        x: any shape, floating point. Values that are not finite are left out.

    Returns:
        (bins,) int64, from the most negative bin to the most positive one.
    """
    values = x.detach().reshape(-1).float()
    values = values[torch.isfinite(values)]
    head = (values.abs().view(torch.int32) >> _SHIFT) - (_FIRST - 1)  # 0 stands for zero, 1 for 2^-24
    head = head.clamp_(0, _BINS)
    index = _BINS + torch.where(values < 0, -head, head)
    return torch.bincount(index, minlength=2 * _BINS + 1)


def histogram(counts: Tensor) -> Histogram:
    """The bins that hold something, with the value each stands for.

    Args:
        counts: (bins,), sums of what `counted` gave.
    """
    taken = counts.nonzero().reshape(-1)
    head = taken - _BINS
    code = (head.abs() + (_FIRST - 1)) << _SHIFT
    middle = (code + (1 << (_SHIFT - 1))).to(torch.int32).view(torch.float32).double()
    centres = torch.where(head == 0, 0.0, torch.where(head < 0, -middle, middle))
    return Histogram(centres, counts[taken].double())
