"""What is believed of students that were tried little or not at all: a Gaussian process over their size and family.

One short training says little: seeds alone move it by points. Students of like size and kind reach like scores, so each
training also tells of its neighbours, and the belief in a student rests on all of them.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, algorithm 2.1 and equation
2.30. Features, kernel and grid of hyper-parameters are proposed here.
"""

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.contracts.selector import Candidate

Float = npt.NDArray[np.float64]
LENGTHS = (0.7, 1.5, 3.0)  # in standard deviations of the features
FAMILIES = (0.1, 0.5)  # share of the variance that belongs to the family alone
NOISES = (0.03, 0.1, 0.3)  # share of the scores' variance that the seed explains


def family(candidate: Candidate) -> tuple[Hashable, ...]:
    """The space with the plan's named decisions (a kind of block): size compares only within one."""
    return (candidate.space, *(value for value in candidate.plan.to_json().values() if isinstance(value, str)))


def features(candidates: Sequence[Candidate]) -> Float:
    """(N, 3): logarithms of multiply-accumulates, parameters and latency, each with mean 0 and deviation 1."""
    costs = [candidate.cost for candidate in candidates]
    table = np.array([[math.log(max(1, c.macs)), math.log(max(1, c.params)), math.log(c.latency_ms)] for c in costs])
    spread = table.std(axis=0)
    return np.asarray((table - table.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0))


@dataclass(frozen=True)
class Belief:
    """Of every candidate, in the scores' own unit.

    Attributes:
        mean: (N,).
        deviation: (N,), of the score that a training without noise would reach.
        noise: deviation of one training around it.
    """

    mean: Float
    deviation: Float
    noise: float


class Surrogate:
    """The prior over one set of candidates; `believe` gives the posterior."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        at = features(candidates)
        families: dict[Any, int] = {}
        kinds = np.array([families.setdefault(family(candidate), len(families)) for candidate in candidates])
        self._squares = ((at[:, None, :] - at[None, :, :]) ** 2).sum(axis=2)
        self._same = (kinds[:, None] == kinds[None, :]).astype(np.float64)

    def believe(self, places: Sequence[int], scores: Sequence[float]) -> Belief:
        """Condition on scores; the hyper-parameters are those of the grid that make the scores most likely.

        Args:
            places: positions in the candidates; one that was trained twice comes twice.
            scores: finite.
        """
        seen, y = np.asarray(places, dtype=np.int64), np.asarray(scores, dtype=np.float64)
        middle = float(y.mean())
        scale = float(y.std()) or 1.0
        z = (y - middle) / scale
        best: tuple[float, Float, Float, float] | None = None
        for length, own, noise in itertools.product(LENGTHS, FAMILIES, NOISES):
            # Size matters alike in all families, and each family deviates from that in a way of its own.
            smooth = np.exp(-self._squares / (2 * length**2))
            kernel = (1 - noise) * ((1 - own) * smooth * (0.5 + 0.5 * self._same) + own * self._same)
            gram = kernel[np.ix_(seen, seen)] + noise * np.eye(len(seen))
            factor = np.linalg.cholesky(gram)
            half = np.linalg.solve(factor, z)
            likelihood = -0.5 * float(half @ half) - float(np.log(np.diag(factor)).sum())
            if best is None or likelihood > best[0] + 1e-12:
                across = np.linalg.solve(factor, kernel[seen])
                mean = across.T @ half
                variance = np.maximum(np.diag(kernel) - (across**2).sum(axis=0), 0.0)
                best = (likelihood, mean, np.sqrt(variance), noise)
        assert best is not None
        _, mean, deviation, noise = best
        return Belief(middle + scale * mean, scale * deviation, scale * math.sqrt(noise))
