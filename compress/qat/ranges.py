"""The range of a tensor that a quantised grid should cover: three estimators, each a pure function of one batch.

Sources: min-max, Jacob et al. 2018, arXiv:1712.05877, section 3.1; percentile and mean squared error, Wu et al. 2020,
arXiv:2004.09602, section 5.1, and Nagel et al. 2021, arXiv:2106.08295, section 3.1.
"""

from typing import Literal

import torch
from torch import Tensor

Method = Literal["minmax", "percentile", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "mse")

SAMPLE = 32_768  # values that the two costly estimators look at; evenly strided, so a run repeats exactly
TAIL = 1e-4  # share of values that the percentile estimator may clip, both ends together
SHRINKS = torch.linspace(1.0, 0.4, 25).tolist()  # of the min-max range, tried by the error estimator


def estimate(x: Tensor, method: Method, levels: int) -> tuple[float, float]:
    """Range of one batch of one tensor.

    Args:
        x: any shape, floating point, not empty.
        method: "minmax" covers everything; "percentile" clips a share of 1e-4; "mse" takes the shrunken range whose
            rounding and clipping error is least.
        levels: codes of the grid, 256 for eight bits.

    Returns:
        (low, high), low <= high, in the tensor's own unit. NaN where x holds NaN.
    """
    # Not aminmax: seven times slower on a channels-last tensor (torch 2.13, CPU).
    low, high = x.detach().amin().item(), x.detach().amax().item()
    if method == "minmax" or not low < high:
        return low, high
    values = _sample(x)
    if method == "percentile":
        clipped = torch.quantile(values, torch.tensor([TAIL / 2, 1 - TAIL / 2], device=values.device))
        # A one-sided tensor (after a ReLU) keeps its exact end: clipping zeros would move the zero point.
        return (low if low >= 0 else clipped[0].item()), (high if high <= 0 else clipped[1].item())
    best = min(SHRINKS, key=lambda shrink: _error(values, shrink * low, shrink * high, levels))
    return best * low, best * high


def _sample(x: Tensor) -> Tensor:
    values = x.detach().reshape(-1).float()
    return values[:: max(1, values.numel() // SAMPLE)]


def _error(values: Tensor, low: float, high: float, levels: int) -> float:
    """Mean squared difference between the values and their codes on a grid from low to high."""
    step = max(high, 0.0) - min(low, 0.0)
    if step <= 0:
        return float("inf")
    step /= levels - 1
    rounded = (values.clamp(low, high) / step).round_().mul_(step)
    return float((rounded - values).square().mean())
