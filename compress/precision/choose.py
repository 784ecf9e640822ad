"""Which layers stay in float, and which precision ships: predicted by the study, proven by measuring.

Losses of layers do not add up exactly, and neither do their costs: an assignment that the solver proposes is measured
as a whole and costed as a whole, and the budget of the solver is tightened until what was measured keeps the real one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from compress.contracts.metric import Metric
from compress.precision.cost import PICOSECONDS, LayerCosts
from compress.precision.sensitivity import Effect, Study
from compress.precision.solve import Option, solve
from profiles.cost import Cost

TRIES = 10  # assignments that are measured on the way to the budget
TIGHTEN = 0.8  # at least this much smaller becomes the solver's budget after a miss
# Two predictions of one network on one device share the error of the device's model; what they do not share, the
# rates of two formats against each other, is assumed to be known within this much. Closer figures are a tie.
PREDICTED_TIE = 0.05

Precision = Literal["int8", "mixed", "fp8", "int4", "fp16", "bf16", "fp32"]


@dataclass(frozen=True)
class Try:
    """One assignment that was measured on the way."""

    floats: tuple[str, ...]
    predicted_distance: float
    drop: float
    latency_ms: float | None


@dataclass(frozen=True)
class Assignment:
    """Layers in float, the others in integers.

    Attributes:
        floats: names of layers.
        drop: of the score against the float student, measured before fine-tuning on the study's samples.
        drop_error: its standard error.
        keeps: whether the drop keeps the budget.
        bound_ms: no assignment within the solver's last budget has layers that take less together.
        gap: how far the proposal's own sum was above that bound, as a share; 0 where it is proven cheapest.
        tries: what was measured, in order.
    """

    floats: tuple[str, ...]
    drop: float
    drop_error: float | None
    keeps: bool
    bound_ms: float | None
    gap: float | None
    tries: tuple[Try, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def assign(
    study: Study,
    costs: Sequence[LayerCosts],
    float_precision: str,
    budget: float,
    measure: Callable[[frozenset[str]], Effect],
    price: Callable[[frozenset[str]], Cost],
) -> Assignment:
    """The cheapest set of float layers with which the score's drop stays within the budget.

    Args:
        study: of the student.
        costs: of the study's layers, in its order; layers without figures count as free.
        float_precision: what float layers run in, a key of the costs.
        budget: largest drop of the score.
        measure: layers in float -> what the student then does.
        price: layers in float -> cost of the whole network.

    Returns:
        The best found. Where even every layer in float misses, `keeps` is false: what stays is not the layers' doing.
    """
    names = [row.layer.name for row in study.rows]
    losses = [max(0.0, row.alone.distance.mean) for row in study.rows]
    options = [_options(found, float_precision, loss) for found, loss in zip(costs, losses, strict=True)]
    others = max(0.0, study.others.distance.mean)
    tries: list[Try] = []

    def tried(floats: frozenset[str], predicted: float) -> Effect:
        effect = measure(floats)
        tries.append(Try(tuple(sorted(floats)), predicted, effect.drop.mean, price(floats).latency_ms))
        return effect

    allowed = _first_budget(study, budget)
    bound = gap = None
    chosen: frozenset[str] = frozenset(names)
    effect: Effect | None = None
    for _ in range(TRIES):
        found = solve(options, max(0.0, allowed - others))
        assert found is not None  # every layer in float loses nothing
        floats = frozenset(name for name, pick in zip(names, found.picks, strict=True) if pick == 1)
        predicted = others + found.loss
        effect, chosen = tried(floats, predicted), floats
        bound, gap = found.bound / PICOSECONDS, found.gap
        if effect.drop.mean <= budget or len(floats) == len(names):
            break
        # Less than what was just predicted, so that another assignment follows.
        share = min(TIGHTEN, budget / effect.drop.mean)
        allowed = others + found.loss * share if found.loss > 0 else 0.0
    else:
        chosen = frozenset(names)
        effect = tried(chosen, others)
    assert effect is not None
    if effect.drop.mean <= budget:
        chosen, effect = _returned(chosen, effect, costs, budget, tried, price)
    return Assignment(
        tuple(name for name in names if name in chosen),
        effect.drop.mean,
        effect.drop.standard_error,
        effect.drop.mean <= budget,
        bound,
        gap,
        tuple(tries),
    )


def _first_budget(study: Study, budget: float) -> float:
    """The distance that the budget of the score is taken to allow: in proportion, as at the fully quantised student."""
    drop, distance = study.quantized.drop.mean, study.quantized.distance.mean
    return distance * budget / drop if drop > 0 else distance


def _returned(
    chosen: frozenset[str],
    effect: Effect,
    costs: Sequence[LayerCosts],
    budget: float,
    tried: Callable[[frozenset[str], float], Effect],
    price: Callable[[frozenset[str]], Cost],
) -> tuple[frozenset[str], Effect]:
    """Layers go back to integers, one by one, where the whole is then no slower (a tie is none) and the budget kept."""
    size = {found.layer.name: -found.weight_bytes.get("int8", 0) for found in costs}
    tie_ms = {found.layer.name: PREDICTED_TIE * found.latency_ms.get("int8", 0.0) for found in costs}
    for name in sorted(chosen, key=lambda name: (size[name], name)):
        fewer = chosen - {name}
        if price(fewer).latency_ms > price(chosen).latency_ms + tie_ms[name]:
            continue
        lighter = tried(fewer, effect.distance.mean)
        if lighter.drop.mean <= budget:
            chosen, effect = fewer, lighter
    return chosen, effect


def _options(found: LayerCosts, float_precision: str, loss: float) -> tuple[Option, Option]:
    """A layer in integers and in float. Times that are a tie count as equal, so that the size decides."""
    whole, real = (found.latency_ms.get(name, 0.0) for name in ("int8", float_precision))
    if abs(whole - real) <= PREDICTED_TIE * whole:
        real = whole
    small, large = (found.weight_bytes.get(name, 0) for name in ("int8", float_precision))
    return Option(round(whole * PICOSECONDS), small, loss), Option(round(real * PICOSECONDS), large, 0.0)


@dataclass(frozen=True)
class Candidate:
    """One precision of the whole student that might ship.

    Attributes:
        drop: of the score against the float student; None where nobody knows yet, which is taken to be within budget.
        latency_ms: at batch 1.
        between_ms: where the latency lies when it is compared with the other candidates: errors that all share left
            out. Candidates whose ranges meet are a tie.
        origin: of the latency.
        broken: limits of the budget that it breaks, as sentences.
        missing: why it cannot be made here; "" where it can.
    """

    precision: Precision
    drop: float | None
    latency_ms: float
    between_ms: tuple[float, float]
    interval_ms: tuple[float, float]
    weight_bytes: int
    peak_activation_bytes: int
    origin: str
    broken: tuple[str, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class Decision:
    """What ships, and why, in sentences."""

    precision: Precision
    reasons: tuple[str, ...]

    @property
    def why(self) -> str:
        """All reasons as one text."""
        return " ".join(self.reasons)


def predicted(precision: Precision, cost: Cost, drop: float | None, **rest: Any) -> Candidate:
    """A candidate whose latency is as `profiles` says."""
    half = (1 + PREDICTED_TIE) ** 0.5
    return Candidate(
        precision,
        drop,
        cost.latency_ms,
        (cost.latency_ms / half, cost.latency_ms * half),
        cost.interval_ms,
        cost.weight_bytes,
        cost.peak_activation_bytes,
        cost.origin,
        **rest,
    )


def decide(candidates: Sequence[Candidate], budget: float, metric: Metric) -> Decision:
    """The fastest precision that keeps the budget's metric; of those that are as fast, the one with the least weights.

    Integers never lose to float by a tie: at batch 1 a small network on a GPU is bound by starting its kernels, and
    both take the same time.

    Args:
        candidates: at least one; each precision once.
        budget: largest drop of the score.
        metric: which score that is, for the reasons.

    Raises:
        ValueError: there are no candidates that can be made.
    """
    makeable = [item for item in candidates if not item.missing]
    if not makeable:
        raise ValueError("no precision can be made")
    reasons = [_times(candidates)]
    fitting, broken = _split(makeable, lambda item: not item.broken)
    reasons += [f"{item.precision} is left out: {'; '.join(item.broken)}." for item in broken if fitting]
    kept = fitting or makeable
    exact, lossy = _split(kept, lambda item: item.drop is None or item.drop <= budget)
    if not exact:
        best = min(kept, key=lambda item: (item.drop or 0.0, item.latency_ms))
        reasons.append(
            f"Nothing that fits loses at most {metric.gap(budget)} of {metric.name}; {best.precision} ships, which "
            f"comes closest with a loss of {metric.gap(best.drop or 0.0)}."
        )
        return Decision(best.precision, tuple(reasons))
    reasons += [
        f"{item.precision} loses {metric.gap(item.drop or 0.0)} of {metric.name}, more than the {metric.gap(budget)} "
        "that quantising may cost."
        for item in lossy
    ]
    fastest = min(exact, key=lambda item: item.between_ms[1])
    tied = [item for item in exact if item.between_ms[0] <= fastest.between_ms[1]]
    chosen = min(tied, key=lambda item: (item.weight_bytes, item.latency_ms))
    reasons.append(_why(chosen, tied, exact, metric))
    for item in candidates:
        if item.missing and item.between_ms[1] < chosen.between_ms[0]:
            reasons.append(f"{item.precision} would be faster, and cannot be made: {item.missing}.")
        elif item.missing and item.between_ms[0] <= chosen.between_ms[1]:
            reasons.append(f"{item.precision} would take as long ({item.missing}).")
    return Decision(chosen.precision, tuple(reasons))


def _times(candidates: Sequence[Candidate]) -> str:
    """One sentence for each way that times were obtained."""
    origins = dict.fromkeys(item.origin for item in candidates)
    return " ".join(
        f"At batch 1, {origin}: "
        + ", ".join(
            f"{item.precision} {item.latency_ms:.4g} ms ({item.weight_bytes} bytes of weights)"
            for item in candidates
            if item.origin == origin
        )
        + "."
        for origin in origins
    )


def _why(chosen: Candidate, tied: Sequence[Candidate], exact: Sequence[Candidate], metric: Metric) -> str:
    if len(exact) == 1:
        return f"{chosen.precision} ships: it alone fits and keeps the {metric.name}."
    if len(tied) == 1:
        return f"{chosen.precision} ships: it is the fastest of what fits and keeps the {metric.name}."
    same = " and ".join(item.precision for item in tied)
    return (
        f"{chosen.precision} ships: {same} take the same time within the error of comparing them, and "
        f"{chosen.precision} has the least weights."
    )


def _split(items: Sequence[Candidate], good: Callable[[Candidate], bool]) -> tuple[list[Candidate], list[Candidate]]:
    return [item for item in items if good(item)], [item for item in items if not good(item)]


def costs_json(found: Sequence[LayerCosts]) -> list[dict[str, Any]]:
    """Plain data, one row per layer."""
    return [
        {
            "layer": item.layer.name,
            "latency_ms": dict(item.latency_ms),
            "weight_bytes": dict(item.weight_bytes),
        }
        for item in found
    ]


def candidates_json(found: Sequence[Candidate]) -> list[Mapping[str, Any]]:
    """Plain data, one row per precision."""
    return [asdict(item) for item in found]
