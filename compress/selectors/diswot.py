"""Students whose untrained answers resemble the untrained teacher's: hundreds are scored for the price of a few steps.

Source: Dong, Li, Wei, "DisWOT: Student Architecture Search for Distillation WithOut Training", CVPR 2023,
arXiv:2303.15678. Both terms, each averaged over several draws of both networks' weights and of the batch; an ageing
evolution adds students to the pool.

Departures, all proposed here. The terms are combined by rank. Networks whose classifiers differ in width have no
semantic distance; they are ranked by relations. And as the score grows with size, and says little beyond it on the
authors' own published accuracies, it only nominates: the best of each band of expense are trained a little beside the
largest that fits, and what wins there is chosen. Where nothing may be trained, the largest that fits stands. What the
score was worth (rank correlation, alone and with size held still) is in the notes.
"""

import math
import random
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

from compress.contracts.selector import Candidate, Problem, Selection
from compress.errors import RecipeError
from compress.selection.ageing_evolution import ageing_evolution
from compress.selection.initialise import INITIALISERS
from compress.selection.likeness import COMBINED, Draw, Likeness, batches, draws, likeness
from compress.selection.ranking import expense
from compress.selection.short_trials import (
    Spending,
    by_capacity,
    finals,
    opening,
    ranking,
    refuse,
    scored,
    short_trials,
)
from compress.selection.size_control import against_size

LEAST_BATCH = 32  # below, the statistics of batch norms decide what features look like
TRIES = 30  # mutations of one parent, after which it has no new child
SPAN = 1.4  # bands reach down to a quarter of the dearest's expense: the logarithm of 4


@dataclass
class Scoring:
    """Everybody scored so far, and what it took."""

    problem: Problem
    against: tuple[Draw, ...]
    settings: "Diswot"
    likenesses: dict[str, Likeness] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)
    unscored: dict[str, str] = field(default_factory=dict)

    def add(self, candidate: Candidate) -> None:
        """Score one that the budget admits; what cannot be scored is kept with the reason."""
        self.candidates[candidate.identity] = candidate
        try:
            self.likenesses[candidate.identity] = likeness(
                self.problem.student(candidate), self.against, self.settings.init
            )
        except RecipeError as error:
            self.unscored[candidate.identity] = error.what

    def totals(self) -> dict[str, float]:
        """Identity -> score against all that are known; -inf where it is not finite."""
        return dict(zip(self.likenesses, COMBINED[self.settings.combine](list(self.likenesses.values())), strict=True))

    def with_proxies(self, candidate: Candidate, totals: Mapping[str, float]) -> Candidate:
        """The candidate with its scores by name; terms that are not defined for it are absent."""
        found = self.likenesses.get(candidate.identity)
        if found is None:
            return candidate
        named = {
            "diswot": totals[candidate.identity],
            "diswot_relation": found.relation,
            "diswot_semantic": found.semantic,
        }
        known = {name: value for name, value in named.items() if math.isfinite(value)}
        return replace(candidate, proxies={**candidate.proxies, **known})


