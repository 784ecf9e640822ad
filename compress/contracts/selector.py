"""How a student is chosen: what a selector sees, what it may ask for, and what it answers."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from compress.contracts.examples import Splits
from compress.contracts.space import Space
from compress.contracts.task import Task
from profiles.cost import Cost


@dataclass(frozen=True)
class Candidate:
    """A plan with what is known of it. `rejected` says why it left the race; None while it is in.

    Attributes:
        score: after the longest training it had, on validation data; higher is better.
        fidelity: share of the full training that `score` rests on.
        proxies: name -> score that needed no training (higher is better), such as "diswot".
    """

    space: str
    plan: Any
    cost: Cost
    rejected: str | None = None
    score: float | None = None
    fidelity: float = 0.0
    proxies: Mapping[str, float] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Hash of the network: equal in every process and run for equal space and plan."""
        return identity_of(self.space, self.plan)


def identity_of(space: str, plan: Any) -> str:
    """The identity that a candidate of this space and plan has, 24 hexadecimal digits."""
    text = json.dumps([space, plan.to_json()], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Trial:
    """One distillation of one candidate.

    Attributes:
        share: of the full training, in (0, 1].
        seed: of weights and batches, counted from the run's own seed.
    """

    candidate: Candidate
    share: float
    seed: int = 0


@dataclass(frozen=True)
class Outcome:
    """What a trial gave.

    Attributes:
        score: on validation data, higher is better; NaN where the training diverged.
        cpu_s: CPU seconds that the training took when it was done.
        remembered: it had been done before, by this search or another, and nothing was spent on it now.
    """

    score: float
    cpu_s: float
    remembered: bool = False


class Problem(ABC):
    """The students there are and the trainings that may be spent on telling them apart.

    Attributes:
        seed: of every random decision of the search.
        training: full trainings that may be spent, by `spent`. What selectors compare on: asking for more is refused.
        epochs: of a full training, each over all of `splits.train`.
        pool: candidates that were drawn and costed, rejected ones among them.
        spaces: by name, for selectors that make plans of their own.
        task, splits: for selectors that train something themselves. Test data are not for them.
        teacher: raw inputs -> outputs, trained, in eval mode; None for a black box that is no module.
    """

    seed: int
    training: float
    epochs: int
    pool: tuple[Candidate, ...]
    spaces: Mapping[str, Space[Any]]
    task: Task
    splits: Splits
    teacher: nn.Module | None

    @property
    @abstractmethod
    def spent(self) -> float:
        """Full trainings spent so far: the shares of the trials that were asked for, and what was charged.

        A remembered trial counts as well: a search that continues decides as the undisturbed one would.
        """

    @abstractmethod
    def admit(self, space: str, plan: Any) -> Candidate:
        """Cost a plan on the target and hold it against the budget; the same plan costs nothing a second time."""

    @abstractmethod
    def stream(self, trials: Sequence[Trial]) -> Iterator[tuple[int, Outcome]]:
        """Train, on as many workers as there are; (position in `trials`, outcome) as each one ends.

        Raises:
            ValueError: a rejected candidate, or more than `training` allows.
        """

    def train(self, trials: Sequence[Trial]) -> list[Outcome]:
        """All outcomes, in the order of `trials`."""
        found = dict(self.stream(trials))
        return [found[place] for place in range(len(trials))]

    def shared_macs(self, space: str) -> int:
        """Multiply-accumulates of the preprocessing that all students of a space share: in their costs, at batch 1."""
        return 0

    @abstractmethod
    def student(self, candidate: Candidate, seed: int = 0) -> nn.Module:
        """The untrained student, raw inputs -> outputs; inherits weights where its space does."""

    @abstractmethod
    def charge(self, share: float, what: str) -> None:
        """Count training that the selector did itself (a supernet), in full trainings of one student."""


@dataclass(frozen=True)
class Selection:
    """A selector's answer.

    Attributes:
        ranked: every candidate that it knows, the best first, scored where trained; the rejected ones last.
        notes: plain data for the report: what was fitted, how far it is to be trusted.
    """

    ranked: tuple[Candidate, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)


class Selector(Protocol):
    """A file of `compress/selectors` ends with `SELECTOR = <a final frozen dataclass>` of this protocol.

    Its fields are its settings, all with defaults: the recipe's `[select.settings]`. Given the same problem it decides
    the same, whatever the number of workers and whatever was remembered.
    """

    def __call__(self, problem: Problem) -> Selection: ...
