"""A search whose trainings were all done before: selectors run on a table in seconds."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from compress.contracts.examples import Splits, TensorExamples
from compress.contracts.selector import Candidate, Outcome, Problem, Trial, identity_of
from compress.contracts.space import Space
from profiles.cost import Cost
from tools.student_table.bed import Bed, Toy


@dataclass(frozen=True)
class FixedPlan:
    """A plan as the table holds it."""

    text: str

    def to_json(self) -> dict[str, Any]:
        """Plain data of whatever space."""
        data: dict[str, Any] = json.loads(self.text)
        return data


def accuracy(trained: Sequence[Mapping[str, float]], examples: tuple[int, int]) -> float:
    """Mean over some trainings (their `val` and `test`) of the accuracy on validation and test examples together.

    Args:
        examples: of the validation and of the test split.
    """
    val, test = examples
    return sum((val * one["val"] + test * one["test"]) / (val + test) for one in trained) / len(trained)


@dataclass(frozen=True)
class Row:
    """One student of the table.

    Attributes:
        costs: target -> with the front-end, at batch 1.
        scores: share -> seed -> val, test, cpu_s.
        examples: of the validation and of the test split.
    """

    space: str
    plan: FixedPlan
    identity: str
    macs: int
    params: int
    costs: Mapping[str, Cost]
    scores: Mapping[float, Mapping[int, Mapping[str, float]]]
    examples: tuple[int, int]

    @property
    def accuracy(self) -> float:
        """Mean over the full trainings of the accuracy on what they were not trained on.

        Validation and test examples together, each counted once: no full training was chosen by either.
        """
        return accuracy(list(self.scores[1.0].values()), self.examples)


@dataclass(frozen=True)
class Table:
    """All students of one bed."""

    task: str
    epochs: int
    teacher_test: float
    teacher_params: int
    rows: tuple[Row, ...]

    def at(self, target: str) -> list[Candidate]:
        """Every student as a candidate for one target, none rejected."""
        return [Candidate(row.space, row.plan, row.costs[target]) for row in self.rows]

    def limit_ms(self, target: str, admitted: float) -> float:
        """The latency budget that this part of the students keeps to, in (0, 1]."""
        latencies = sorted(row.costs[target].latency_ms for row in self.rows)
        return latencies[max(0, math.ceil(admitted * len(latencies)) - 1)]


def load(path: Path) -> Table:
    """Read a table that `python -m tools.student_table` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for item in data["students"]:
        plan = FixedPlan(json.dumps(item["plan"], sort_keys=True))
        assert identity_of(item["space"], plan) == item["identity"]
        rows.append(
            Row(
                item["space"],
                plan,
                item["identity"],
                item["macs"],
                item["params"],
                {name: _cost(name, figures) for name, figures in item["costs"].items()},
                {
                    float(share): {int(seed): trained for seed, trained in seeds.items()}
                    for share, seeds in item["scores"].items()
                },
                (data["protocol"]["val"], data["examples"]["test"]),
            )
        )
    return Table(
        data["protocol"]["task"],
        data["protocol"]["epochs"],
        data["teacher"]["test"],
        data["teacher"]["params"],
        tuple(rows),
    )


def _cost(target: str, figures: Mapping[str, Any]) -> Cost:
    return Cost(
        target=target,
        runtime="",
        batch=1,
        precision="int8",
        macs=figures["macs"],
        params=figures["params"],
        weight_bytes=figures["weight_bytes"],
        peak_activation_bytes=figures["peak_activation_bytes"],
        latency_ms=figures["latency_ms"],
        interval_ms=(figures["interval_ms"][0], figures["interval_ms"][1]),
        origin=figures["origin"],
    )


@final
class TableProblem(Problem):
    """Choose among the rows that a latency budget admits.

    Attributes:
        asked: every trial, in order.
        cpu_s: what the trials took when they were done.
    """

    def __init__(
        self,
        table: Table,
        target: str,
        limit_ms: float,
        *,
        training: float,
        seed: int,
        bed: Bed | None = None,
    ) -> None:
        """
        Args:
            limit_ms: on the predicted median: what is compared is who finds the best of the same students.
            bed: for selectors that look at networks; None for those that do not.
        """
        self.seed, self.training, self.epochs = seed, training, table.epochs
        self.spaces: Mapping[str, Space[Any]] = {}
        self.rows = {row.identity: row for row in table.rows}
        self.pool = tuple(
            replace(c, rejected=None if c.cost.latency_ms <= limit_ms else f"over {limit_ms:.3g} ms")
            for c in table.at(target)
        )
        self.bed = bed
        nothing = TensorExamples(torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), "")
        self.task = Toy() if bed is None else bed.task_of_features
        self.splits = Splits(nothing, nothing, nothing) if bed is None else bed.splits
        self.teacher = None if bed is None else bed.teacher
        self.asked: list[Trial] = []
        self.cpu_s = 0.0
        self._spent = 0.0

    def shared_macs(self, space: str) -> int:
        """What the costs count and the rows' networks do not."""
        rows = self.rows
        return min((c.cost.macs - rows[c.identity].macs for c in self.pool if c.space == space), default=0)

    @property
    def best(self) -> float:
        """Accuracy of the best that the budget admits."""
        return max(self.rows[c.identity].accuracy for c in self.pool if c.rejected is None)

    @property
    def everyone(self) -> float:
        """CPU seconds of training every admitted student once, fully."""
        full = [self.rows[c.identity].scores[1.0] for c in self.pool if c.rejected is None]
        return sum(sum(one["cpu_s"] for one in seeds.values()) / len(seeds) for seeds in full)

    def regret(self, chosen: Candidate) -> float:
        """Points of accuracy below the best."""
        return 100 * (self.best - self.rows[chosen.identity].accuracy)

    @property
    def spent(self) -> float:
        """Full trainings."""
        return self._spent

    def admit(self, space: str, plan: Any) -> Candidate:
        """A row of the table; there are no others."""
        identity = identity_of(space, plan)
        return next(candidate for candidate in self.pool if candidate.identity == identity)

    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Outcome]]:
        """Look the trials up."""
        self.charge(sum(trial.share for trial in trials), "trials")
        for place, trial in enumerate(trials):
            if trial.candidate.rejected is not None:
                raise ValueError(f"{trial.candidate.identity} is over the budget")
            shares = self.rows[trial.candidate.identity].scores
            if trial.share not in shares:
                raise ValueError(f"the table has the shares {', '.join(map(str, shares))}, and not {trial.share}")
            seeds = shares[trial.share]
            found = seeds[(self.seed + trial.seed) % len(seeds)]
            self.asked.append(trial)
            self.cpu_s += found["cpu_s"]
            yield place, Outcome(found["val"], found["cpu_s"])

    def student(self, candidate: Candidate, seed: int = 0) -> nn.Module:
        """The untrained network, features -> logits."""
        if self.bed is None:
            raise ValueError("this problem was made without a bed, so there are no networks")
        return self.bed.build(
            candidate.space, self.bed.spaces[candidate.space].from_json(candidate.plan.to_json()), seed
        )

    def charge(self, share: float, what: str) -> None:
        """Count it."""
        if self._spent + share > self.training * (1 + 1e-9):
            raise ValueError(f"{self._spent:.3g} and {share:.3g} for {what} are over {self.training:.3g}")
        self._spent += share
