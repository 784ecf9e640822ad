"""Short trainings where they tell most, longer ones of those that are believed in, and belief instead of single scores.

Students of like size and kind reach like scores, which a Gaussian process over all short trainings makes use of
(`selection/surrogate.py`): it says whom to try next, by the upper confidence bound (Srinivas, Krause, Kakade, Seeger,
"Gaussian Process Optimization in the Bandit Setting", ICML 2010, arXiv:0912.3995, equation 6), and takes most of the
seeds' noise out of what decides who is trained longer. The longer trainings follow successive halving (Jamieson and
Talwalkar, AISTATS 2016, arXiv:1502.07943). Putting the two together in this way is proposed here.
"""

import math
import random
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np

from compress.contracts.selector import Candidate, Problem, Selection
from compress.errors import RecipeError
from compress.selection.first_field import first_field
from compress.selection.foresight import SLOPE, foretold
from compress.selection.short_trials import affordable, by_score, opening, ranking, scored
from compress.selection.surrogate import Belief, Surrogate


@final
@dataclass(frozen=True)
class MultiFidelity:
    """The default.

    Attributes:
        share: of the full training, for the first look at a student; in (0, 1].
        growth: of the share from one rung to the next, > 1.
        reserve: of all trainings, kept for the rungs above the first; in [0, 1).
        batch: students that are tried between two updates of the belief, which as many workers can share; >= 1.
        optimism: deviations above the mean at which a student is judged when the next to try is picked; >= 0.
        slope: log-odds that a factor e of multiply-accumulates is worth beyond what a short training shows; >= 0.
    """

    share: float = 1 / 16
    growth: float = 4.0
    reserve: float = 0.4
    batch: int = 4
    optimism: float = 1.0
    slope: float = SLOPE

    def __post_init__(self) -> None:
        wrong = (
            not 0.0 < self.share <= 1.0
            or not self.growth > 1.0
            or not 0.0 <= self.reserve < 1.0
            or self.batch < 1
            or not self.optimism >= 0.0
            or not self.slope >= 0.0
        )
        if wrong:
            raise RecipeError(
                f"multi_fidelity has share = {self.share}, growth = {self.growth}, reserve = {self.reserve}, batch = "
                f"{self.batch}, optimism = {self.optimism}, slope = {self.slope}",
                fix="give a share in (0, 1], growth above 1, a reserve in [0, 1), a batch of 1 or more, optimism "
                "and slope of 0 or more",
            )

    def __call__(self, problem: Problem) -> Selection:
        """Those that were trained longest first, then the others by belief, then the rejected."""
        pool = opening(problem, random.Random(problem.seed))
        admitted = [candidate for candidate in pool if candidate.rejected is None]
        count = min(affordable(problem, self.share, self.reserve), len(admitted))
        if count < 2:
            count = min(affordable(problem, self.share), len(admitted))
        if count < 2:  # nobody to compare with
            return Selection(ranking(pool, ()), {"rungs": []})
        tried, belief = self._first_rung(problem, admitted, count)
        order = _by_belief(admitted, tried, belief)
        rungs: list[dict[str, Any]] = [{"share": self.share, "students": count}]
        order = self._climb(problem, order, rungs)
        place = {candidate.identity: number for number, candidate in enumerate(admitted)}
        notes = {
            "rungs": rungs,
            "noise": belief.noise,
            "believed": {
                candidate.identity: [
                    float(belief.mean[place[candidate.identity]]),
                    float(belief.deviation[place[candidate.identity]]),
                ]
                for candidate in order
                if candidate.score is not None
            },
        }
        return Selection((*order, *(candidate for candidate in pool if candidate.rejected is not None)), notes)

    def _first_rung(
        self, problem: Problem, admitted: list[Candidate], count: int
    ) -> tuple[dict[int, Candidate], Belief]:
        """Short trainings of `count` students: position -> student with its score, and what is believed afterwards."""
        surrogate = Surrogate(admitted)
        position = {candidate.identity: place for place, candidate in enumerate(admitted)}
        opening_count = min(count, max(2, self.batch, count // 2))
        batch = [position[candidate.identity] for candidate in first_field(admitted, opening_count)]
        tried: dict[int, Candidate] = {}
        belief: Belief | None = None
        while batch:
            for place, candidate in zip(
                batch, scored(problem, [admitted[place] for place in batch], self.share), strict=True
            ):
                tried[place] = candidate
            belief = surrogate.believe(*self._observed(tried))
            batch = self._next(surrogate, belief, tried, min(self.batch, count - len(tried)), len(admitted))
        assert belief is not None
        return tried, belief

    def _next(
        self, surrogate: Surrogate, belief: Belief, tried: dict[int, Candidate], count: int, total: int
    ) -> list[int]:
        """Whom to try next: one after the other, each as if those before had scored what is believed of them."""
        places, scores = self._observed(tried)
        chosen: list[int] = []
        for _ in range(count):
            worth = belief.mean + self.optimism * belief.deviation
            worth[[*tried, *chosen]] = -np.inf
            place = int(np.argmax(worth))
            chosen.append(place)
            places.append(place)
            scores.append(float(belief.mean[place]))
            belief = surrogate.believe(places, scores)
        return chosen

    def _observed(self, tried: dict[int, Candidate]) -> tuple[list[int], list[float]]:
        """Positions, and what the scores foretell; a training that diverged counts as the worst that was seen."""
        finite = [c.score for c in tried.values() if c.score is not None and not math.isnan(c.score)]
        worst = min(finite, default=0.0)
        scores = [worst if c.score is None or math.isnan(c.score) else c.score for c in tried.values()]
        return list(tried), foretold(scores, [c.cost.macs for c in tried.values()], self.share, self.slope)

    def _climb(self, problem: Problem, order: list[Candidate], rungs: list[dict[str, Any]]) -> list[Candidate]:
        """Train the best longer, fewer each time, while trainings are left."""
        share, left = self.share, list[Candidate]()
        field = order
        while share < 1.0:
            share = min(1.0, self.growth * share)
            most = affordable(problem, share)
            following = affordable_after(problem, share, self.growth)
            keep = most if following == 0 else min(most, max(2, following))
            ready = [
                candidate for candidate in field if not math.isinf(by_score(candidate)[0]) or candidate.score is None
            ]
            count = min(keep, len(ready))
            if count < 2:
                break
            chosen = ready[:count]
            identities = {candidate.identity for candidate in chosen}
            rest = [candidate for candidate in field if candidate.identity not in identities]
            field, left = self._by_promise(scored(problem, chosen, share), share), [*rest, *left]
            rungs.append({"share": share, "students": count})
        return [*field, *left]

    def _by_promise(self, candidates: list[Candidate], share: float) -> list[Candidate]:
        """Those with finite scores by what these foretell, then the others."""
        finite = [candidate for candidate in candidates if math.isfinite(by_score(candidate)[0])]
        worth = foretold([c.score or 0.0 for c in finite], [c.cost.macs for c in finite], share, self.slope)
        order = sorted(range(len(finite)), key=lambda place: (-worth[place], place))
        return [*(finite[place] for place in order), *(c for c in candidates if c not in finite)]


def affordable_after(problem: Problem, share: float, growth: float) -> int:
    """How many of the next share could be paid for if half of what is left went to this one; 0 where below two."""
    following = min(1.0, growth * share)
    count = math.floor(0.5 * (problem.training - problem.spent) / following + 1e-9)
    return count if count >= 2 and share < 1.0 else 0


def _by_belief(admitted: list[Candidate], tried: dict[int, Candidate], belief: Belief) -> list[Candidate]:
    """Every admitted student, with its score where it has one, the most believed in first; diverged ones last."""
    everyone = [tried.get(place, candidate) for place, candidate in enumerate(admitted)]
    diverged = [c.score is not None and math.isnan(c.score) for c in everyone]
    order = sorted(range(len(everyone)), key=lambda place: (diverged[place], -belief.mean[place], place))
    return [replace(everyone[place]) for place in order]


SELECTOR = MultiFidelity
