"""What a student is worth to the policies of N2N learning, and how much better it did than expected.

Source: Ashok, Rhinehart, Beainy, Kitani, "N2N Learning: Network to Network Compression via Policy Gradient
Reinforcement Learning", ICLR 2018, arXiv:1709.06030, section 3.3 (reward, constraints) and 3.4 (policy gradient).

Two things differ from the authors' code, which gives every student of an iteration the same advantage and divides the
sum of e earlier means by e + 1: here each student has its own advantage, and the baseline is a true mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

DEGENERATE = -1.0
"""Reward of a student that is no compression of the teacher, cannot be built, or diverged."""
HORIZON = 15  # iterations of the paper's 100 after which a violated constraint counts fully


def saving(cost: float, base_cost: float) -> float:
    """C = 1 - cost / base_cost: 0 for a student as dear as the teacher, 1 for one that costs nothing, < 0 if dearer."""
    return 1.0 - cost / base_cost


def saving_reward(share: float) -> float:
    """R_c = C (2 - C), in [0, 1] for a saving C in [0, 1]; concave: its slope 2 - 2C falls to 0 where C = 1."""
    return share * (2.0 - share)


def easing(step: int, horizon: int = HORIZON) -> float:
    """epsilon in [0, 1]: how much of its own reward a student keeps that violates a constraint.

    (1 - t / horizon)^4, and 0 from the horizon on. (The formula alone rises again behind it: it is even.)

    Args:
        step: iteration t, from 0.
        horizon: iterations, >= 1.
    """
    return float(max(0.0, 1.0 - step / horizon) ** 4)


def violated_reward(reward: float, step: int, horizon: int = HORIZON) -> float:
    """(epsilon - 1) + epsilon R: R at the first iteration, -1 from the horizon on."""
    kept = easing(step, horizon)
    return (kept - 1.0) + kept * reward


def n2n_reward(
    accuracy: float,
    cost: float,
    base_accuracy: float,
    base_cost: float,
    *,
    violated: bool = False,
    step: int = 0,
    horizon: int = HORIZON,
) -> float:
    """R = R_c R_a of a student, with R_c of its saving and R_a = accuracy / base_accuracy.

    Args:
        accuracy: of the student after its short training, on validation data, >= 0; NaN where that diverged.
        cost: of the student: parameters in the paper, > 0; latency in ms does as well.
        base_accuracy, base_cost: the teacher's, > 0.
        violated: whether the student breaks a limit on size, latency or accuracy.
        step: iteration, from 0.
        horizon: iterations after which `violated` gives -1.

    Returns:
        In [-1, 1] where the student is no more accurate than the teacher; 0 for an uncompressed one.
    """
    return combined_reward(
        accuracy / base_accuracy, [(saving(cost, base_cost), 1.0)], violated=violated, step=step, horizon=horizon
    )


def combined_reward(
    accuracy_ratio: float,
    savings: Sequence[tuple[float, float]],
    *,
    violated: bool = False,
    step: int = 0,
    horizon: int = HORIZON,
) -> float:
    """The reward with several savings: R_a times the product of R_c(C)^exponent. "Proposed"; the paper has one.

    Args:
        accuracy_ratio: A_s / A_t.
        savings: (C, exponent >= 0) of each cost: parameters, latency. Exponent 0 leaves a cost out.
    """
    if not math.isfinite(accuracy_ratio) or any(share < 0.0 for share, exponent in savings if exponent > 0.0):
        return DEGENERATE
    reward = accuracy_ratio * math.prod(saving_reward(share) ** exponent for share, exponent in savings if exponent)
    return violated_reward(reward, step, horizon) if violated else reward


@dataclass(frozen=True)
class Baseline:
    """Mean of the mean rewards of earlier iterations; the current one is not in it, so it cannot bias the gradient.

    The very first iteration has nothing before it and takes its own mean ("proposed").
    """

    total: float = 0.0
    count: int = 0

    def against(self, mean: float) -> float:
        """b for an iteration whose own mean reward is `mean`."""
        return self.total / self.count if self.count else mean

    def after(self, mean: float) -> "Baseline":
        """With this iteration among the earlier ones."""
        return Baseline(self.total + mean, self.count + 1)


def per_rollout(rewards: Tensor, baseline: float) -> Tensor:
    """Advantages R_i - b, (N,): each student is credited with what it did itself.

    Args:
        rewards: (N,), of one iteration.
        baseline: what is usual.
    """
    return rewards - baseline
