"""Evolution towards the Pareto front of accuracy and costs: NSGA-II on plans.

Source: Deb, Pratap, Agarwal, Meyarivan, "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE
Transactions on Evolutionary Computation 6(2), 2002: sections III A (ranks), III B (crowding), VI (constraints).

Generations, ranks, crowding distances and constrained survival are Optuna's `NSGAIISampler`. Variation is the spaces'
own: an Optuna trial has one parameter, the number of a plan, and children come from `Space.crossover` and
`Space.mutate`. Optuna's operators work on vectors of independent parameters, and most vectors that one could make of
plans' JSON are no plan. Where a problem has no spaces, a child is the untried member of the pool that is nearest to its
parents' mixed decisions.

Departures: the first generation is spread over the pool's larger capacities, not random; no plan comes twice; a child
that the budget rejects takes part with its violation but costs no training; the best few are compared again with longer
trainings at the end. A cost counts only down to a `span`-th of the dearest admitted one's: below, a student is no
better for being cheaper, and the population does not gather among students that nobody would choose.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

from compress.contracts.selector import Candidate, Problem, Selection
from compress.selection.correlation import kendall
from compress.selection.decisions import CAPACITY, Value, Vocabulary, capacity_range, nearest
from compress.selection.optuna_studies import BUDGET, DIVERGED, quiet, seed_of, violation
from compress.selection.pareto import dominates, pareto_front
from compress.selection.ranking import capacity, expense
from compress.selection.short_trials import (
    Spending,
    finals,
    opening,
    ranking,
    refuse,
    scored,
    short_trials,
    spread,
)
from profiles.cost import Cost

PLAN = "plan"  # the only parameter of an Optuna trial: a plan's number
MOST_PLANS = 10**6
TRIES = 40  # children in a row that were known or rejected, after which a generation stays smaller
SAME_ORDER = 0.95  # Kendall's tau above which two costs say the same


def latency(cost: Cost) -> float | None:
    """Median, ms."""
    return cost.latency_ms


def energy(cost: Cost) -> float | None:
    """mJ, None where no source says."""
    return cost.energy_mj


def memory(cost: Cost) -> float | None:
    """Bytes of weights and of the largest set of live activations."""
    return float(cost.weight_bytes + cost.peak_activation_bytes)


COSTS = {"latency": latency, "energy": energy, "memory": memory}


def told_apart(names: Sequence[str], admitted: Sequence[Candidate]) -> list[str]:
    """The costs that are known of all and that order them in another way than an earlier one does.

    Each objective more makes fewer students comparable (Deb et al. show two); one that repeats another adds nothing.
    """
    kept: list[str] = []
    values: dict[str, list[float]] = {}
    for name in names:
        found = [COSTS[name](candidate.cost) for candidate in admitted]
        known = [value for value in found if value is not None]
        if len(known) < len(found) or len(set(known)) < 2:
            continue
        if all(not kendall(known, values[other]) >= SAME_ORDER for other in kept):
            kept.append(name)
            values[name] = known
    return kept


@final
@dataclass(frozen=True)
class Nsga2:
    """Evolves the pool's students, or new ones of its spaces, by short distillations.

    Attributes:
        population: students of a generation; 4 or more. They are trained at the same time where there are workers.
        top: share of the pool, of most capacity, that the first generation is spread over; in (0, 1].
        share: of the full training, of a short trial.
        trials: short trials at most.
        finalists: compared again at the end, with longer trainings.
        reserve: of the trainings, kept for that.
        objectives: costs beside the score, of "latency", "energy", "memory"; unknown ones and repetitions drop out.
        span: >= 1; costs below the dearest admitted one's divided by this count as equal.
        crossover: probability that a child has two parents.
        mutation: probability that one decision of a child is taken anew.
    """

    population: int = 8
    top: float = 0.5
    share: float = 0.0625
    trials: int = 64
    finalists: int = 4
    reserve: float = 0.4
    objectives: Sequence[str] = ("latency", "energy", "memory")
    span: float = 4.0
    crossover: float = 0.9
    mutation: float = 0.6

    @property
    def spending(self) -> Spending:
        """What of the problem's trainings goes where."""
        return Spending(self.share, self.trials, self.finalists, self.reserve)

    def __post_init__(self) -> None:
        self.spending.check("nsga2")
        unknown = [name for name in self.objectives if name not in COSTS]
        wrong = [
            (self.population < 4, f"population = {self.population}; breed at least 4 students in a generation"),
            (not 0.0 < self.top <= 1.0, f"top = {self.top}; write a share of the pool above 0, up to 1"),
            (bool(unknown), f"objectives = {list(self.objectives)}; choose from {', '.join(COSTS)}"),
            (not self.span >= 1.0, f"span = {self.span}; write a ratio of 1 or more, such as 4"),
            (not 0.0 <= self.crossover <= 1.0, f"crossover = {self.crossover}; write a probability"),
            (not 0.0 <= self.mutation <= 1.0, f"mutation = {self.mutation}; write a probability"),
        ]
        refuse("nsga2", [sentence for found, sentence in wrong if found])

    def __call__(self, problem: Problem) -> Selection:
        """The best score within the budget first; `notes["front"]` has the Pareto front of what was tried."""
        pool = opening(problem, random.Random(f"{problem.seed}/opening"))
        admitted = [candidate for candidate in pool if candidate.rejected is None]
        count = short_trials(problem, self.spending)
        if not admitted or count < 1:
            return Selection(ranking(pool, ()), {"tried": 0, "front": []})
        costs = told_apart(self.objectives, admitted)
        herd = Herd(problem, pool, self.crossover, self.mutation)
        floors = {name: max(COSTS[name](c.cost) or 0.0 for c in admitted) / self.span for name in costs}
        generations = evolve(problem, herd, self, count, floors)
        tried = [herd.plans[number] for number in herd.trained]
        order = finals(problem, tried, self.spending)
        valid = [c for c in tried if c.score is not None and not math.isnan(c.score)]
        points = [(-(c.score or 0.0), *(COSTS[name](c.cost) or 0.0 for name in costs)) for c in valid]
        notes = {
            "objectives": ["score", *costs],
            "generations": generations,
            "tried": len(tried),
            "new": len(herd.born),
            "front": [valid[place].identity for place in pareto_front(points)],
        }
        return Selection(ranking([*pool, *herd.born], order), notes)


