"""Histograms, worst samples and the layer at fault as a reader sees them."""

import html
import math
import re
from typing import Any

from compress.page import agreement
from compress.page.reading import plain

HISTOGRAM = {
    "unit": "steps",
    "edges": [-math.inf, -0.5, 0.5, math.inf],
    "counts": [1, 0, 3],
    "equal": 95,
    "unordered": 1,
}
FAULT = {
    "artifact": "model.engine",
    "sentence": "first layer that differs: module 'stem.<b>'",
    "runtime": "tensorrt",
    "compared": 34,
    "samples": 8,
    "notes": ["2 layers were left out"],
    "reproducer": "reproducer/model.engine",
    "first": {
        "module": "stem.<b>",
        "node": "node_conv",
        "operators": ["Conv", "Relu"],
        "parity": {"histogram": HISTOGRAM},
    },
    "layers": [
        {"module": "stem.<b>", "node": "node_conv", "score": None, "parity": {"max_steps": 12.0, "mean_steps": 0.5}}
    ],
}


def words(markup: object) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", str(markup))))


def content(**verify: Any) -> dict[str, Any]:
    found = plain({"verify": verify})
    assert isinstance(found, dict)
    return found


def test_bins_without_elements_are_left_out_and_shares_add_up() -> None:
    text = words(agreement.histogram(plain(HISTOGRAM)))
    for row in (
        "equal 95 95.000 %",
        "up to -0.5 steps 1 1.000 %",
        "above 0.5 steps 3 3.000 %",
        "on one side 1 1.000 %",
    ):
        assert row in text
    assert "-0.5 to 0.5" not in text


def test_the_layer_at_fault_is_told_and_escaped() -> None:
    markup = agreement.faults(content(bisect=[FAULT]))
    assert "stem.<b>" not in str(markup)
    text = words(markup)
    for part in (
        "stem.<b>",
        "node_conv",
        "beyond any",
        "34, on 8 samples",
        "6_verify/reproducer/model.engine",
        "left out",
    ):
        assert part in text


def test_nothing_is_shown_where_nothing_was_found() -> None:
    assert agreement.faults(content(bisect=[])) is None
    assert agreement.ledger(content(parity=[{"artifact": "ONNX"}])) is None
    assert "could not be compared" in words(
        agreement.faults(content(bisect=[{"artifact": "x", "sentence": "the layers could not be compared"}]))
    )


def test_worst_samples_name_the_pair_and_the_place() -> None:
    worst = {"sample": 7, "element": [2, 1], "reference": 1.5, "candidate": math.nan, "steps": math.inf}
    row = {"artifact": "ONNX", "reference": "float", "output": "mask", "histogram": HISTOGRAM, "worst": [worst]}
    assert "ONNX against float, mask 7 2, 1 1.5" in words(agreement.ledger(content(parity=[row])))
