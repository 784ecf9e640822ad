"""Proposals from two densities: decisions of the students that did well against those of the rest.

Source: Bergstra, Bardenet, Bengio, Kegl, "Algorithms for Hyper-Parameter Optimization", NIPS 2011, section 4 (the tree
of Parzen estimators), as Optuna's `TPESampler` has it; in its grouped form, decisions that occur together are modelled
together (Falkner, Klein, Hutter, "BOHB", ICML 2018, arXiv:1807.01774, section 3.1).

The space is the first decision and the others follow from it, as many as the proposal's lists are long. A proposal is
seldom a plan, so the nearest plan is trained (`selection/decisions.py`), and Optuna is told of that one: its densities
hold what was trained, not what was asked for. Capacity is proposed beside the decisions: what many widths together
amount to is what a sum of densities over single widths does not see (proposed).

Departures: the first students are spread over the pool's capacities, not random; no plan comes twice; proposals that
the budget rejects are told as violations and cost no training; the best few are compared again with longer trainings.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from compress.contracts.selector import Candidate, Problem, Selection
from compress.selection.decisions import (
    CAPACITY,
    SPACE,
    Domain,
    Value,
    Vocabulary,
    capacity_range,
    nearest,
    walk,
)
from compress.selection.optuna_studies import BUDGET, quiet, seed_of, violation
from compress.selection.ranking import capacity, expense
from compress.selection.short_trials import (
    Spending,
    by_score,
    finals,
    opening,
    ranking,
    refuse,
    scored,
    short_trials,
    spread,
)

DRAWS = 256  # per proposal; Optuna's own 24 leave too much to chance where every trial is dear
TRIES = 40  # mutations away from a plan that had its trial
MISSES = 4  # rejected proposals in a row, after which the nearest admitted candidate is taken as it is


# Optuna's types are written as Any: it is imported only where a search runs.
def distribution(domain: Domain) -> Any:
    """Optuna's distribution: places among the known numbers, or the known names themselves."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return IntDistribution(0, len(domain.values) - 1) if domain.ordered else CategoricalDistribution(domain.values)


@final
@dataclass(frozen=True)
class Tpe:
    """Trains the pool's students, or new ones of its spaces, where the densities of good and bad ones differ most.

    Attributes:
        startup: short trials that are spread over the pool before the densities propose.
        top: share of the pool, of most capacity, that these are spread over; in (0, 1].
        batch: proposals that are trained at the same time; more than 1 helps where there are workers.
        share: of the full training, of a short trial.
        trials: short trials at most.
        finalists: compared again at the end, with longer trainings.
        reserve: of the trainings, kept for that.
        weight: of a proposal's capacity beside its decisions, where the nearest plan is looked for.
    """

    startup: int = 8
    top: float = 0.5
    batch: int = 4
    share: float = 0.0625
    trials: int = 64
    finalists: int = 4
    reserve: float = 0.4
    weight: float = 1.0

    @property
    def spending(self) -> Spending:
        """What of the problem's trainings goes where."""
        return Spending(self.share, self.trials, self.finalists, self.reserve)

    def __post_init__(self) -> None:
        self.spending.check("tpe")
        wrong = [
            (self.startup < 2, f"startup = {self.startup}; two densities need at least 2 students"),
            (not 0.0 < self.top <= 1.0, f"top = {self.top}; write a share of the pool above 0, up to 1"),
            (self.batch < 1, f"batch = {self.batch}; train at least 1 proposal at a time"),
            (not self.weight >= 0.0, f"weight = {self.weight}; write 0 to leave capacity out, or such as 1"),
        ]
        refuse("tpe", [sentence for found, sentence in wrong if found])

    def __call__(self, problem: Problem) -> Selection:
        """The best score within the budget first."""
        pool = opening(problem, random.Random(f"{problem.seed}/opening"))
        count = short_trials(problem, self.spending)
        if count < 1 or all(candidate.rejected is not None for candidate in pool):
            return Selection(ranking(pool, ()), {"tried": 0})
        with quiet():
            search = Search(problem, pool, self)
            search.tell(scored(problem, spread(search.left, min(self.startup, count), self.top), self.share))
            while len(search.tried) < count:
                proposed = search.propose(min(self.batch, count - len(search.tried)))
                if not proposed:
                    break
                search.tell(scored(problem, proposed, self.share))
        order = finals(problem, search.tried, self.spending)
        notes = {
            "tried": len(search.tried),
            "new": len(search.known) - len(pool),
            "decisions": len(search.vocabulary.domains),
        }
        return Selection(ranking(list(search.known.values()), order), notes)