@final
@dataclass(frozen=True)
class Diswot:
    """Scores without training, nominates one student per band of expense and rank, and trains these a little.

    Attributes:
        batch: examples of each forward pass.
        seeds: draws of (teacher's weights, batch, student's weights) that a score is the mean of; the paper has one.
        init: "gauss", "kaiming" or "default": how weights are drawn.
        combine: "rank", "zscore" or "sum" (the paper's): how the two terms become one score.
        noise: normal noise instead of the examples.
        evaluations: students scored at most: half of them from the pool, all where the problem has no spaces.
        population, sample: of the evolution, and of each of its tournaments.
        bands: of expense, from the dearest down to a quarter of it; each nominates its best in turn.
        share: of the full training, of a short trial.
        trials: short trials at most, the largest that fits among them; 0 for none.
        finalists: compared again at the end, with longer trainings.
        reserve: of the trainings, kept for that.
        unproven: whether the score alone may override the largest that fits where nothing may be trained.
    """

    batch: int = 64
    seeds: int = 3
    init: str = "gauss"
    combine: str = "rank"
    noise: bool = False
    evaluations: int = 300
    population: int = 36
    sample: int = 8
    bands: int = 4
    share: float = 0.05
    trials: int = 12
    finalists: int = 4
    reserve: float = 0.4
    unproven: bool = False

    def __post_init__(self) -> None:
        wrong = []
        if self.batch < LEAST_BATCH:
            wrong.append(f"batch = {self.batch}; take at least {LEAST_BATCH} examples, such as 64")
        if self.init not in INITIALISERS:
            wrong.append(f"init = {self.init!r}; write {', '.join(sorted(INITIALISERS))}")
        if self.combine not in COMBINED:
            wrong.append(f"combine = {self.combine!r}; write {', '.join(sorted(COMBINED))}")
        for name in ("seeds", "evaluations", "population", "sample", "bands"):
            if getattr(self, name) < 1:
                wrong.append(f"{name} = {getattr(self, name)}; write 1 or more")
        if self.trials < 0:
            wrong.append(f"trials = {self.trials}; write 0 for none, or how many, such as 12")
        refuse("diswot", wrong)
        self.spending.check("diswot")

    @property
    def spending(self) -> Spending:
        """How trainings are divided; a single trial at least, so that the other numbers are checked."""
        return Spending(self.share, max(1, self.trials), self.finalists, self.reserve)

    def __call__(self, problem: Problem) -> Selection:
        """The trained ones first, the best in front, then the scored by score, the untried, the rejected.

        Raises:
            RecipeError: the teacher is a black box, or it has no features to compare with.
        """
        if problem.teacher is None:
            raise RecipeError(
                "the selector diswot compares students with the teacher's architecture, and the teacher is a black box",
                fix="give the teacher as a network, or choose another selector, such as halving",
            )
        rng = random.Random(f"{problem.seed}/diswot")
        known = {candidate.identity: candidate for candidate in opening(problem, rng)}
        allowed = sorted((c for c in known.values() if c.rejected is None), key=by_capacity)
        if not allowed:
            return Selection(ranking(list(known.values()), ()), {"scored": 0})
        started = time.process_time()
        drawn = batches(problem.splits.train, self.batch, self.seeds, problem.seed, noise=self.noise)
        scoring = Scoring(problem, draws(problem.teacher, drawn, self.init, problem.seed), self)
        self.score_pool(scoring, allowed, rng)
        self.evolve(scoring, known, rng)
        scoring_cpu_s = time.process_time() - started

        totals = scoring.totals()
        everybody = [scoring.with_proxies(candidate, totals) for candidate in known.values()]
        control = min((c for c in everybody if c.rejected is None), key=by_capacity)
        by_total = sorted(
            (c for c in everybody if c.identity in totals), key=lambda c: (-totals[c.identity], by_capacity(c))
        )
        count = short_trials(problem, self.spending) if self.trials else 0
        tried: list[Candidate] = []
        if count > 1:
            chosen = [control, *nominated([c for c in by_total if c.identity != control.identity], self.bands)][:count]
            tried = finals(problem, scored(problem, chosen, self.share), self.spending)
        first = tried or ([] if self.unproven else [control])
        there = {candidate.identity for candidate in first}
        order = [*first, *(candidate for candidate in by_total if candidate.identity not in there)]
        notes = self.notes(scoring, totals, tried) | {
            "scoring_cpu_s": scoring_cpu_s,
            "control": control.identity,
            "overrides_the_control": order[0].identity != control.identity,
            "proven": bool(tried),
            "top": [candidate.identity for candidate in by_total[:5]],
        }
        return Selection(ranking(everybody, order), notes)

    def score_pool(self, scoring: Scoring, allowed: Sequence[Candidate], rng: random.Random) -> None:
        """The largest that fits, and as many others as there is room for, drawn at random."""
        room = self.evaluations
        if scoring.problem.spaces:
            room = min(room, max(self.population, self.evaluations // 2))
        others = list(allowed[1:])
        for candidate in [allowed[0], *rng.sample(others, min(len(others), room - 1))]:
            scoring.add(candidate)

    def evolve(self, scoring: Scoring, known: dict[str, Candidate], rng: random.Random) -> None:
        """Breed until `evaluations` students are scored. Everybody met joins `known`, also who was rejected."""
        problem = scoring.problem
        first = [scoring.candidates[identity] for identity in scoring.likenesses]
        if not problem.spaces or not first:
            return

        def child(parent: Candidate) -> Candidate | None:
            for _ in range(TRIES if parent.space in problem.spaces else 0):
                plan = problem.spaces[parent.space].mutate(parent.plan, rng)
                found = problem.admit(parent.space, plan)
                new = found.identity not in scoring.candidates
                known.setdefault(found.identity, found)
                if new and found.rejected is None:
                    scoring.add(found)
                    return found
            return None

        def values(members: Sequence[Candidate]) -> list[float]:
            totals = scoring.totals()
            return [totals.get(member.identity, -math.inf) for member in members]

        ageing_evolution(
            rng.sample(first, min(self.population, len(first))),
            child=child,
            values=values,
            sample=self.sample,
            children=self.evaluations - len(scoring.candidates),
            rng=rng,
        )

    def notes(self, scoring: Scoring, totals: Mapping[str, float], tried: Sequence[Candidate]) -> dict[str, Any]:
        """How far the score is to be trusted, as plain data."""
        found = scoring.likenesses.values()
        undefined = [one.undefined for one in found if one.undefined]
        return {
            "scored": len(found),
            "not_scored": dict(sorted(scoring.unscored.items())),
            "seeds": self.seeds,
            "init": self.init,
            "combine": self.combine,
            "inputs": "noise" if self.noise else "training examples",
            "with_semantics": len(found) - len(undefined),
            "why_without_semantics": sorted(set(undefined))[:3],
            "seed_sd": {
                "relation": mean_of_known([one.relation_sd for one in found]),
                "semantic": mean_of_known([one.semantic_sd for one in found]),
            },
            "scored_against_size": against_size(tried, totals),
        }


def mean_of_known(values: Sequence[float]) -> float | None:
    """The mean of what is finite; None of nothing."""
    known = [value for value in values if math.isfinite(value)]
    return statistics.fmean(known) if known else None


def nominated(ranked: Sequence[Candidate], bands: int) -> list[Candidate]:
    """Everybody, so that the front nominates evenly: the best of each band of expense, then the second of each, ...

    What costs less than a quarter of the dearest comes after all bands, in the order of `ranked`.

    Args:
        ranked: the best first.
        bands: equal steps of the logarithm of expense, the dearest first.
    """
    if not ranked:
        return []
    high = max(expense(candidate.cost) for candidate in ranked)
    rows: dict[int, list[Candidate]] = {band: [] for band in range(bands)}
    cheap: list[Candidate] = []
    for candidate in ranked:
        below = high - expense(candidate.cost)
        (rows[min(bands - 1, int(bands * below / SPAN))] if below <= SPAN else cheap).append(candidate)
    depth = max(len(row) for row in rows.values())
    return [row[place] for place in range(depth) for row in rows.values() if place < len(row)] + cheap


SELECTOR = Diswot
