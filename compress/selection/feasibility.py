"""What a budget admits, in sentences.

A latency that was not measured comes with an interval, and a budget may lie inside it. `caution` moves the judged
figure from the median (0) to the interval's upper end (1): at 1 nothing is assumed, and who straddles the budget is
measured or dropped; at 0 a candidate stays while it is more likely within than over.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from compress.contracts.selector import Candidate
from profiles.cost import Cost
from profiles.target import Budget


@dataclass(frozen=True)
class Limit:
    """One constraint of a budget."""

    name: str
    most: float
    value: Callable[[Cost], float]  # what is held against it
    shown: Callable[[Cost], str]  # the figure with its origin
    unit: Callable[[float], str]


@dataclass(frozen=True)
class Binding:
    """Why nothing fits; as a string it is the sentence.

    Attributes:
        constraints: those that would have to give way, the worst first; one where loosening one is enough.
        needed: constraint -> a limit that would let `nearest` in, in the budget's unit, three digits, rounded up.
        nearest: the candidate that asks for the least.
        met: constraint -> how many candidates meet it.
        sentence: all of it in words.
    """

    constraints: tuple[str, ...]
    needed: Mapping[str, float]
    nearest: Candidate
    met: Mapping[str, int]
    sentence: str

    def __str__(self) -> str:
        return self.sentence


def milliseconds(value: float) -> str:
    """Three significant digits, whole from 100 on."""
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def enough(value: float) -> float:
    """The value rounded up to three significant digits, so that a budget of what a sentence says does suffice."""
    if value <= 0:
        return value
    step = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(round(value / step, 9)) * step


def kibibytes(value: float) -> str:
    """Bytes below 1 KiB, else KiB with one decimal."""
    return f"{value:.0f} bytes" if value < 1024 else f"{value / 1024:.1f} KiB"


def multiply_accumulates(value: float) -> str:
    """In thousands below a million, else in millions."""
    return f"{value / 1e3:.4g} k" if value < 1e6 else f"{value / 1e6:.4g} M"


def judged_latency_ms(cost: Cost, caution: float) -> float:
    """The latency that is held against the budget: the median, moved by `caution` towards the interval's upper end
    where it was not measured."""
    if cost.origin == "measured":
        return cost.latency_ms
    return cost.latency_ms + caution * max(0.0, cost.interval_ms[1] - cost.latency_ms)


def judged_energy_mj(cost: Cost, caution: float) -> float:
    """The energy that is held against the budget, as `judged_latency_ms`; infinite where nobody knows it."""
    if cost.energy_mj is None:
        return math.inf
    if cost.origin == "measured" or cost.energy_interval_mj is None:
        return cost.energy_mj
    return cost.energy_mj + caution * max(0.0, cost.energy_interval_mj[1] - cost.energy_mj)


def shown_energy(cost: Cost) -> str:
    """An energy with its interval, or that it is unknown."""
    if cost.energy_mj is None:
        return "unknown"
    low, high = cost.energy_interval_mj or (cost.energy_mj, cost.energy_mj)
    return f"{cost.energy_mj:.3g} mJ ({low:.3g} to {high:.3g})"


def straddles(cost: Cost, budget: Budget, latency_limit_ms: float | None) -> bool:
    """Whether it is over the budget at the interval's upper end alone: a measurement could let it in."""
    return (
        reject(cost, budget, latency_limit_ms, 1.0) is not None
        and reject(_at_best(cost), budget, latency_limit_ms) is None
    )


def _at_best(cost: Cost) -> Cost:
    energy = cost.energy_interval_mj[0] if cost.energy_interval_mj is not None else cost.energy_mj
    return replace(cost, latency_ms=min(cost.interval_ms[0], cost.latency_ms), energy_mj=energy)


def shown_latency(cost: Cost) -> str:
    """A latency with its origin: "7.1 ms (predicted, 5.2 to 9.8)"."""
    low, high = cost.interval_ms
    return f"{milliseconds(cost.latency_ms)} ({cost.origin}, {low:.3g} to {high:.3g})"


