"""Bounds that artifacts must keep, and what a person reads where one does not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from compress.contracts.task import Task
from compress.job import Job
from compress.recipe import VerifyPart
from compress.selection.feasibility import judged_energy_mj, judged_latency_ms
from compress.stages import ledger
from compress.stages.budget import budget_of
from compress.stages.learned import PREDICTED, SHIPPED, Choice, Evidence, Learned, ratios
from exporters.parity import Parity, angle_of_steps
from profiles.cost import Cost

WITHOUT_CLASSES = ("embedding", "regression")  # kinds of task whose largest output says nothing


@dataclass(frozen=True)
class Gate:
    """One bound that an artifact must keep.

    Attributes:
        stage: the one to blame where it fails.
        origin: how `value` was obtained: measured, emulated or predicted.
        metric_unit: of the metric, where the value is a difference of two of the task's; None of anything else.
        cause: where it failed, which layer is at fault, as a sentence; "" where that is not known.
    """

    name: str
    stage: str
    artifact: str
    value: float
    bound: float
    unit: str
    at_most: bool
    origin: str
    cause: str = ""
    metric_unit: Literal["%", ""] | None = None

    @property
    def passed(self) -> bool:
        """NaN never passes."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def sentence(self) -> str:
        """What a person reads where it fails."""
        relation = "above" if self.at_most else "below"
        value, bound = map(self._said, (self.value, self.bound))
        said = (
            f"{self.stage}: {self.name} of {self.artifact} is {value} ({self.origin}), {relation} the bound of {bound}"
        )
        return f"{said}; {self.cause}" if self.cause else said

    def _said(self, number: float) -> str:
        if self.metric_unit is not None:
            return _gap(number, self.metric_unit)
        return " ".join((_short(number), self.unit)).rstrip()


def of_metric(task: Task, what: str, stage: str, artifact: str, value: float, bound: float) -> Gate:
    """A bound on how far two of the task's metric may be apart."""
    name = f"{what} of {task.metric}"
    return Gate(name, stage, artifact, value, bound, "", True, "measured", metric_unit=task.metric_unit)


def parity_gates(job: Job, entry: ledger.Entry, accuracy: Mapping[str, float]) -> list[Gate]:
    """The bounds of one comparison: of the accuracy, and of every output."""
    stage, name, bounds = entry.pair.stage, entry.pair.artifact, job.recipe.verify
    if stage is None:
        return []
    change = abs(accuracy[entry.pair.reference] - accuracy[name])
    gates = [of_metric(job.task, "change", stage, name, change, bounds.accuracy_change)]
    for output, found in entry.outputs.items():
        of = name if len(entry.outputs) == 1 else f"{name}, output {output}"
        if output in job.task.directions:
            gates.extend(_turns(found, stage, of, bounds))
            continue
        if found.top1_agreement is not None and job.task.kind not in WITHOUT_CLASSES:
            agreed = found.top1_agreement
            gates.append(Gate("top-1 agreement", stage, of, agreed, bounds.top1_agreement, "", False, "measured"))
        if found.within_one_step is not None:
            share = found.within_one_step
            gates.append(Gate("share within one step", stage, of, share, bounds.within_one_step, "", False, "measured"))
        if stage == "build" and found.mean_steps is not None:
            mean = found.mean_steps
            gates.append(Gate("mean change", stage, of, mean, bounds.mean_steps, "steps", True, "measured"))
    return gates


def _turns(found: Parity, stage: str, of: str, bounds: VerifyPart) -> list[Gate]:
    """The bounds of vectors that are read through inner products; none without a step or with one value each."""
    if found.step is None or found.width is None or found.largest_angle is None or found.rms_angle is None:
        return []
    largest, mean = (
        angle_of_steps(steps, found.step, found.width) for steps in (bounds.vector_steps, bounds.mean_vector_steps)
    )
    turned, together = found.largest_angle, found.rms_angle
    return [
        Gate("largest turn of a vector", stage, of, turned, largest, "degrees", True, "measured"),
        Gate("turn of vectors, root mean square", stage, of, together, mean, "degrees", True, "measured"),
    ]


def cost_gates(job: Job, cost: Cost) -> list[Gate]:
    """Cost against budget. `select` is to blame: it chose the student."""
    budget = budget_of(job)
    limit = budget.latency_limit_ms(job.task.decision_period_ms)
    judged = judged_latency_ms(cost, job.recipe.select.caution)
    cautious = "latency" if judged == cost.latency_ms else "latency, at the upper end of its interval"
    rows: list[tuple[str, float, float | None, str, str]] = [
        (cautious, judged, limit, "ms", cost.origin),
        ("energy", judged_energy_mj(cost, job.recipe.select.caution), budget.energy_mj, "mJ", cost.origin),
        ("peak activation memory", cost.peak_activation_bytes, budget.peak_activation_bytes, "bytes", "counted"),
        ("weights", cost.weight_bytes, budget.weight_bytes, "bytes", "counted"),
        ("multiply-accumulates", cost.macs, budget.macs, "", "counted"),
    ]
    return [
        Gate(name, "select", SHIPPED, float(value), float(bound), unit, True, origin)
        for name, value, bound, unit, origin in rows
        if bound is not None
    ]


def to_learn(
    choice: Choice, broken: Sequence[Gate], values: Mapping[str, Any], distilled: float, quantized: float
) -> Learned | None:
    """What a student that broke its budget teaches; None where it did not, or where something else is at fault.

    Args:
        broken: the gates that failed.
        values: what `checks.json` says.
        distilled, quantized: scores on validation data, before and after quantisation.
    """
    dear = [gate for gate in broken if gate.stage == "select"]
    inaccurate = [gate for gate in broken if gate.stage == "quantize"]
    if any(gate.stage in ("export", "build") for gate in broken):  # its accuracy may be theirs to answer for
        inaccurate = []
    if not dear and not inaccurate:
        return None
    costs, accuracy = values["costs"], values["accuracy"]
    found, allowed = costs[SHIPPED], values["budget"].get("accuracy_drop")
    latency, memory = ratios(costs)
    evidence = Evidence(
        found["latency_ms"],
        tuple(found["interval_ms"]),
        found["origin"],
        costs.get(PREDICTED, found)["latency_ms"],
        distilled,
        quantized,
        accuracy[values["final"]],
        None if allowed is None else accuracy["teacher"] - allowed,
    )
    why = "; ".join(gate.sentence() for gate in (*dear, *inaccurate))
    return Learned(choice, latency, why, memory, bool(dear), bool(inaccurate), evidence)


def _gap(value: float, unit: Literal["%", ""]) -> str:
    return f"{_short(100 * value)} points" if unit else _short(value)


def _short(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