class Herd:
    """Every plan by number, and how children come from parents.

    Attributes:
        plans: scored where they were trained.
        used: numbers that a trial had.
        trained: those of them that the budget admits, in the order of their trials.
    """

    def __init__(self, problem: Problem, pool: Sequence[Candidate], crossover: float, mutation: float) -> None:
        self._problem, self._crossover, self._mutation = problem, crossover, mutation
        self.rng = random.Random(f"{problem.seed}/nsga2")
        self.plans = [candidate for candidate in pool if candidate.rejected is None]
        self.pooled = len(self.plans)
        self._numbers = {candidate.identity: number for number, candidate in enumerate(self.plans)}
        self.used: set[int] = set()
        self.trained: list[int] = []
        self._vocabulary = Vocabulary([(candidate.space, candidate.plan) for candidate in pool])
        self._sizes = capacity_range(self.plans)
        self.dearest = max(expense(candidate.cost) for candidate in self.plans)

    @property
    def born(self) -> list[Candidate]:
        """Children that the pool did not have."""
        return self.plans[self.pooled :]

    def first(self, count: int, top: float) -> list[int]:
        """The first generation's numbers: the pool's from the largest capacity down, mutants where there are fewer."""
        found = [self._numbers[candidate.identity] for candidate in spread(self.plans, count, top)]
        self.used |= set(found)
        for parent in found[: max(0, count - len(found))] * 2:
            number = self.child(parent, parent) if len(found) < count else None
            if number is not None:
                self.used.add(number)
                found.append(number)
        self.used -= set(found)
        return found

    def child(self, one: int, other: int) -> int | None:
        """The number of a plan that was not used yet, made of two; None where `TRIES` gave none."""
        first, second = self.plans[one], self.plans[other]
        space = self._problem.spaces.get(first.space)
        if space is None:
            return self._mixed(first, second)
        plan = first.plan
        if second.space == first.space and self.rng.random() < self._crossover:
            plan = space.crossover(first.plan, second.plan, self.rng)
        if self.rng.random() < self._mutation:
            plan = space.mutate(plan, self.rng)
        for _ in range(TRIES):
            candidate = self._problem.admit(first.space, plan)
            number = self._numbers.setdefault(candidate.identity, len(self.plans))
            if number == len(self.plans):
                self.plans.append(candidate)
            if number not in self.used:
                return number
            plan = space.mutate(plan, self.rng)
        return None

    def _mixed(self, first: Candidate, second: Candidate) -> int | None:
        """The untried member of the pool that is nearest to a mixture of two."""
        left = [candidate for number, candidate in enumerate(self.plans) if number not in self.used]
        if not left:
            return None
        parents = [self._vocabulary.of(parent.space, parent.plan) for parent in (first, second)]
        alone = parents[0]["space"] != parents[1]["space"] or self.rng.random() >= self._crossover
        donors = [self.rng.choice((0, 0 if alone else 1)) for _ in parents[0]]
        wanted: dict[str, Value] = {
            name: parents[donor].get(name, value)
            for donor, (name, value) in zip(donors, parents[0].items(), strict=True)
        }
        changed = [name for name in wanted if name in self._vocabulary.domains and name != "space"]
        if changed and self.rng.random() < self._mutation:
            name = self.rng.choice(changed)
            wanted[name] = self.rng.choice(self._vocabulary.domains[name].values)
        wanted[CAPACITY] = capacity(self.rng.choice((first, first if alone else second)).cost)
        found = nearest(self._vocabulary, wanted, left, self._sizes, weight=1.0)
        return self._numbers[found.identity]


