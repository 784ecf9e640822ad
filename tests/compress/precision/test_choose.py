"""Decisions by hand; and a network with one sensitive layer, of which exactly that layer stays in float."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import profiles
from compress.contracts.metric import Metric
from compress.precision.choose import Assignment, Candidate, Precision, assign, decide, predicted
from compress.precision.cost import LayerCosts, Pricer
from compress.precision.layers import Layer, modules_of
from compress.precision.sensitivity import Effect, Estimate, Measurer, Row, Study, divergence, study
from profiles.cost import Cost
from tests.compress.precision.conftest import Digits, prepared, score

TENTH = 0.001


def candidate(precision: Precision, latency_ms: float, weight_bytes: int, drop: float | None = 0.0) -> Candidate:
    between = (latency_ms * 0.975, latency_ms * 1.025)
    return Candidate(precision, drop, latency_ms, between, (0.0, 9.0), weight_bytes, 100, "predicted")


INT8, FP16, FP32 = candidate("int8", 1.0, 100, 0.004), candidate("fp16", 1.5, 200), candidate("fp32", 2.0, 400)


def test_the_fastest_ships() -> None:
    found = decide([INT8, FP16, FP32], 0.01, Metric())
    assert found.precision == "int8"
    assert "fastest" in found.why
    assert "int8 1 ms (100 bytes of weights), fp16 1.5 ms" in found.why


def test_float_ships_where_int8_is_slower() -> None:
    found = decide([candidate("int8", 1.0, 100), candidate("fp32", 0.7, 400)], 0.01, Metric())
    assert found.precision == "fp32"


def test_a_tie_is_not_slower_and_the_smaller_weights_decide() -> None:
    found = decide([candidate("int8", 1.04, 100), candidate("fp16", 1.0, 200), FP32], 0.01, Metric())
    assert found.precision == "int8"
    assert "int8 and fp16 take the same time" in found.why


def test_what_loses_too_much_is_left_out() -> None:
    found = decide([replace(INT8, drop=0.02), FP16, FP32], 0.01, Metric())
    assert found.precision == "fp16"
    assert "int8 loses 2.00 points of accuracy, more than the 1.00 points that quantising may cost." in found.why


def test_what_breaks_a_limit_is_left_out() -> None:
    heavy = replace(FP32, latency_ms=0.5, between_ms=(0.49, 0.51), broken=("its weights are too large",))
    found = decide([INT8, heavy], 0.01, Metric())
    assert found.precision == "int8"
    assert "fp32 is left out: its weights are too large." in found.why


def test_where_nothing_keeps_the_accuracy_the_closest_ships() -> None:
    found = decide([replace(INT8, drop=0.02), replace(INT8, precision="mixed", drop=0.015)], 0.01, Metric())
    assert found.precision == "mixed"
    assert (
        "Nothing that fits loses at most 1.00 points of accuracy; mixed ships, which comes closest with a loss of 1.50"
        in found.why
    )


def test_reasons_speak_of_the_task_s_metric_in_its_unit() -> None:
    concordance = Metric("concordance", "")
    lossy = decide([replace(INT8, drop=0.02), FP16, FP32], 0.01, concordance)
    assert "int8 loses 0.020 of concordance, more than the 0.010 that quantising may cost." in lossy.why
    none = decide([replace(INT8, drop=0.02)], 0.01, concordance)
    assert "at most 0.010 of concordance; int8 ships, which comes closest with a loss of 0.020." in none.why
    kept = decide([INT8, FP16], 0.01, concordance)
    for found in (lossy, none, kept):
        assert not {"points", "accuracy", "%"} & set(found.why.replace(",", " ").split())
    assert "keeps the concordance" in kept.why
    assert "2.00 points of recall@10" in decide([replace(INT8, drop=0.02), FP16], 0.01, Metric("recall@10")).why


def test_what_cannot_be_made_is_told_and_never_ships() -> None:
    fast = replace(FP16, latency_ms=0.5, between_ms=(0.49, 0.51), missing="no way to write it")
    found = decide([INT8, fast, FP32], 0.01, Metric())
    assert found.precision == "int8"
    assert "fp16 would be faster, and cannot be made: no way to write it." in found.why
    with pytest.raises(ValueError, match="no precision can be made"):
        decide([fast], 0.01, Metric())


def _effect(drop: float, distance: float) -> Effect:
    return Effect(*(Estimate(value, 0.0) for value in (1 - drop, drop, distance, 0.0, 0.0)))


def _case(
    alone: dict[str, float], measured: Callable[[frozenset[str]], float], slower: float = 1.0, budget: float = 0.01
) -> tuple[Assignment, list[frozenset[str]]]:
    """Layers with these distances alone; each saves 1 ms in int8; `measured` gives the drop of an assignment."""
    layers = [Layer(name, (name,), (name,), ("conv2d",)) for name in alone]
    everything = sum(alone.values())
    rows = tuple(Row(layer, _effect(0.0, 0.0), _effect(0.0, alone[layer.name])) for layer in layers)
    found = Study("", 100, 1.0, _effect(measured(frozenset()), everything), _effect(0.0, 0.0), rows)
    costs = [LayerCosts(layer, {"int8": 1.0, "fp32": 1.0 + slower}, {"int8": 1, "fp32": 4}) for layer in layers]
    asked: list[frozenset[str]] = []

    def measure(floats: frozenset[str]) -> Effect:
        asked.append(floats)
        return _effect(measured(floats), sum(alone[name] for name in alone if name not in floats))

    base = profiles.predict_totals("jetson", 1e6)

    def price(floats: frozenset[str]) -> Cost:
        return replace(base, latency_ms=len(alone) + slower * len(floats))

    return assign(found, costs, "fp32", budget, measure, price), asked


ALONE = {"a": 0.1, "b": 4.0, "c": 0.2, "d": 1.0}


def test_the_layers_whose_loss_is_too_large_stay_in_float() -> None:
    def drop(floats: frozenset[str]) -> float:
        return 0.02 * sum(ALONE[name] for name in ALONE if name not in floats)  # it adds up: 0.106 in all

    found, _ = _case(ALONE, drop, budget=0.03)  # allows 1.5 of distance: b alone must go
    assert found.floats == ("b",)
    assert found.keeps
    assert found.drop == pytest.approx(0.026)
    assert found.gap == 0.0


def test_the_budget_is_tightened_until_what_is_measured_keeps_it() -> None:
    def drop(floats: frozenset[str]) -> float:
        return 0.0 if {"b", "d", "c"} <= floats else 0.2  # far from proportional

    found, asked = _case(ALONE, drop)
    assert set(found.floats) == {"b", "c", "d"}
    assert found.keeps
    assert len(asked) <= 10 + 4


def test_layers_that_need_no_float_go_back() -> None:
    def drop(floats: frozenset[str]) -> float:
        return 0.0 if "a" in floats else 0.5  # the least sensitive one by distance

    found, _ = _case(ALONE, drop)
    assert found.floats == ("a",)


def test_says_where_float_layers_do_not_help() -> None:
    found, asked = _case(ALONE, lambda _: 0.5)
    assert not found.keeps
    assert len(asked) <= 11


def test_exactly_the_sensitive_layer_stays_in_float(outlier: nn.Module, train: Digits, val: Digits) -> None:
    """One channel of the tensor that `body.6` reads is 1000 times larger than the others."""
    model, positions = prepared(outlier, train, "tensorrt"), torch.arange(len(val.labels))
    found = study(model, val.batch, positions, outlier, score=score, distance=divergence)
    assert found.quantized.drop.mean > 0.1  # int8 alone does not do
    pricer = Pricer(outlier, (train.images[:2],), profiles.target("jetson"), "tensorrt")
    layers = [row.layer for row in found.rows]
    result = assign(
        found,
        pricer.by_layer(),
        "fp32",
        0.01,
        Measurer(model, val.batch, positions, outlier, score=score, distance=divergence),
        lambda floats: pricer.assignment(modules_of(layers, floats)),
    )
    assert result.floats == ("body.6",)
    assert result.keeps
    # What the switches said is what a student prepared in this assignment does.
    shipped = prepared(outlier, train, "tensorrt", ("frontend", *result.floats))
    assert _drop(outlier, shipped, val) == pytest.approx(result.drop, abs=TENTH)
    assert result.drop <= 0.01
    cost, whole = pricer.assignment(modules_of(layers, result.floats)), pricer.floating("fp32")
    assert cost.weight_bytes < whole.weight_bytes
    assert cost.latency_ms < whole.latency_ms
    integers = predicted("int8", pricer.assignment(), found.quantized.drop.mean)
    decision = decide([integers, predicted("mixed", cost, result.drop), predicted("fp32", whole, 0.0)], 0.01, Metric())
    assert decision.precision == "mixed"


def test_where_the_maker_rounds_too_both_sides_of_the_tensor_stay_in_float(
    outlier: nn.Module, train: Digits, val: Digits
) -> None:
    """onnxruntime's rules round that tensor where `body.3` writes it, and where `body.6` reads it."""
    model, positions = prepared(outlier, train, "onnxruntime_x86"), torch.arange(len(val.labels))
    found = study(model, val.batch, positions, outlier, score=score, distance=divergence)
    costs = [LayerCosts(row.layer, {"int8": 1.0, "fp32": 2.0}, {"int8": 1, "fp32": 4}) for row in found.rows]
    base = profiles.predict_totals("x86", 1e6)
    result = assign(
        found,
        costs,
        "fp32",
        0.01,
        Measurer(model, val.batch, positions, outlier, score=score, distance=divergence),
        lambda floats: replace(base, latency_ms=5.0 + len(floats)),
    )
    assert result.floats == ("body.3", "body.6")
    shipped = prepared(outlier, train, "onnxruntime_x86", ("frontend", *result.floats))
    assert _drop(outlier, shipped, val) == pytest.approx(result.drop, abs=TENTH)
    assert result.drop <= 0.01


def _drop(exact: nn.Module, rounded: Callable[[Tensor], Tensor], data: Digits) -> float:
    with torch.no_grad():
        return float((score(exact(data.images), data.labels) - score(rounded(data.images), data.labels)).mean())
