"""How sure a median of successive times is, when neighbouring times resemble each other.

The share of runs below the true median is one half; how far the observed share may be off follows from the long-run
variance of "this run was below". Turned into ranks of the sorted times, that is an interval of the median which needs
neither a distribution nor a density, and is not narrowed by runs that only repeat their neighbours.
"""

import math

import numpy as np
from numpy.typing import NDArray

INDEPENDENT = 0.25  # variance of a fair coin
Z = {0.8: 1.2816, 0.9: 1.6449, 0.95: 1.9600}  # two-sided quantiles of the normal distribution


def median_interval(times: NDArray[np.float64], share: float = 0.9) -> tuple[float, float]:
    """The interval that contains the median of the process behind `times` in `share` of all cases.

    Source: order statistics as limits of a quantile (Conover, "Practical Nonparametric Statistics", section 3.2), with
    the variance of the count replaced by its long-run variance for dependent data.

    Args:
        times: (N,), in the order in which they were taken; N >= 1.
        share: 0.8, 0.9 or 0.95.

    Returns:
        Lower and upper end, both among `times`. All of their range where N is too small for the share.
    """
    count = len(times)
    ordered = np.sort(times)
    variance = long_run_variance(times <= float(np.median(times)))
    independent = count * INDEPENDENT / variance  # as many independent runs would say as much
    half = _student(Z[share], max(independent - 1, 1.0)) * math.sqrt(variance / count)
    low = math.floor(count * (0.5 - half))
    high = math.ceil(count * (0.5 + half))
    return float(ordered[max(low - 1, 0)]), float(ordered[min(high, count - 1)])


def long_run_variance(below: NDArray[np.bool_]) -> float:
    """Variance of the mean of a dependent 0/1 sequence, times its length; at least 1/4, that of independent halves.

    Source: flat-top lag window with the bandwidth rule of Politis and White, "Automatic block-length selection for the
    dependent bootstrap", Econometric Reviews 23 (2004), section 3.2.

    Args:
        below: (N,).
    """
    count = len(below)
    if count < 16:
        return INDEPENDENT
    centred = below - below.mean()
    spectrum = np.abs(np.fft.rfft(centred, 2 * count)) ** 2
    covariance = np.fft.irfft(spectrum)[:count] / count
    if covariance[0] <= 0:
        return INDEPENDENT
    correlation = covariance / covariance[0]
    lags = _bandwidth(correlation, count)
    lag = np.arange(1, min(lags, count - 1) + 1)
    window = np.clip(2 * (1 - lag / lags), 0, 1)
    total = float(covariance[0] + 2 * (window * covariance[lag]).sum())
    total *= count / max(count - 2 * lags, 1)  # subtracting the mean takes this share of the correlations away
    # Runs that alternate would narrow the interval; a median of times gains nothing from believing that.
    return min(max(total, INDEPENDENT), INDEPENDENT * count)


def _student(z: float, degrees: float) -> float:
    """Quantile of Student's t from the normal one; Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5)."""
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2


def _bandwidth(correlation: NDArray[np.float64], count: int) -> int:
    """Twice the lag after which the correlations stay insignificant."""
    quiet = max(5, math.ceil(math.sqrt(math.log10(count))))
    bound = 2 * math.sqrt(math.log10(count) / count)
    longest = min(count // 3, math.ceil(math.sqrt(count)) * 4)
    last, run = 0, 0
    for lag in range(1, longest):
        if abs(correlation[lag]) < bound:
            run += 1
            if run == quiet:
                break
        else:
            last, run = lag, 0
    return max(2 * last, 2)
