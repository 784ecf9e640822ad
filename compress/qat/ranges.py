"""The range of a tensor that a quantised grid should cover, and the grid over a range.

Sources: min-max and the grid, Jacob et al. 2018, arXiv:1712.05877, sections 2.1 and 3.1; percentile, Wu et al. 2020,
arXiv:2004.09602, section 3.3; least mean squared error, Nagel et al. 2021, arXiv:2106.08295, section 3.1; mean
magnitude, Esser et al. 2020, arXiv:1902.08153, section 2.1.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from compress.qat.histogram import Histogram

Method = Literal["minmax", "percentile", "mse", "magnitude"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse", "magnitude")
WeightMethod = Literal["max", "mse"]
WEIGHT_METHODS: tuple[WeightMethod, ...] = ("max", "mse")

FLOOR = 2.0**-24  # least scale: of the largest scale of the tensor for weights, absolute for activations
PERCENTILE = 99.99  # of the values, inside the range of the percentile rule
COARSE = torch.logspace(0, -6, 49, base=2.0, dtype=torch.float64)  # of the widest range: eight candidates per halving
FINE = torch.linspace(0.93, 1.07, 29, dtype=torch.float64)  # of the best of those
SWEEPS = 2  # over both ends of an asymmetric range
WEIGHT_SHRINKS = torch.linspace(1.0, 0.5, 51, dtype=torch.float64)  # of a channel's largest magnitude


@dataclass(frozen=True)
class Codes:
    """A grid of integer codes.

    Attributes:
        low, high: ends, inclusive.
        symmetric: zero is code 0, and both ends clip at the same magnitude (but for the code that int8 has more).
    """

    low: int
    high: int
    symmetric: bool

    def place(self, low: float, high: float) -> tuple[float, int]:
        """(scale, zero point) of the grid over a range, which is stretched to hold zero.

        Args:
            low, high: finite, low <= high, in units of the tensor.

        Returns:
            A scale of at least 2^-24 and the code of zero, one of the grid's.
        """
        low, high = min(low, 0.0), max(high, 0.0)
        if self.symmetric:
            return max(max(-low, high) / self.high, FLOOR), 0
        scale = (high - low) / (self.high - self.low)
        if scale <= FLOOR:
            return FLOOR, min(max(0, self.low), self.high)
        return scale, min(max(self.low - round(low / scale), self.low), self.high)

    def error(self, histogram: Histogram, lows: Tensor, highs: Tensor) -> Tensor:
        """Sum of squared rounding and clipping errors of each candidate range.

        Args:
            lows, highs: (K,) float64 in units of the tensor; low <= 0 <= high.

        Returns:
            (K,) float64.
        """
        if self.symmetric:
            scale, zero = torch.maximum(-lows, highs) / self.high, torch.zeros_like(lows)
        else:
            scale = (highs - lows) / (self.high - self.low)
            zero = (self.low - (lows / scale.clamp_min(FLOOR)).round()).clamp(self.low, self.high)
        scale, zero = scale.clamp_min(FLOOR)[:, None], zero[:, None]
        x = histogram.centres[None, :]
        codes = (x / scale).round_().clamp_(self.low - zero, self.high - zero)
        return (codes.mul_(scale).sub_(x).square_() * histogram.counts).sum(1)


class RangeRule(ABC):
    """Finds the range of a tensor from a histogram of its values."""

    @abstractmethod
    def fit(self, histogram: Histogram, codes: Codes) -> tuple[float, float]:
        """(low, high), low <= 0 <= high, finite, in units of the tensor; (0, 0) where there is no value."""


@dataclass(frozen=True)
class Percentile(RangeRule):
    """Clips the outermost values.

    Args:
        inside: percent of the values that lie in the range, in (50, 100]. The rest is cut evenly at both ends; an end
            without values beyond zero stays at zero and is not cut.
    """

    inside: float = PERCENTILE

    def __post_init__(self) -> None:
        if not 50.0 < self.inside <= 100.0:
            raise ValueError(f"a percentile lies in (50, 100], not at {self.inside}")

    def fit(self, histogram: Histogram, codes: Codes) -> tuple[float, float]:
        """The smallest bins' centres with at most the allowed share beyond them."""
        low, high = ends(histogram)
        tail = (1.0 - self.inside / 100.0) / 2 * float(histogram.counts.sum())
        if high > 0:
            above = histogram.counts.flip(0).cumsum(0)
            high = float(histogram.centres.flip(0)[int((above <= tail).sum())])
        if low < 0:
            below = histogram.counts.cumsum(0)
            low = float(histogram.centres[int((below <= tail).sum())])
        return min(low, 0.0), max(high, 0.0)


