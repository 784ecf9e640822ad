"""What a student that was built and missed its budget, in cost or in accuracy, teaches the next search."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from compress.job import Job
from compress.records import digest
from profiles.atomic import write_text

MEMORY = "learned.json"
SHIPPED = "shipped student"  # in whatever format that is, as its artifact runs where that can be known
PREDICTED = f"{SHIPPED}, predicted"  # the cost model's word on it, where the other is measured, emulated or estimated


@dataclass(frozen=True)
class Choice:
    """The chosen student.

    Attributes:
        plan: plain data that the space of that name builds from.
        why: for people.
        trained: its fully distilled weights, relative to the run's folder, where the search went that far.
    """

    space: str
    plan: Mapping[str, Any]
    why: str
    trained: str | None = None

    @property
    def identity(self) -> str:
        """Hash of the network that is built."""
        return digest([self.space, self.plan])


@dataclass(frozen=True)
class Evidence:
    """What was found of a student that was built.

    Only `shipped` and `needed` are of test data: these decide whether the budget is met, and nothing else. What a later
    search calculates with is of validation data.

    Attributes:
        latency_ms, interval_ms, origin: of the shipped artifact.
        predicted_ms: what the cost model says of it.
        distilled: the float student's score on validation data.
        quantized: the score after quantisation, on the same data.
        shipped: the artifact's score on test data.
        needed: the least that the budget allows there; None where it allows anything.
    """

    latency_ms: float
    interval_ms: tuple[float, float]
    origin: str
    predicted_ms: float
    distilled: float
    quantized: float
    shipped: float
    needed: float | None = None

    @property
    def kept(self) -> float:
        """Share of its score that quantisation left it, at most 1; 1 where there was nothing to lose."""
        return min(1.0, max(0.0, self.quantized) / self.distilled) if self.distilled > 0.0 else 1.0


@dataclass(frozen=True)
class Learned:
    """What a finished student taught: later candidates' predictions are scaled by the ratios.

    Attributes:
        latency_ratio: measured or emulated over predicted.
        why: the gates that failed, as a sentence.
        memory_ratio: the same of the peak of activations.
        too_dear: its cost broke the budget.
        inaccurate: its accuracy did.
        evidence: None where only costs were looked at.
    """

    choice: Choice
    latency_ratio: float
    why: str
    memory_ratio: float = 1.0
    too_dear: bool = True
    inaccurate: bool = False
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Memory:
    """What the rounds of a run's search have come to.

    Attributes:
        learned: one for each round that ended with a student which missed the budget.
        exhausted: why there is no student left to build; "" while there may be one.
    """

    learned: tuple[Learned, ...] = ()
    exhausted: str = ""


def ratios(costs: Mapping[str, Mapping[str, Any]]) -> tuple[float, float]:
    """(latency, peak of activations) that verify found, over what had been predicted."""
    found = costs[SHIPPED]
    predicted = costs.get(PREDICTED, found)
    memory = found["peak_activation_bytes"] / max(1, predicted["peak_activation_bytes"])
    return found["latency_ms"] / predicted["latency_ms"], memory


def memorize(job: Job, memory: Memory) -> None:
    """Keep it in the run's folder: a run that is killed in its second round goes on in the second round."""
    content = {"key": _key(job), **asdict(memory)}
    write_text(job.store.folder / MEMORY, json.dumps(content, indent=1))


def recall(job: Job) -> Memory:
    """What earlier rounds of the same run learned; nothing where the recipe, the data or the teacher changed."""
    path = job.store.folder / MEMORY
    if not path.is_file():
        return Memory()
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["key"] != _key(job):
        return Memory()
    return Memory(tuple(map(_learned, content["learned"])), content.get("exhausted", ""))


def _learned(data: Mapping[str, Any]) -> Learned:
    evidence = data.get("evidence")
    if evidence is not None:
        evidence = Evidence(**{**evidence, "interval_ms": tuple(evidence["interval_ms"])})
    return Learned(**{**data, "choice": Choice(**data["choice"]), "evidence": evidence})


def _key(job: Job) -> str:
    return digest([job.recipe.to_json(), dict(job.identities)])
