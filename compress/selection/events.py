"""What happened in a search, one plain value per happening, in the order in which it happened.

A search that goes through several rounds (built, measured, learned from, searched again) numbers them from 1. Events
become JSON and come back equal, so that a later round can tell of the earlier ones.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compress.contracts.selector import Outcome, Trial

FULL = 1.0 - 1e-9  # share of the training from which a trial is a full one


@dataclass(frozen=True)
class Costed:
    """Candidates were drawn and held against the budget.

    Attributes:
        count: of candidates, the rejected ones among them.
        cpu_s: CPU seconds of costing them all.
    """

    round: int
    count: int
    rejected: int
    cpu_s: float = 0.0


@dataclass(frozen=True)
class Scored:
    """Candidates got a score that needs no training; the scores themselves are in `Candidate.proxies`."""

    round: int
    name: str
    count: int
    cpu_s: float


@dataclass(frozen=True)
class Trained:
    """A trial ended.

    Attributes:
        share: of the full training, (0, 1].
        score: on validation data, higher is better; NaN where the training diverged.
        cpu_s: CPU seconds when it was done, which may have been in an earlier search.
        remembered: nothing was spent on it this time.
    """

    round: int
    identity: str
    share: float
    seed: int
    score: float
    cpu_s: float
    remembered: bool = False

    @property
    def trial(self) -> tuple[str, float, int]:
        """What is never done twice."""
        return self.identity, self.share, self.seed


@dataclass(frozen=True)
class Charged:
    """The selector trained something itself, such as a supernet.

    Attributes:
        share: in full trainings of one student.
        cpu_s: None where nobody took the time.
    """

    round: int
    share: float
    what: str
    cpu_s: float | None = None


@dataclass(frozen=True)
class Built:
    """A student's real artifact was costed on the target.

    Attributes:
        origin: measured, emulated or predicted.
        predicted_ms: what the cost model had said of it before.
        score: of the artifact on validation data, after quantisation; None where it did not run.
        met: whether every gate held.
        why: the gate that failed, as a sentence.
    """

    round: int
    identity: str
    latency_ms: float
    interval_ms: tuple[float, float]
    origin: str
    predicted_ms: float
    score: float | None = None
    met: bool = True
    why: str = ""


@dataclass(frozen=True)
class Recalibrated:
    """What artifacts taught about a cost or a score, used from this round on.

    Attributes:
        what: "latency", "peak activation memory", "score after quantisation", ...
        factor: by which the prediction is multiplied.
        builds: artifacts that it rests on.
    """

    round: int
    what: str
    factor: float
    builds: int
    why: str = ""


@dataclass(frozen=True)
class Chose:
    """A round's answer."""

    round: int
    identity: str
    why: str = ""


Event = Costed | Scored | Trained | Charged | Built | Recalibrated | Chose
KINDS: dict[str, type[Event]] = {
    kind.__name__.lower(): kind for kind in (Costed, Scored, Trained, Charged, Built, Recalibrated, Chose)
}


def trained(round_: int, trial: Trial, outcome: Outcome) -> Trained:
    """The event of a trial and what it gave."""
    return Trained(
        round_, trial.candidate.identity, trial.share, trial.seed, outcome.score, outcome.cpu_s, outcome.remembered
    )


def to_json(event: Event) -> dict[str, Any]:
    """Plain data; a score that is not a number becomes None."""
    fields = dataclasses.asdict(event)
    return {
        "kind": type(event).__name__.lower(),
        **{name: None if isinstance(value, float) and math.isnan(value) else value for name, value in fields.items()},
    }


def from_json(data: Mapping[str, Any]) -> Event:
    """The event that `to_json` gave.

    Raises:
        ValueError: no event is called so.
    """
    kind = KINDS.get(str(data["kind"]))
    if kind is None:
        raise ValueError(f"no event is called {data['kind']!r}; there are {', '.join(KINDS)}")
    fields = {name: value for name, value in data.items() if name != "kind"}
    if kind is Trained and fields["score"] is None:
        fields["score"] = math.nan
    if kind is Built:
        fields["interval_ms"] = tuple(fields["interval_ms"])
    return kind(**fields)