@dataclass(frozen=True)
class LeastSquares(RangeRule):
    """The range with the least sum of squared rounding and clipping errors."""

    def fit(self, histogram: Histogram, codes: Codes) -> tuple[float, float]:
        """Sweeps over ranges from the widest down to 1/64 of it, then around the best."""
        low, high = ends(histogram)
        if not low < high:
            return low, high
        if codes.symmetric:
            widest = max(-low, high)
            for candidates in (COARSE, FINE):
                tried = (candidates * widest).to(histogram.centres.device)
                widest = float(tried[codes.error(histogram, -tried, tried).argmin()])
            return max(low, -widest), min(high, widest)
        for candidates in (COARSE, *[FINE] * SWEEPS):
            if high > 0:
                tried = (candidates * high).to(histogram.centres.device)
                high = float(tried[codes.error(histogram, torch.full_like(tried, low), tried).argmin()])
            if low < 0:
                tried = (candidates * low).to(histogram.centres.device)
                low = float(tried[codes.error(histogram, tried, torch.full_like(tried, high)).argmin()])
        return low, high


@dataclass(frozen=True)
class MeanMagnitude(RangeRule):
    """A step of 2 <|x|> / sqrt(largest code): made for few bits; with eight it covers far more than there is."""

    def fit(self, histogram: Histogram, codes: Codes) -> tuple[float, float]:
        """The grid of that step from the lowest value's side on; an end without values stays at zero."""
        low, high = ends(histogram)
        total = float(histogram.counts.sum())
        if not low < high or total == 0:
            return low, high
        largest = codes.high if codes.symmetric else codes.high - codes.low
        mean = float((histogram.centres.abs() * histogram.counts).sum()) / total
        reach = 2.0 * mean * math.sqrt(largest)  # step times largest code
        if codes.symmetric:
            return (-reach if low < 0 else 0.0), reach
        share = high / (high - low)
        return -reach * (1.0 - share), reach * share


def rule(method: Method, percentile: float = PERCENTILE) -> RangeRule | None:
    """The rule of a name; None for min-max, which needs no histogram."""
    rules: dict[str, RangeRule | None] = {
        "minmax": None,
        "percentile": Percentile(percentile),
        "mse": LeastSquares(),
        "magnitude": MeanMagnitude(),
    }
    return rules[method]


def ends(histogram: Histogram) -> tuple[float, float]:
    """(low, high) of all values and zero."""
    if len(histogram.centres) == 0:
        return 0.0, 0.0
    return min(float(histogram.centres[0]), 0.0), max(float(histogram.centres[-1]), 0.0)


def least_squares_shrink(weight: Tensor, axis: int, largest: int) -> Tensor:
    """How far to shrink each channel's symmetric range for the least squared error.

    Args:
        weight: any shape with at least `axis + 1` dimensions.
        axis: the channel dimension.
        largest: code that a channel's largest magnitude has at 1, 127 for int8.

    Returns:
        (C,) float32 in [0.5, 1]; 1 for a channel of zeros. Multiplying a channel by a factor does not change it.
    """
    rows = weight.detach().movedim(axis, 0).reshape(weight.shape[axis], -1).double()
    magnitude = rows.abs().amax(1, keepdim=True)
    unit = rows / magnitude.where(magnitude > 0, torch.ones_like(magnitude)) * largest
    best = torch.full_like(magnitude[:, 0], float("inf"))
    shrink = torch.ones_like(best)
    for candidate in WEIGHT_SHRINKS.tolist():
        error = ((unit / candidate).round_().clamp_(-largest, largest).mul_(candidate) - unit).square_().sum(1)
        better = error < best
        best, shrink = torch.where(better, error, best), torch.where(better, candidate, shrink)
    return shrink.float()
