"""A run's search as selectors see it: candidates are costed on the target, trainings are real and never done twice."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch import nn

from compress.contracts.selector import Candidate, Outcome, Problem, Trial, identity_of
from compress.contracts.space import Space
from compress.contracts.workers import Done, Failure, Resources, Task, Workers
from compress.evaluations import Evaluation, Evaluations
from compress.job import Job
from compress.selection.events import Charged, Event, trained
from compress.selection.propose import propose
from compress.stages import trials as tasks
from compress.stages.failures import Failures
from compress.stages.students import frontend_macs, student
from compress.tally import shown
from compress.workers.never_twice import evaluate
from profiles.cost import Cost

ROUNDING = 1e-9  # of shares that are added up


@final
class RunProblem(Problem):
    """One round of a run's search.

    Attributes:
        events: what happened, for the report.
        failures: trials that failed.
    """

    def __init__(
        self,
        job: Job,
        spaces: Mapping[str, Space[Any]],
        *,
        round_: int,
        cost: Callable[[str, Any], Cost],
        reject: Callable[[str, Any, Cost], str | None],
        expected: Callable[[str, float], float] = lambda space, score: score,
        workers: Workers,
        evaluations: Evaluations,
    ) -> None:
        """
        Args:
            cost: (space, plan) -> its cost on the target, as far as it is known.
            reject: (space, plan, cost) -> why it leaves, or None.
            expected: (space, score) -> the score that is expected to be left after quantisation.
            evaluations: where trainings are remembered.
        """
        part = job.recipe.select
        self.seed, self.training, self.epochs = job.recipe.seed, part.training, job.recipe.distill.epochs
        self.spaces, self.task, self.splits = spaces, job.task, job.splits
        self.teacher = None if job.task.privileged else job.teacher.teacher.modules().get("network")
        self.round = round_
        self.events: list[Event] = []
        self.costing_s = 0.0
        self._job, self._workers, self._evaluations = job, workers, evaluations
        self._cost, self._reject, self._expected = cost, reject, expected
        self._known: dict[str, Candidate] = {}
        self.failures = Failures()
        self._shared: dict[str, int] = {}
        self._spent, self._told = 0.0, False
        self.pool = ()

    def fill(self, count: int, on_candidate: Callable[[Candidate], None]) -> None:
        """Draw and cost the pool."""
        began = time.process_time()
        drawn = propose(
            self.spaces, count=count, cost=self._cost, reject=self._reject, seed=self.seed, on_candidate=on_candidate
        )
        self.costing_s += time.process_time() - began
        self._known |= {candidate.identity: candidate for candidate in drawn}
        self.pool = tuple(drawn)

    def replace(self, candidate: Candidate) -> None:
        """Put what is now known of a candidate in its place."""
        self._known[candidate.identity] = candidate
        self.pool = tuple(candidate if c.identity == candidate.identity else c for c in self.pool)

    @property
    def known(self) -> tuple[Candidate, ...]:
        """Every candidate that was costed."""
        why = self.failures.rejected
        return tuple(
            dataclasses.replace(candidate, rejected=why[identity]) if identity in why else candidate
            for identity, candidate in self._known.items()
        )

    @property
    def spent(self) -> float:
        """Full trainings that the selector has asked for."""
        return self._spent

    def admit(self, space: str, plan: Any) -> Candidate:
        """Cost a plan, once."""
        identity = identity_of(space, plan)
        if identity not in self._known:
            began = time.process_time()
            cost = self._cost(space, plan)
            self._known[identity] = Candidate(space, plan, cost, self._reject(space, plan, cost))
            self.costing_s += time.process_time() - began
        return self._known[identity]

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Outcome]]:
        """Train what is not remembered; scores are those that are expected to be left after quantisation."""
        self._spend(sum(trial.share for trial in trials), f"{len(trials)} trials")
        for trial in trials:
            if trial.candidate.rejected is not None:
                raise ValueError(f"{trial.candidate.identity} was rejected: {trial.candidate.rejected}")
        for place, outcome in self.run(trials):
            score = self._expected(trials[place].candidate.space, outcome.score)
            yield place, dataclasses.replace(outcome, score=score)

    def marked(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The same, those whose training failed rejected for it and last."""
        why = self.failures.rejected
        left = [candidate for candidate in candidates if candidate.identity not in why]
        failed = [candidate for candidate in candidates if candidate.identity in why]
        return left + [dataclasses.replace(candidate, rejected=why[candidate.identity]) for candidate in failed]

    def expected(self, candidate: Candidate) -> Candidate:
        """The candidate with what it is expected to score after quantisation."""
        if candidate.score is None:
            return candidate
        return dataclasses.replace(candidate, score=self._expected(candidate.space, candidate.score))

    def weights(self, trial: Trial) -> Path:
        """Where the weights of a full training are, `<key>.safetensors`; its learning curve is `<key>.json`."""
        return tasks.weights_beside(self._evaluations.path) / f"{tasks.key(self._job, trial)}.safetensors"

    def run(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Outcome]]:
        """The same without a limit. One that failed scores NaN, as one that diverged does; `marked` tells them apart.

        Raises:
            RunError: trainings failed for a reason that is none of their students; see `Failures`.
        """
        keys = [tasks.key(self._job, trial) for trial in trials]
        places: dict[str, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        asked = {key: trials[own[0]] for key, own in places.items()}
        self._evaluations.forget([key for key, trial in asked.items() if self._lost(key, trial)])
        folder = tasks.weights_beside(self._evaluations.path)
        wanted = (
            Task(key, tasks.call(trial, key, folder if tasks.keeps(self._job, trial) else None), Resources(cpus=1.0))
            for key, trial in asked.items()
        )

        if self._job.workers != "serial" and not self._told:  # until they have started nothing else is heard of them
            self._told = True
            self._job.progress.say(
                f"select: trials run on {self._job.workers}; each worker reads data and teacher first"
            )

        def read(done: Done) -> Evaluation:
            return tasks.read(done.value, asked[done.key].candidate.identity)

        told: dict[int, Event] = {}
        for found in evaluate(self._workers, self._evaluations, wanted, read, self._wait):
            if isinstance(found, Failure):
                self.failures.fail(asked[found.key], found)
                outcome = Outcome(math.nan, 0.0)
                self._job.progress.say(
                    f"select: a student of {asked[found.key].candidate.space} is rejected: its training failed:"
                    f" {found.what}"
                )
                for place in places[found.key]:
                    told[place] = trained(self.round, trials[place], outcome)
                    yield place, outcome
                continue
            self.failures.succeed()
            evaluation = found.evaluation
            outcome = Outcome(evaluation.score, evaluation.cpu_s, found.remembered)
            for place in places[found.key]:
                told[place] = trained(self.round, trials[place], outcome)
                self._say(trials[place], outcome)
                yield place, outcome
        self.events += [told[place] for place in sorted(told)]  # whatever the order of arrival
        self.failures.end()

    def shared_macs(self, space: str) -> int:
        """Of the preprocessing before that space's students."""
        if space not in self._shared:
            self._shared[space] = frontend_macs(self._job, space)
        return self._shared[space]

    def student(self, candidate: Candidate, seed: int = 0) -> nn.Module:
        """The untrained student of that seed."""
        return student(self._job, candidate.space, self.spaces[candidate.space], candidate.plan, seed)

    def charge(self, share: float, what: str) -> None:
        """Count what the selector trained itself."""
        self._spend(share, what)
        self.events.append(Charged(self.round, share, what))

    def _spend(self, share: float, what: str) -> None:
        if self._spent + share > self.training + ROUNDING:
            raise ValueError(
                f"{what} would take {share:.3g} full trainings, and of {self.training:.3g} there are"
                f" {self.training - self._spent:.3g} left"
            )
        self._spent += share

    def _lost(self, key: str, trial: Trial) -> bool:
        """Whether its result is remembered and its weights are gone. They are written before the result is."""
        known = self._evaluations.get(key) if tasks.keeps(self._job, trial) else None
        return known is not None and math.isfinite(known.score) and not self.weights(trial).is_file()

    def _wait(self, count: int) -> None:
        self._job.progress.say(f"select: another process is at {count} of these trials; waiting for it")

    def _say(self, trial: Trial, outcome: Outcome) -> None:
        if outcome.remembered:
            return
        epochs = tasks.epochs_of(self._job, trial.share)
        cost = trial.candidate.cost
        ends = f"reaches {shown(self._job.task, outcome.score)}" if math.isfinite(outcome.score) else "diverges"
        self._job.progress.say(
            f"select: a student of {trial.candidate.space} with {cost.macs / 1e6:.2f} M MACs {ends} after"
            f" {epochs} epoch{'s' if epochs > 1 else ''}"
        )


def scored(candidate: Candidate, outcome: Outcome, share: float) -> Candidate:
    """The candidate with what a trial of it gave."""
    return dataclasses.replace(candidate, score=outcome.score, fidelity=share)
