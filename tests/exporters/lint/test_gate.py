"""What stops an export, and what a build leaves about its engine."""

import importlib.util
import json
from pathlib import Path

import pytest

import profiles
from exporters import onnx_to_c, onnx_to_rtx_engine
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from exporters.lint import gate
from tests.exporters.lint.graphs import Writer, good, write

A100 = profiles.target("a100")
ORIN = profiles.target("jetson")
M4 = profiles.target("cortex-m4")


def test_a_refused_export_stops_with_rule_node_module_and_fix(tmp_path: Path) -> None:
    g = Writer()
    path = write(g.model(g.int8_conv(g.pair("x", zero=3, name="bad"))), tmp_path)
    with pytest.raises(ExportError, match=r"a100 refuses model.onnx by rule Q1: bad_q \(module net.bad_q\)") as caught:
        gate.accepted(path, A100)
    assert "tensorrt" in caught.value.fix


def test_other_findings_are_recorded_and_stop_nothing(tmp_path: Path) -> None:
    g = Writer()
    report = gate.accepted(write(g.model(g.pair(g.int8_conv(g.pair("x")), name="bad")), tmp_path), A100)
    found = gate.summary(report)
    assert found["counts"] == {"refused": 0, "wrong": 0, "slow": 1, "note": 0}
    assert [(row["rule"], row["node"]) for row in found["findings"]] == [("P2", "bad_dq")]
    assert report.in_words() == "1 slow"


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
def test_the_verdict_of_the_engine_that_was_built_anyway(tmp_path: Path) -> None:
    model = write(good(), tmp_path)
    check = onnx_to_rtx_engine.convert(model, ORIN, tmp_path / "out", options=BuildOptions(purpose="check"))
    path = gate.write(gate.built(model, ORIN, [check]), tmp_path)
    content = json.loads(path.read_text("utf-8"))
    assert content["int8_share"] == 1.0
    assert content["compiler"]["intended"] == 6
    assert content["compiler"]["notes"] == [check.note]
    assert {item["id"]: item["state"] for item in content["checklist"]}["C8"] == "held"


def test_a_core_is_asked_by_lowering(tmp_path: Path) -> None:
    g = Writer()
    model = write(g.model(g.pair(g.int8_conv(g.pair("x")))), tmp_path)
    artifact = onnx_to_c.convert(model, M4, tmp_path / "out")
    assert gate.built(model, M4, [artifact]).int8_share == 1.0


def test_without_an_engine_there_is_no_verdict(tmp_path: Path) -> None:
    report = gate.built(write(good(), tmp_path), A100, [])
    assert report.int8_share is None
    assert report.not_compiled == "no engine was compiled on this machine"
