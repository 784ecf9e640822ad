"""What an activation's range is while data goes by: found in calibration, followed in training.

Sources: the moving average of batches' ranges, Jacob et al. 2018, arXiv:1712.05877, section 3.1.

A rule that looks at the distribution (percentile, least squares) sees the histogram of all calibration batches. While
weights train, the shape of the distribution is kept and its size is followed: the range is stretched by the moving
average of the mean magnitude, which costs as little as min-max does and hardly notices an outlier.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from compress.qat import histogram
from compress.qat.ranges import Codes, RangeRule

MOMENTUM = 0.01  # weight of a new batch in the moving average, once 100 batches were seen


class RangeObserver(nn.Module, ABC):
    """The range of one tensor.

    Buffers: low, high, (1,) float32, in units of the tensor; seen, (1,) int64, batches that moved them.
    """

    low: Tensor
    high: Tensor
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(1))
        self.register_buffer("high", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.int64))

    @abstractmethod
    def calibrate(self, x: Tensor, codes: Codes) -> bool:
        """Take in a calibration batch; whether the range moved. One that is empty or not finite changes nothing."""

    @abstractmethod
    def settle(self, codes: Codes) -> bool:
        """End the calibration; whether the range moved."""

    @abstractmethod
    def follow(self, x: Tensor, codes: Codes) -> bool:
        """Move the range towards a training batch's; whether it moved."""

    def weight(self) -> float:
        """Of the next batch: equal for the first ones, so that calibration is their mean; constant afterwards."""
        return max(1.0 / (int(self.seen) + 1), MOMENTUM)


class MinMaxObserver(RangeObserver):
    """The moving average of the batches' least and largest values."""

    def calibrate(self, x: Tensor, codes: Codes) -> bool:
        """As in training."""
        return self.follow(x, codes)

    def settle(self, codes: Codes) -> bool:
        """Nothing is left to do."""
        return False

    def follow(self, x: Tensor, codes: Codes) -> bool:
        """Two passes over the batch."""
        if x.numel() == 0:
            return False
        # Not aminmax: seven times slower on a channels-last tensor (torch 2.13, CPU).
        low, high = x.detach().amin().item(), x.detach().amax().item()
        if not (math.isfinite(low) and math.isfinite(high)):
            return False
        weight = self.weight()
        self.low.lerp_(torch.full_like(self.low, low), weight)
        self.high.lerp_(torch.full_like(self.high, high), weight)
        self.seen += 1
        return True


class HistogramObserver(RangeObserver):
    """A rule's range for the histogram of all calibration batches.

    Args:
        rule: finds the range.
    """

    size: Tensor

    def __init__(self, rule: RangeRule) -> None:
        super().__init__()
        self.rule = rule
        self.register_buffer("size", torch.zeros(1))  # moving average of the batches' mean magnitudes
        self._counts: Tensor | None = None  # only while calibrating: half a megabyte

    def calibrate(self, x: Tensor, codes: Codes) -> bool:
        """Count the batch's values; the range waits for `settle`."""
        size = _size(x)
        if size is None:
            return False
        counts = histogram.counted(x)
        self._counts = counts if self._counts is None else self._counts.add_(counts)
        self.size.lerp_(torch.full_like(self.size, size), self.weight())
        self.seen += 1
        return False

    def settle(self, codes: Codes) -> bool:
        """Find the range from what was counted."""
        if self._counts is None:
            return False
        low, high = self.rule.fit(histogram.histogram(self._counts), codes)
        self._counts = None
        self.low.fill_(low)
        self.high.fill_(high)
        return True

    def follow(self, x: Tensor, codes: Codes) -> bool:
        """Stretch the range as the mean magnitude grows. The first batch of all counts as calibration."""
        if float(self.size) == 0.0:  # never calibrated, or dead until now
            self.seen.zero_()
            self.calibrate(x, codes)
            return self.settle(codes)
        size = _size(x)
        if size is None:
            return False
        before = float(self.size)
        self.size.lerp_(torch.full_like(self.size, size), self.weight())
        stretch = float(self.size) / before
        self.low.mul_(stretch)
        self.high.mul_(stretch)
        self.seen += 1
        return True


def _size(x: Tensor) -> float | None:
    """Mean magnitude of a batch; None where it is empty or not finite."""
    if x.numel() == 0:
        return None
    size = float(x.detach().abs().mean(dtype=torch.float32))
    return size if math.isfinite(size) else None
