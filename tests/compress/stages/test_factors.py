"""What built students teach about predictions, and who is tried next: worked by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from compress.contracts.selector import Candidate, Outcome
from compress.selection.ranking import capacity
from compress.stages.factors import Factors
from compress.stages.failures import Failures
from compress.stages.finals import finalists, finals
from compress.stages.gates import Gate, of_metric, to_learn
from compress.stages.learned import PREDICTED, SHIPPED, Choice, Evidence, Learned
from compress.tasks.digits import Digits
from profiles.cost import Cost


class Plan:
    def __init__(self, name: str) -> None:
        self.name = name

    def to_json(self) -> dict[str, str]:
        return {"name": self.name}


def cost(macs: int, params: int = 100, **fields: Any) -> Cost:
    made = Cost(
        target="x86",
        runtime="onnxruntime",
        batch=1,
        precision="int8",
        macs=macs,
        params=params,
        weight_bytes=params,
        peak_activation_bytes=1000,
        latency_ms=2.0,
        origin="predicted",
        interval_ms=(1.0, 3.0),
    )
    return replace(made, **fields)


def candidate(name: str, macs: int, score: float | None = None, space: str = "one", rejected: str | None = None) -> Any:
    return Candidate(space, Plan(name), cost(macs), rejected, score, 0.1 if score is not None else 0.0)


def built(space: str, distilled: float, quantized: float, latency: float = 1.0, memory: float = 1.0) -> Learned:
    evidence = Evidence(1.0, (1.0, 1.0), "measured", 1.0, distilled, quantized, quantized, 0.9)
    return Learned(Choice(space, {}, ""), latency, "", memory, False, True, evidence)


def test_scores_keep_the_mean_share_that_quantisation_left_their_space() -> None:
    factors = Factors.of([built("one", 0.8, 0.6), built("one", 0.8, 0.4), built("two", 0.9, 0.95)])
    assert factors.expected("one", 0.8) == pytest.approx(0.8 * (0.75 + 0.5) / 2)
    assert factors.expected("two", 0.8) == 0.8  # that one gained by it promises nothing
    assert factors.expected("three", 0.8) == 0.8
    assert math.isnan(factors.expected("one", math.nan))
    (event,) = factors.events(4)
    assert (event.round, event.what, event.factor, event.builds) == (4, "score of one after quantisation", 0.625, 2)


@pytest.mark.parametrize(("distilled", "quantized"), [(0.0, 0.0), (-1.0, -2.0)])
def test_a_score_that_had_nothing_to_lose_lost_nothing(distilled: float, quantized: float) -> None:
    assert built("one", distilled, quantized).evidence.kept == 1.0  # type: ignore[union-attr]


def test_a_ratio_below_one_moves_the_median_and_no_upper_end() -> None:
    slow = Factors.of([built("one", 0.9, 0.9, latency=2.0, memory=1.5)]).applied(cost(10))
    assert (slow.latency_ms, slow.interval_ms, slow.peak_activation_bytes) == (4.0, (2.0, 6.0), 1500)
    fast = Factors.of([built("one", 0.9, 0.9, latency=0.5, memory=0.5)]).applied(cost(10))
    assert (fast.latency_ms, fast.interval_ms, fast.peak_activation_bytes) == (1.0, (0.5, 3.0), 1000)
    both = Factors.of([built("one", 0.9, 0.9, latency=0.5), built("one", 0.9, 0.9, latency=1.25)])
    assert both.applied(cost(10)).interval_ms == (1.25, 3.75)


# Who is distilled fully next


def names(chosen: list[Candidate]) -> list[str]:
    return [one.plan.name for one in chosen]


def test_one_finalist_is_larger_than_what_lost_too_much_where_there_is_one() -> None:
    ranked = [candidate("a", 10, 0.9), candidate("b", 20, 0.8), candidate("c", 40, math.nan), candidate("d", 80, 0.7)]
    ranked += [candidate("e", 160), candidate("f", 99999, rejected="too slow")]
    assert names(finalists(ranked, 2, None)) == ["a", "b"]
    assert names(finalists(ranked, 2, capacity(cost(10)))) == ["a", "b"]  # b is larger
    assert names(finalists(ranked, 2, capacity(cost(20)))) == ["a", "d"]  # c diverged
    assert names(finalists(ranked, 1, capacity(cost(80)))) == ["e"]
    assert names(finalists(ranked, 1, capacity(cost(160)))) == ["a"]  # nobody is larger: the next best one


def test_finalists_are_compared_by_what_quantisation_is_expected_to_leave() -> None:
    ranked = [candidate("a", 10, 0.5, "one"), candidate("b", 10, 0.5, "two"), candidate("c", 10, None, "two")]
    factors = Factors.of([built("one", 0.9, 0.81)])
    found = {"a": 0.95, "b": 0.90}

    def run(trials: Any) -> Any:
        return [(place, Outcome(found[trial.candidate.plan.name], 1.0)) for place, trial in enumerate(trials)]

    def expected(one: Candidate) -> Candidate:
        return replace(one, score=factors.expected(one.space, one.score or 0.0))

    problem: Any = SimpleNamespace(
        run=run, expected=expected, marked=list, failures=Failures(), splits=SimpleNamespace(val=range(100))
    )
    order, winner = finals(problem, ranked, 2)
    assert winner is not None
    assert (winner.plan.name, winner.score) == (
        "b",
        0.90,
    )  # 0.90 before 0.9 * 0.95; the score that is told is the real one
    assert names(order) == ["b", "a", "c"]


# What failed gates teach


def gate(stage: str, name: str = "gate") -> Gate:
    return Gate(name, stage, "model.onnx", 2.0, 1.0, "", True, "measured")


VALUES = {
    "accuracy": {"teacher": 0.95, "model.onnx": 0.90},
    "final": "model.onnx",
    "budget": {"accuracy_drop": 0.02},
    "costs": {
        SHIPPED: {"latency_ms": 3.0, "interval_ms": [2.0, 4.0], "origin": "measured", "peak_activation_bytes": 30},
        PREDICTED: {"latency_ms": 2.0, "interval_ms": [1.0, 3.0], "origin": "predicted", "peak_activation_bytes": 20},
    },
}


def test_a_gate_on_the_metric_is_said_in_its_unit() -> None:
    class Numbers(Digits):
        metric, metric_unit = "concordance", ""

    said = [
        of_metric(task, "drop", "quantize", "model.onnx", 0.0312, 0.02).sentence() for task in (Digits(), Numbers())
    ]
    assert said == [
        "quantize: drop of accuracy of model.onnx is 3.12 points (measured), above the bound of 2 points",
        "quantize: drop of concordance of model.onnx is 0.0312 (measured), above the bound of 0.02",
    ]


def test_a_lost_accuracy_is_learned_with_its_scores_and_costs() -> None:
    choice = Choice("one", {"name": "a"}, "")
    found = to_learn(choice, [gate("quantize", "drop of accuracy")], VALUES, 0.96, 0.93)
    assert found is not None
    assert (found.inaccurate, found.too_dear, found.latency_ratio, found.memory_ratio) == (True, False, 1.5, 1.5)
    assert found.why == "quantize: drop of accuracy of model.onnx is 2 (measured), above the bound of 1"
    evidence = found.evidence
    assert evidence == Evidence(3.0, (2.0, 4.0), "measured", 2.0, 0.96, 0.93, 0.90, 0.95 - 0.02)
    assert evidence is not None
    assert evidence.kept == pytest.approx(0.93 / 0.96)


def test_an_accuracy_that_an_exporter_or_a_builder_lost_is_no_fault_of_the_student() -> None:
    choice = Choice("one", {"name": "a"}, "")
    for stage in ("export", "build"):
        assert to_learn(choice, [gate("quantize"), gate(stage)], VALUES, 0.96, 0.93) is None
    dear = to_learn(choice, [gate("quantize"), gate("build"), gate("select")], VALUES, 0.96, 0.93)
    assert dear is not None
    assert (dear.too_dear, dear.inaccurate) == (True, False)
    assert to_learn(choice, [], VALUES, 0.96, 0.93) is None
