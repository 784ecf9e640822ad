"""A search whose trainings are done as it asks for them: for selectors that make plans of their own."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, final

from torch import nn

from compress.contracts.examples import Splits
from compress.contracts.selector import Candidate, Outcome, Problem, Trial, identity_of
from compress.contracts.space import Space
from compress.contracts.task import Task
from compress.errors import TrainingError
from compress.selection.propose import propose
from profiles.cost import Cost
from tools.student_table.bed import Protocol as Numbers
from tools.student_table.bed import Trained
from tools.student_table.problem import Table

DIVERGED = Trained(float("nan"), float("nan"), 0.0)


class Trains(Protocol):
    """What is asked of a bed."""

    protocol: Numbers
    spaces: dict[str, Space[Any]]
    splits: Splits
    teacher: nn.Module
    task_of_features: Task

    def train(self, space: str, plan: Any, share: float, seed: int) -> Trained: ...

    def build(self, space: str, plan: Any, seed: int) -> nn.Module: ...

    def cost(self, space: str, plan: Any, target: str) -> Cost: ...

    def network_cost(self, space: str, plan: Any) -> Cost: ...


def lines(log: Path) -> Iterator[dict[str, Any]]:
    """What was written there; a line that a kill cut off is not."""
    for line in log.read_text(encoding="utf-8").splitlines() if log.is_file() else ():
        try:
            row: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            continue
        yield row


def append(log: Path, row: Mapping[str, Any]) -> None:
    """Write one line, on disk when this returns. It starts anew behind a line that a kill cut off."""
    with log.open("ab") as handle:
        cut = handle.tell() > 0 and log.read_bytes()[-1:] != b"\n"
        handle.write(b"\n" * cut + json.dumps(row).encode() + b"\n")
        handle.flush()
        os.fsync(handle.fileno())


class Trainings:
    """Trainings of one bed, each done once and kept in a file of one line each."""

    def __init__(self, bed: Trains, log: Path) -> None:
        self.bed, self.log = bed, log
        self.known = {(row["identity"], row["epochs"], row["seed"]): Trained(**row["trained"]) for row in lines(log)}

    def __call__(self, space: str, plan: Any, share: float, seed: int) -> Trained:
        """What the bed gives; NaN where the training diverged. Shares of the same whole epochs are one training."""
        key = identity_of(space, plan), self.bed.protocol.epochs_of(share), seed
        if key not in self.known:
            try:
                self.known[key] = self.bed.train(space, plan, share, seed)
            except TrainingError:
                self.known[key] = DIVERGED
            identity, epochs, seed = key
            append(
                self.log,
                {"identity": identity, "epochs": epochs, "seed": seed, "space": space, "plan": plan.to_json()}
                | {"trained": asdict(self.known[key])},
            )
        return self.known[key]


@dataclass(frozen=True)
class Limits:
    """What a student has to keep to.

    Attributes:
        latency_ms: on the predicted median.
        macs: of the network alone; a table has students up to some size only, and a target on which latency hardly
            depends on work would admit much larger ones.
    """

    latency_ms: float
    macs: float

    def broken_by(self, cost: Cost) -> str | None:
        """Why a student is out, or None."""
        if cost.latency_ms > self.latency_ms:
            return f"over {self.latency_ms:.3g} ms"
        return f"over {self.macs:.3g} multiply-accumulates" if cost.macs > self.macs else None


@final
class LiveProblem(Problem):
    """Choose among all plans of some spaces, within the latency budget of a table's students.

    Costs count the multiply-accumulates of the network alone: nothing else is trained on a bed, and what a selector
    charges for its own training goes by them.

    Attributes:
        trained: full trainings by the epochs that were run, which are whole ones; charges included.
        cpu_s: what the trials took when they were done.
        training_s: CPU seconds of this process that went into trials.
    """

    def __init__(
        self,
        trainings: Trainings,
        table: Table,
        target: str,
        limits: Limits,
        *,
        training: float,
        seed: int,
        drawn_from: Sequence[str] = (),
    ) -> None:
        """
        Args:
            drawn_from: spaces that a pool as large as the table is drawn from; () for the table's students.
        """
        self.bed = bed = trainings.bed
        self.seed, self.training, self.epochs = seed, training, bed.protocol.epochs
        self.spaces: Mapping[str, Space[Any]] = bed.spaces
        self.task, self.splits, self.teacher = bed.task_of_features, bed.splits, bed.teacher
        self.limits, self.target, self._trainings = limits, target, trainings
        self.trained = self.cpu_s = self.training_s = self._spent = 0.0
        self._known: dict[str, Candidate] = {}
        if drawn_from:
            spaces = {name: bed.spaces[name] for name in drawn_from}
            drawn = propose(spaces, count=len(table.rows), cost=self._cost, reject=self._reject, seed=seed)
        else:
            drawn = [
                Candidate(row.space, bed.spaces[row.space].from_json(row.plan.to_json()), cost, limits.broken_by(cost))
                for row in table.rows
                for cost in (replace(row.costs[target], macs=row.macs),)
            ]
        self.pool = tuple(drawn)
        self._known = {candidate.identity: candidate for candidate in drawn}

    def _cost(self, space: str, plan: Any) -> Cost:
        return replace(self.bed.cost(space, plan, self.target), macs=self.bed.network_cost(space, plan).macs)

    def _reject(self, space: str, plan: Any, cost: Cost) -> str | None:
        return self.limits.broken_by(cost)

    @property
    def spent(self) -> float:
        """Full trainings asked for and charged."""
        return self._spent

    def admit(self, space: str, plan: Any) -> Candidate:
        """Cost a plan, once."""
        identity = identity_of(space, plan)
        if identity not in self._known:
            cost = self._cost(space, plan)
            self._known[identity] = Candidate(space, plan, cost, self._reject(space, plan, cost))
        return self._known[identity]

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Outcome]]:
        """Train one after the other."""
        for trial in trials:
            if trial.candidate.rejected is not None:
                raise ValueError(f"{trial.candidate.identity} is {trial.candidate.rejected}")
        self._spend(sum(trial.share for trial in trials), f"{len(trials)} trials")
        for place, trial in enumerate(trials):
            began = time.process_time()
            found = self._trainings(trial.candidate.space, trial.candidate.plan, trial.share, self.seed + trial.seed)
            self.training_s += time.process_time() - began
            self.trained += self.bed.protocol.epochs_of(trial.share) / self.epochs
            self.cpu_s += found.cpu_s
            yield place, Outcome(found.val, found.cpu_s)

    def student(self, candidate: Candidate, seed: int = 0) -> nn.Module:
        """The untrained network, features -> logits."""
        return self.bed.build(candidate.space, candidate.plan, self.seed + seed)

    def charge(self, share: float, what: str) -> None:
        """Count it."""
        self._spend(share, what)
        self.trained += share

    def _spend(self, share: float, what: str) -> None:
        if self._spent + share > self.training * (1 + 1e-9):
            raise ValueError(f"{self._spent:.3g} and {share:.3g} for {what} are over {self.training:.3g}")
        self._spent += share