def limits_of(budget: Budget, latency_limit_ms: float | None, caution: float = 0.0) -> tuple[Limit, ...]:
    """The constraints that a cost can be held against; accuracy is not known before training.

    Args:
        budget: its memories and multiply-accumulates.
        latency_limit_ms: `budget.latency_limit_ms(...)` for the task's decision period; None for no limit.
        caution: 0 to 1, see the head of this file.
    """
    limits: list[Limit] = []
    if latency_limit_ms is not None:
        limits.append(
            Limit(
                "latency",
                latency_limit_ms,
                lambda cost: judged_latency_ms(cost, caution),
                shown_latency,
                milliseconds,
            )
        )
    if budget.peak_activation_bytes is not None:
        limits.append(
            counted(
                "peak activation memory", budget.peak_activation_bytes, lambda c: c.peak_activation_bytes, kibibytes
            )
        )
    if budget.weight_bytes is not None:
        limits.append(counted("weight memory", budget.weight_bytes, lambda c: c.weight_bytes, kibibytes))
    if budget.energy_mj is not None:
        limits.append(
            Limit(
                "energy",
                budget.energy_mj,
                lambda cost: judged_energy_mj(cost, caution),
                shown_energy,
                lambda value: f"{value:.3g} mJ",
            )
        )
    if budget.macs is not None:
        limits.append(counted("multiply-accumulates", budget.macs, lambda c: c.macs, multiply_accumulates))
    return tuple(limits)


def counted(name: str, most: float, value: Callable[[Cost], float], unit: Callable[[float], str]) -> Limit:
    """A limit on a figure that is counted exactly."""
    return Limit(name, most, value, lambda cost: unit(value(cost)), unit)


def over(cost: Cost, limit: Limit) -> str:
    """One broken constraint in words: "latency 7.1 ms (predicted, 5.2 to 9.8) is over the budget of 5 ms by 2.1 ms"."""
    judged = limit.value(cost)
    median = {"latency": cost.latency_ms, "energy": cost.energy_mj}.get(limit.name)
    cautious = median is not None and judged != median
    if cautious and median is not None and median <= limit.most:
        return (
            f"{limit.name} {limit.shown(cost)} may be over the budget of {limit.unit(limit.most)}: only a measurement"
            f" would tell"
        )
    at = f", judged as {limit.unit(judged)}," if cautious else ""
    if not math.isfinite(judged):
        return f"{limit.name} {limit.shown(cost)}, and the budget is {limit.unit(limit.most)}"
    excess = limit.unit(judged - limit.most)
    return f"{limit.name} {limit.shown(cost)}{at} is over the budget of {limit.unit(limit.most)} by {excess}"


def reject(cost: Cost, budget: Budget, latency_limit_ms: float | None, caution: float = 0.0) -> str | None:
    """Why a candidate leaves: every constraint it breaks, and by how much. None while it may stay.

    A figure equal to its limit is within it. The arguments are those of `limits_of`.
    """
    limits = limits_of(budget, latency_limit_ms, caution)
    return "; ".join(over(cost, limit) for limit in limits if limit.value(cost) > limit.most) or None


def binding(
    candidates: Sequence[Candidate], budget: Budget, latency_limit_ms: float | None, caution: float = 0.0
) -> Binding | None:
    """Which constraint keeps everything out, and what it would have to be. None where a candidate is not rejected.

    Where loosening a single constraint would let a candidate in, it names the one that has to be loosened by the
    smallest factor. Where none alone would, it names all that the nearest candidate breaks. Candidates that were
    rejected for another reason (built and missed) are quoted where the budget itself lets them in.
    """
    if not candidates or any(candidate.rejected is None for candidate in candidates):
        return None
    limits = limits_of(budget, latency_limit_ms, caution)

    def broken(candidate: Candidate) -> list[Limit]:
        return [limit for limit in limits if limit.value(candidate.cost) > limit.most]

    def nearness(candidate: Candidate) -> tuple[int, float]:
        factors = [limit.value(candidate.cost) / limit.most for limit in broken(candidate)]
        return (min(2, len(factors)), max(factors, default=0.0))

    nearest = min(candidates, key=nearness)
    constraints = sorted(broken(nearest), key=lambda limit: -limit.value(nearest.cost) / limit.most)
    met = {limit.name: sum(limit.value(c.cost) <= limit.most for c in candidates) for limit in limits}
    count = len(candidates)
    if not constraints:
        within = sum(not broken(candidate) for candidate in candidates)
        sentence = f"{within} of {count} are within the budget as predicted, and left for another reason, such as: "
        return Binding((), {}, nearest, met, sentence + str(nearest.rejected))
    names = tuple(limit.name for limit in constraints)
    needed = {limit.name: enough(limit.value(nearest.cost)) for limit in constraints}
    needs = "; ".join(
        f"the nearest has {limit.name} {limit.shown(nearest.cost)}, which needs a budget of"
        f" {limit.unit(needed[limit.name])} instead of {limit.unit(limit.most)}"
        for limit in constraints
    )
    each = ", ".join(f"{name} by {number} of {count}" for name, number in met.items())
    sentence = f"{' and '.join(names)} {'binds' if len(names) == 1 else 'bind'}: {needs} (met: {each})"
    return Binding(names, needed, nearest, met, sentence)
