"""The page of `compress profile`: every figure of every profile, under the right roof, with its origin."""

import json
import re
from typing import Any

import pytest

from compress.page import costs, shell
from compress.page.html import Markup


@pytest.fixture(autouse=True)
def _light(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library stays out: it is the same in every page."""
    monkeypatch.setattr(shell, "_plotly", lambda: Markup("/* plotly.js */"))


def layer(name: str, macs: int, moved: int, ms: float, bound: str) -> dict[str, Any]:
    return {
        "name": name, "ops": ["Conv", "Relu"], "macs": macs, "weight_bytes": moved // 2, "activation_bytes": moved // 2,
        "latency_ms": ms, "bound_by": bound, "precision": "int8",
    }  # fmt: skip


def profile(model: str = "net.onnx", target: str = "chip", origin: str = "predicted") -> dict[str, Any]:
    return {
        "model": model,
        "target": target,
        "batch": 1,
        "cost": {
            "origin": origin, "latency_ms": 0.5, "interval_ms": [0.25, 0.75], "macs": 3_000_000, "params": 1000,
            "weight_bytes": 2000, "peak_activation_bytes": 4000, "precision": "int8", "runtime": "tensorrt 10.3",
            "layers": [layer("big", 2_000_000, 40_000, 0.4, "compute"), layer("copy", 0, 9_000, 0.1, "memory")],
            "notes": ["latency model: <b>fitted</b>"], "uncounted": {"Loop": 2},
            "weight_bytes_by_dtype": {"int8": 1900, "float32": 100},
        },
    }  # fmt: skip


def content(*found: dict[str, Any]) -> dict[str, Any]:
    hardware = {"tops": {"int8": 2.0, "fp16": 1.0}, "bandwidth_gbs": 50.0, "clock_mhz": 600.0}
    chip = {"device": "Chip <script>", "runtime": "tensorrt 10.3", "hardware": hardware, "sources": {"tops": "book"}}
    return {"profiles": list(found), "targets": {"chip": chip, "other": {**chip, "device": "Other"}}}


def figures(html: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" data-plot="([^"]+)">(.*?)</script>', html, re.DOTALL)
    return {name: json.loads(text) for name, text in found}


def test_a_kernel_stands_where_the_roofline_model_says() -> None:
    plot = figures(costs.render(content(profile())))["plot-roofline-0"]
    lines = [trace for trace in plot["data"] if trace["mode"] == "lines"]
    (marks,) = [trace for trace in plot["data"] if trace["mode"] == "markers"]
    # 4 M operations over 40 kB are 100 a byte; in 0.4 ms they are 10 GOP/s. The copy has no place.
    assert marks["x"] == [pytest.approx(100.0)]
    assert marks["y"] == [pytest.approx(10.0)]
    # Only the peak of the precision in use: 2 TOP/s over 50 GB/s meet at 40 operations a byte.
    assert len(lines) == 1
    assert lines[0]["x"][1] == pytest.approx(40.0)
    assert lines[0]["y"][1] == lines[0]["y"][2] == pytest.approx(2000.0)
    assert lines[0]["y"][0] == pytest.approx(lines[0]["x"][0] * 50.0)


def test_text_that_is_not_ours_is_shown_and_not_run() -> None:
    html = costs.render(content(profile("<img src=x onerror=alert(1)>.onnx")))
    assert "<img" not in html
    assert "Chip <script>" not in html
    assert "latency model: &lt;b&gt;fitted&lt;/b&gt;" in html


def test_every_figure_says_how_it_was_obtained() -> None:
    html = costs.render(content(profile(origin="emulated")))
    header = html[html.index("<header>") : html.index("</header>")]
    for value, origin in (("0.5 ms", "emulated"), ("3 M", "counted"), ("2 kB", "counted"), ("4 kB", "counted")):
        card = re.search(rf"<strong>{re.escape(value)}</strong>.*?class=\"origin (\w+)\"", header)
        assert card is not None
        assert card.group(1) == origin
    assert "2 × Loop" in html


def test_predicted_kernels_of_a_measured_network_are_not_called_measured() -> None:
    row = profile(origin="measured")
    row["cost"]["layers_origin"] = "predicted"
    html = costs.render(content(row))
    body = html[html.index('id="profile-0"') :]
    assert body.count('class="origin measured"') == 1  # the whole; kernels are marked as predicted
    assert body.count('class="origin predicted"') >= 2


def test_several_profiles_stand_side_by_side_with_their_intervals() -> None:
    html = costs.render(content(profile(), profile(target="other"), profile("b.onnx")))
    plot = figures(html)["plot-together"]
    assert [trace["name"] for trace in plot["data"]] == ["net.onnx, batch 1", "b.onnx, batch 1"]
    first = plot["data"][0]
    assert first["x"] == [0.5, 0.5]
    assert first["error_x"]["array"] == [0.25, 0.25]
    assert first["error_x"]["arrayminus"] == [0.25, 0.25]
    assert {"plot-roofline-0", "plot-roofline-1", "plot-roofline-2"} <= set(figures(html))


def test_what_is_absent_leaves_no_error() -> None:
    row = profile()
    row["cost"] = {"origin": "measured", "latency_ms": None, "layers": []}
    html = costs.render({"profiles": [row], "targets": {}})
    assert "was not measured" in html
    assert figures(html) == {}
