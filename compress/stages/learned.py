"""What a student that was built and missed its budget teaches the next search."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compress.job import Job
from compress.store import digest
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
class Learned:
    """What a finished student taught about costs: later candidates' predictions are scaled by the ratios.

    Attributes:
        latency_ratio: measured or emulated over predicted.
        why: the gate that failed, as a sentence.
        memory_ratio: the same of the peak of activations.
    """

    choice: Choice
    latency_ratio: float
    why: str
    memory_ratio: float = 1.0


def learned_from(choice: Choice, costs: Mapping[str, Mapping[str, Any]], why: str) -> Learned:
    """Compare what verify found with what had been predicted."""
    found = costs[SHIPPED]
    predicted = costs.get(PREDICTED, found)
    memory = found["peak_activation_bytes"] / max(1, predicted["peak_activation_bytes"])
    return Learned(choice, found["latency_ms"] / predicted["latency_ms"], why, memory)


def memorize(job: Job, learned: Sequence[Learned]) -> None:
    """Keep it in the run's folder: a run that is killed in its second round goes on in the second round."""
    content = {"key": _key(job), "learned": [asdict(item) for item in learned]}
    write_text(job.store.folder / MEMORY, json.dumps(content, indent=1))


def recall(job: Job) -> tuple[Learned, ...]:
    """What earlier rounds of the same run learned; nothing where the recipe, the data or the teacher changed."""
    path = job.store.folder / MEMORY
    if not path.is_file():
        return ()
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["key"] != _key(job):
        return ()
    return tuple(Learned(**{**item, "choice": Choice(**item["choice"])}) for item in content["learned"])


def _key(job: Job) -> str:
    return digest([job.recipe.to_json(), dict(job.identities)])
