"""What a short training foretells of the full one.

A short training is no fair comparison: small students and those with inherited weights are far on their way when large
ones have hardly begun. How far a student can come is said, as far as anything is known of it beforehand, by its
multiply-accumulates. So a student is judged by

    log-odds of its score + slope * (1 - share of the training) * natural logarithm of its multiply-accumulates

whose second term is gone when the training was a full one. The form is proposed here; `SLOPE` is what
`tools/fit_foresight.py` finds on tables of fully trained students.
"""

import math
from collections.abc import Sequence

SLOPE = 0.5  # log-odds per factor e of multiply-accumulates
CLIP = 0.005  # scores closer to 0 or 1 than that are told apart by chance


def log_odds(score: float) -> float:
    """Of a score that is a fraction; others (a negative loss, decibels) stay as they are."""
    if not 0.0 <= score <= 1.0:
        return score
    fraction = min(1.0 - CLIP, max(CLIP, score))
    return math.log(fraction / (1.0 - fraction))


def foretold(scores: Sequence[float], macs: Sequence[int], share: float, slope: float = SLOPE) -> list[float]:
    """What to rank by, higher is better.

    Args:
        scores: after `share` of the full training.
        macs: of the same students.
        share: (0, 1].
        slope: 0 leaves the scores alone.
    """
    return [
        log_odds(score) + slope * (1.0 - share) * math.log(max(1, count))
        for score, count in zip(scores, macs, strict=True)
    ]
