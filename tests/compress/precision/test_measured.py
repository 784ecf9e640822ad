"""Precisions compared on this processor: the fastest runtime of each, and what counts as a tie."""

from dataclasses import replace

import pytest
from torch import nn

import profiles
from compress.contracts.metric import Metric
from compress.precision.choose import Candidate, decide
from compress.precision.measured import chosen, measure, why_not
from profiles.measure import Measurement, Ratio
from tests.compress.precision.conftest import Digits, prepared

pytest.importorskip("onnxruntime")

TIMES = Measurement(1.0, 0.9, 1.1, 1.2, 1.3, 0.1, 100, 10, True, 1, 1, "cpu", "onnxruntime", "wall", (), (0.95, 1.05))


def candidate(precision: str, weight_bytes: int, found: dict[str, object]) -> Candidate:
    return Candidate(precision, 0.0, weight_bytes=weight_bytes, peak_activation_bytes=1, **found)  # type: ignore[arg-type]


def test_each_precision_is_as_fast_as_its_fastest_runtime() -> None:
    times = {
        "int8 on_onnxruntime": TIMES,
        "int8 on_openvino": replace(TIMES, median_ms=0.5),
        "fp32 on_onnxruntime": replace(TIMES, median_ms=0.8),
    }
    ratios = {
        "int8 on_onnxruntime": Ratio(1.0, 1.0, 1.0),
        "int8 on_openvino": Ratio(0.5, 0.48, 0.52),
        "fp32 on_onnxruntime": Ratio(0.8, 0.78, 0.82),
    }
    found, how = chosen(times, ratios)
    assert found["int8"]["latency_ms"] == 0.5
    assert found["int8"]["origin"] == "measured"
    assert "int8 with openvino, fp32 with onnxruntime" in how
    assert (
        decide([candidate("int8", 1, found["int8"]), candidate("fp32", 4, found["fp32"])], 0.0, Metric()).precision
        == "int8"
    )


@pytest.mark.parametrize(("ratio", "shipped"), [(Ratio(0.99, 0.95, 1.02), "int8"), (Ratio(0.8, 0.78, 0.82), "fp32")])
def test_float_ships_only_where_it_is_clearly_faster(ratio: Ratio, shipped: str) -> None:
    times = {"int8 on_onnxruntime": TIMES, "fp32 on_onnxruntime": replace(TIMES, median_ms=ratio.median)}
    found, _ = chosen(times, {"int8 on_onnxruntime": Ratio(1.0, 1.0, 1.0), "fp32 on_onnxruntime": ratio})
    assert (
        decide([candidate("int8", 1, found["int8"]), candidate("fp32", 4, found["fp32"])], 0.0, Metric()).precision
        == shipped
    )


def test_measures_both_forms_of_a_student_here(network: nn.Module, train: Digits) -> None:
    target = profiles.target("x86")
    model = prepared(network, train, target.quantizer)
    found, how = measure({"int8": model, "fp32": network}, (train.images[:2],), target, ("x",), ("y",))
    assert set(found) == {"int8", "fp32"}
    for times in found.values():
        low, high = times["between_ms"]
        assert 0 < low < high
        assert times["latency_ms"] > 0
    assert "one interleaved run" in how


def test_says_why_a_target_is_not_measured() -> None:
    assert "jetson runs tensorrt" in why_not(profiles.target("jetson"), None)
    assert "another machine" in why_not(profiles.target("x86"), "user@host")
    assert why_not(profiles.target("x86"), None) == ""