def evolve(problem: Problem, herd: Herd, settings: Nsga2, count: int, floors: Mapping[str, float]) -> int:
    """Breed and train until `count` students are scored or none is new; how many generations that took.

    Args:
        floors: of each cost, below which it does not count.
    """
    import optuna

    def objectives(candidate: Candidate, worst: float) -> list[float]:
        score = candidate.score
        lost = score is None or math.isnan(score)
        costs = [max(floor, COSTS[name](candidate.cost) or 0.0) for name, floor in floors.items()]
        return [worst if lost or score is None else score, *costs]

    # Optuna's trials have no types here: it is imported only where a search runs.
    def better(one: Any, other: Any) -> bool:
        broken, more = (sum(trial.constraints.values()) for trial in (one, other))
        if broken > 0.0 or more > 0.0:
            return bool(broken < more)
        first, second = ((-trial.values[0], *trial.values[1:]) for trial in (one, other))
        return dominates(first, second)

    def tournament(parents: Sequence[Any]) -> int:
        one, other = herd.rng.choice(parents), herd.rng.choice(parents)
        return int((other if better(other, one) else one).params[PLAN])

    def breed(_study: Any, _space: Any, parents: list[Any]) -> dict[str, Any]:
        number = herd.child(tournament(parents), tournament(parents))
        return {PLAN: MOST_PLANS if number is None else number}

    first = herd.first(min(settings.population, count), settings.top)
    with quiet():
        sampler = optuna.samplers.NSGAIISampler(
            population_size=max(2, len(first)),
            seed=seed_of(random.Random(f"{problem.seed}/optuna")),
            child_generation_strategy=breed,
        )
        up, down = optuna.study.StudyDirection.MAXIMIZE, optuna.study.StudyDirection.MINIMIZE
        study = optuna.create_study(directions=[up, *(down for _ in floors)], sampler=sampler)
        for number in first:
            study.enqueue_trial({PLAN: number})
        done = generations = 0
        while done < count:
            size = min(len(first), count - done)
            batch: list[tuple[optuna.Trial, int]] = []
            trained: list[int] = []
            misses = 0
            while len(trained) < size and misses < TRIES and (generations > 0 or len(batch) < len(first)):
                trial = study.ask()
                # An enqueued trial never asks the sampler; looking at this does, and puts it into its generation.
                bred = trial.relative_params
                number = trial.suggest_int(PLAN, 0, MOST_PLANS)
                if (generations > 0 and PLAN not in bred) or number == MOST_PLANS or number in herd.used:
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                    misses += 1
                    continue
                herd.used.add(number)
                batch.append((trial, number))
                if herd.plans[number].rejected is None:
                    trained.append(number)
                else:
                    misses += 1
            if not trained:
                break
            results = scored(problem, [herd.plans[number] for number in trained], settings.share)
            for number, candidate in zip(trained, results, strict=True):
                herd.plans[number] = candidate
                herd.trained.append(number)
            reached = [herd.plans[number].score for number in herd.trained]
            valid = [score for score in reached if score is not None and not math.isnan(score)]
            for trial, number in batch:  # told together: how fast each came makes no difference
                candidate = herd.plans[number]
                trial.set_constraint(BUDGET, violation(candidate, herd.dearest))
                trial.set_constraint(DIVERGED, float(candidate.score is not None and math.isnan(candidate.score)))
                study.tell(trial, objectives(candidate, min(valid, default=0.0)))
            done += len(trained)
            generations += 1
    return generations


SELECTOR = Nsga2