class Search:
    """What was tried, and Optuna's study of it.

    Attributes:
        known: every candidate by identity, the pool's first.
        tried: in the order of their trials, scored.
        vocabulary: decisions of the pool.
    """

    def __init__(self, problem: Problem, pool: Sequence[Candidate], settings: Tpe) -> None:
        import optuna

        self._problem, self._settings = problem, settings
        self._rng = random.Random(f"{problem.seed}/tpe")
        self.known = {candidate.identity: candidate for candidate in pool}
        self.tried: list[Candidate] = []
        self._taken: set[str] = set()
        self.vocabulary = Vocabulary([(candidate.space, candidate.plan) for candidate in pool])
        admitted = [candidate for candidate in pool if candidate.rejected is None]
        self._sizes = capacity_range(admitted)
        self._dearest = max(expense(candidate.cost) for candidate in admitted)
        self._spaces = list(dict.fromkeys(candidate.space for candidate in admitted))
        sampler = optuna.samplers.TPESampler(
            n_startup_trials=min(settings.startup, len(admitted)),
            seed=seed_of(random.Random(f"{problem.seed}/optuna")),
            n_ei_candidates=DRAWS,
            multivariate=True,
            group=True,
        )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)

    @property
    def left(self) -> list[Candidate]:
        """Admitted candidates without a trial."""
        return [
            candidate
            for identity, candidate in self.known.items()
            if candidate.rejected is None and identity not in self._taken
        ]

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Give Optuna what was trained, in this order. A training that diverged counts as bad as the worst so far."""
        self.tried += candidates
        self._taken |= {candidate.identity for candidate in candidates}
        valid = [-by_score(candidate)[0] for candidate in self.tried]
        worst = min((score for score in valid if math.isfinite(score)), default=0.0)
        for candidate, score in zip(candidates, valid[-len(candidates) :], strict=True):
            self._add(candidate, max(score, worst))

    def _add(self, candidate: Candidate, score: float) -> None:
        from optuna.distributions import CategoricalDistribution, FloatDistribution
        from optuna.trial import create_trial

        params: dict[str, Value] = {}
        distributions: dict[str, Any] = {}
        if len(self._spaces) > 1 and candidate.space in self._spaces:
            params[SPACE], distributions[SPACE] = candidate.space, CategoricalDistribution(self._spaces)
        taken = self.vocabulary.of(candidate.space, candidate.plan)
        for name, domain in self.vocabulary.domains.items():
            place = domain.place(taken[name]) if name in taken and name != SPACE else None
            if place is not None:
                params[name] = place if domain.ordered else domain.values[place]
                distributions[name] = distribution(domain)
        low, high = self._sizes
        params[CAPACITY] = min(high, max(low, capacity(candidate.cost)))
        distributions[CAPACITY] = FloatDistribution(low, high)
        self._study.add_trial(
            create_trial(
                value=score,
                params=params,
                distributions=distributions,
                constraints={BUDGET: violation(candidate, self._dearest)},
            )
        )

    def _wanted(self, trial: Any) -> dict[str, Value]:
        """A proposal: the space, its decisions one after the other, and the capacity."""
        wanted: dict[str, Value] = {SPACE: self._spaces[0]}
        if len(self._spaces) > 1:
            wanted[SPACE] = trial.suggest_categorical(SPACE, self._spaces)
        for name, domain in self.vocabulary.domains.items():
            if not self.vocabulary.asked(name, wanted, str(wanted[SPACE])):
                continue
            if domain.ordered:
                wanted[name] = domain.values[trial.suggest_int(name, 0, len(domain.values) - 1)]
            else:
                wanted[name] = trial.suggest_categorical(name, domain.values)
        wanted[CAPACITY] = trial.suggest_float(CAPACITY, *self._sizes)
        return wanted

    def propose(self, count: int) -> list[Candidate]:
        """At most `count` admitted candidates without a trial; fewer where nothing new is found."""
        from optuna.trial import TrialState

        asked: list[Any] = []
        chosen: list[Candidate] = []
        misses = 0
        while len(chosen) < count:
            # Open trials count as bad ones in the densities, which keeps a batch's proposals apart.
            asked.append(self._study.ask())
            candidate = self._plan_for(self._wanted(asked[-1]), alone=misses >= MISSES)
            if candidate is None:
                break
            self.known.setdefault(candidate.identity, candidate)
            if candidate.rejected is None:
                self._taken.add(candidate.identity)
                chosen.append(candidate)
                misses = 0
            else:
                self._taken.add(candidate.identity)
                self._add(candidate, 0.0)  # its score counts for nothing beside the violation
                misses += 1
        for trial in asked:
            self._study.tell(trial, state=TrialState.FAIL)  # what was trained is told as it is, by `tell`
        return chosen

    def _plan_for(self, wanted: Mapping[str, Value], alone: bool) -> Candidate | None:
        """The nearest candidate without a trial; a new one, where the space leads nearer and `alone` is not set."""
        left = self.left
        start = nearest(self.vocabulary, wanted, left, self._sizes, self._settings.weight) if left else None
        name = str(wanted[SPACE])
        space = self._problem.spaces.get(name)
        if alone or space is None:
            return start
        begin = start.plan if start is not None and start.space == name else space.sample(self._rng)
        plan = walk(self.vocabulary, wanted, space, name, begin, self._rng)
        for _ in range(TRIES):
            candidate = self._problem.admit(name, plan)
            if candidate.identity not in self._taken:
                return candidate
            plan = space.mutate(plan, self._rng)
        return start


SELECTOR = Tpe
