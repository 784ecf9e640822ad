"""How a search ends whose students were built and all lost too much: the nearest one ships, and it is said why."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.contracts.metric import Metric
from compress.selection.events import Built
from compress.selection.feasibility import enough
from compress.stages.learned import Learned, Memory


@dataclass(frozen=True)
class Ending:
    """The metric that the budget asks for was not reached.

    Attributes:
        place: of the student that ships, in `Memory.learned`.
        why: what was tried, for people.
        fix: what would have to change.
        tried: what is known of each student that was built, plain data.
    """

    place: int
    why: str
    fix: str
    tried: tuple[dict[str, Any], ...]


def nearest(learned: Sequence[Learned]) -> int | None:
    """The place of the student that keeps the cost budgets and loses least; None where all broke a cost budget.

    Of equal ones the earlier: it was thought better.
    """
    places = [place for place, item in enumerate(learned) if not item.too_dear and item.evidence is not None]
    return max(places, key=lambda place: (_shipped(learned[place]), -place), default=None)


def ending(memory: Memory, rounds: int, metric: Metric) -> Ending | None:
    """None while the search may go on, or where no student that was built kept the cost budgets."""
    learned = memory.learned
    place = _ended(memory, rounds)
    if place is None:
        return None
    best = learned[place].evidence
    assert best is not None
    count = len(learned)
    told = "; ".join(_told(number, item, metric) for number, item in enumerate(learned, 1))
    if memory.exhausted:
        end, more = memory.exhausted, "offer more students (select.spaces, select.candidates)"
    else:
        end = f"select.rounds = {rounds} allows no more"
        more = "let the search go on (select.rounds)"
    built = f"{count} students that were built" if count > 1 else "the one student that was built"
    why = f"the {metric.name} that the budget asks for was not reached with {built}: {told}"
    fix = f"{more}, allow a dearer student (--budget), train for longer (distill.epochs, quantize.epochs)"
    if best.needed is not None:
        fix += f", or allow a loss that is larger by {enough(max(0.0, best.needed - best.shipped)):.3g}"
    left = (
        f"number {place + 1} is the nearest and is what this run leaves" if count > 1 else "it is what this run leaves"
    )
    tried = tuple(row(item) for item in learned)
    return Ending(place, f"{why}; {end}; {left}", fix, tried)


def lessons(memory: Memory, rounds: int) -> tuple[Learned, ...]:
    """What the round knew beforehand that is under way, or whose student ships where the search has ended."""
    place = _ended(memory, rounds)
    return memory.learned if place is None else memory.learned[:place]


def row(item: Learned) -> dict[str, Any]:
    """What a round taught, as plain data for reports."""
    found: dict[str, Any] = {
        "plan": dict(item.choice.plan),
        "latency_ratio": item.latency_ratio,
        "memory_ratio": item.memory_ratio,
        "why": item.why,
    }
    if item.evidence is not None:
        scores = ("distilled", "quantized", "shipped", "needed")
        found |= {"space": item.choice.space} | {name: getattr(item.evidence, name) for name in scores}
    return found


def built_event(round_: int, identity: str, item: Learned) -> Built:
    """How a round ended, for the story of the search.

    Args:
        identity: the candidate's.
    """
    found = item.evidence
    assert found is not None
    return Built(
        round_,
        identity,
        found.latency_ms,
        found.interval_ms,
        found.origin,
        found.predicted_ms,
        found.quantized,
        met=False,
        why=item.why,
    )


def _ended(memory: Memory, rounds: int) -> int | None:
    """The place of the student that ships; None where there is no ending."""
    if not memory.exhausted and len(memory.learned) < rounds:
        return None
    return nearest(memory.learned)


def _shipped(item: Learned) -> float:
    assert item.evidence is not None
    return item.evidence.shipped


def _told(number: int, item: Learned, metric: Metric) -> str:
    found = item.evidence
    if found is None:
        return f"{number}. {item.choice.space}: {item.why}"
    needed = "" if found.needed is None else f" where {metric.value(found.needed)} is needed"
    dear = ", and its cost broke the budget" if item.too_dear else ""
    return (
        f"{number}. {item.choice.space}: {metric.value(found.distilled)} distilled, {metric.value(found.quantized)} "
        f"quantised, {metric.value(found.shipped)} shipped{needed}{dear}"
    )
