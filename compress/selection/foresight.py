"""What a short training foretells of the full one.

A short training is no fair comparison: perceptrons, and students with inherited weights, are far on their way when a
convolutional one of like cost has hardly begun. How far a student can come is said, as far as anything is known of it
beforehand, by the multiply-accumulates of its network, the shared preprocessing not counted. So students are ranked by

    log-odds of the score + slope * (1 - share of the training) * natural logarithm of the multiply-accumulates

whose second term is gone when the training was a full one. Proposed here. On the tables of fully trained students that
`tools/bench_selectors.py` reads, slopes from 0.15 to 0.35 choose alike, and better than none.
"""

import math

from compress.contracts.selector import Candidate

CLIP = 0.005  # scores closer to 0 or 1 than that are told apart by chance


def log_odds(score: float) -> float:
    """Of a score that is a fraction. Others (a concordance below 0, a negative loss, decibels) go on from its ends with
    slope 1, so that a higher score always comes first, also where scores of one search lie on both sides of an end."""
    fraction = min(1.0 - CLIP, max(CLIP, score))
    return math.log(fraction / (1.0 - fraction)) + min(0.0, score) + max(0.0, score - 1.0)


def foretold(candidate: Candidate, slope: float, shared: int = 0) -> float:
    """What to rank by, higher is better; minus infinity where a training diverged or there was none.

    Args:
        candidate: with its score after the share `fidelity` of the full training.
        slope: log-odds per factor e of multiply-accumulates, >= 0; 0 leaves the score's order alone.
        shared: multiply-accumulates of the preprocessing, which are in the candidate's cost.
    """
    if candidate.score is None or math.isnan(candidate.score):
        return -math.inf
    work = math.log(max(1, candidate.cost.macs - shared))
    return log_odds(candidate.score) + slope * (1.0 - candidate.fidelity) * work
