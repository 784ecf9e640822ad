"""The section on precision: what it shows, and that nothing in it is trusted."""

import re
from typing import Any

from compress.page import render
from compress.page.precision import per_layer
from tests.compress.page.content import decided


def content(layers: int = 3) -> dict[str, Any]:
    return {"quantize": {"precision": decided(layers)}}


def test_shows_the_decision_and_every_layer() -> None:
    found = str(per_layer(content()))
    for text in ("mixed ships.", "its weights are too large", "block.0", "block.2", "91.00 % ± 0.20 %", "0.0123 ms"):
        assert text in found, text
    assert "All 3 layers in numbers" in found
    assert "512 validation examples" in found


def test_a_loss_says_whether_it_was_measured() -> None:
    text = re.sub("<[^>]+>", "", str(per_layer(content())))
    assert "+2.00 points measured" in text
    assert "0.00 points taken for granted" in text  # a float precision rounds too little to be looked at


def test_of_many_layers_the_most_sensitive_have_bars_and_all_have_rows() -> None:
    found = str(per_layer(content(60)))
    assert "All 60 layers in numbers" in found
    assert found.count('"40"') >= 1
    assert '"41"' not in found


def test_is_part_of_the_page_and_escapes_what_it_is_given() -> None:
    page = render(content())
    assert "Precision per layer" in page
    assert "<b>nobody</b>" not in page
    assert "&lt;b&gt;nobody&lt;/b&gt;" in page


def test_is_left_out_where_nothing_was_decided() -> None:
    assert per_layer({}) is None
    assert per_layer({"quantize": {"precision": None}}) is None


def test_odd_content_is_no_error() -> None:
    odd = content()
    odd["quantize"]["precision"]["layers"][0] = {"layer": 3, "without": None, "alone": {"score": "x"}, "latency_ms": []}
    odd["quantize"]["precision"]["why"] = 7
    assert per_layer(odd) is not None
