"""Lin's concordance correlation coefficient of two sets of numbers.

Source: Lin, "A Concordance Correlation Coefficient to Evaluate Reproducibility", Biometrics 45(1), 1989, equation 1:

    CCC(p, t) = 2 cov(p, t) / (var p + var t + (mean p - mean t)^2)

with biased moments. It is of a whole set: a mean over batches is another number, so sums are added up instead.
"""

import torch
from torch import Tensor

EPSILON = 1e-8


def concordance(first: Tensor, second: Tensor, epsilon: float = EPSILON) -> Tensor:
    """The coefficient of every output over all examples.

    Args:
        first, second: (B, outputs).
        epsilon: added to the denominator, so that two constants give 0.

    Returns:
        (outputs,) in [-1, 1]: 1 where both are equal, 0 where one is constant.

    Raises:
        ValueError: the shapes differ or are not of two axes.
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"shapes {tuple(first.shape)} and {tuple(second.shape)}, not (examples, outputs) twice")
    means = first.mean(dim=0), second.mean(dim=0)
    ours, theirs = first - means[0], second - means[1]
    spread = ours.square().mean(dim=0) + theirs.square().mean(dim=0) + (means[0] - means[1]).square()
    return 2.0 * (ours * theirs).mean(dim=0) / (spread + epsilon)


def concordance_sums(output: Tensor, target: Tensor) -> Tensor:
    """What `concordance_of` needs of every example, to be added up: (B, 5 * outputs) float64."""
    p, t = output.double(), target.double()
    return torch.cat([p, t, p * p, t * t, p * t], dim=1)


def concordance_of(sums: Tensor, count: int) -> Tensor:
    """The coefficient of each output from the sums of `concordance_sums` over `count` examples, (outputs,) float64.

    An output of which both sides are constant has 0.
    """
    p, t, pp, tt, pt = (sums / count).reshape(5, -1)
    spread = (pp - p * p) + (tt - t * t) + (p - t).square()
    found: Tensor = 2.0 * (pt - p * t) / torch.where(spread > 0, spread, torch.ones_like(spread))
    return found
