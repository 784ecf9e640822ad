"""The inspector's report in the forms of 8.5, 8.6 to 10 and 11, and lines of progress."""

import json

import pytest

from exporters.device import api, engine, watch


@pytest.mark.parametrize(
    ("version", "tensor", "node"),
    [
        ("8.5.2", {"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, {}),
        ("10.3.0", {"Format/Datatype": "Channel major FP32 format"}, {"Metadata": "[ONNX Layer: conv1]"}),
        ("11.1.0", {"Format": "Row major linear", "Datatype": "Int8"}, {"Metadata": "[ONNX Layer: conv1]"}),
    ],
)
def test_both_forms_are_read(version: str, tensor: dict[str, str], node: dict[str, str]) -> None:
    layer = {"Name": "conv1", "LayerType": "CaskConvolution", "TacticName": "imma", "Inputs": [tensor], **node}
    [row] = engine.layers(json.dumps({"Layers": [layer], "I/O Tensors": []}), api.api_of(version))
    kind = "Float" if version == "10.3.0" else "Int8"
    assert (row["name"], row["tactic"], row["inputs"], row["nodes"]) == ("conv1", "imma", [kind], ["conv1"])
    assert engine.int8_nodes([row]) == ({"conv1"} if kind == "Int8" else set())


def test_fused_layers_of_8_5_name_their_nodes_by_their_own_names() -> None:
    layer = {"Name": "conv1 + relu1", "Inputs": [{"Format/Datatype": "Int8"}]}
    [row] = engine.layers(json.dumps({"Layers": [layer]}), api.api_of("8.5.2"))
    assert row["nodes"] == ["conv1", "relu1"]


def test_an_engine_without_details_lists_names() -> None:
    [row] = engine.layers(json.dumps({"Layers": ["conv1"]}), api.api_of("10.3"))
    assert (row["name"], row["inputs"]) == ("conv1", [])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Row major Int8 format", "Int8"),
        ("UInt8", "UInt8"),
        ("Two wide channel vectorized row major FP16 format", "Half"),
        ("BFloat16", "BFloat16"),
        ("Float", "Float"),
        ("Int64", "Int64"),
        ("something new", "something new"),
    ],
)
def test_types_in_words(text: str, kind: str) -> None:
    assert engine.kind_of(text) == kind


def test_percentiles_by_nearest_rank() -> None:
    found = engine.percentiles([float(value) for value in range(101)])
    assert (found["p5_ms"], found["median_ms"], found["p95_ms"], found["runs"]) == (5.0, 50.0, 95.0, 101)


def test_a_line_of_progress_estimates_what_is_left() -> None:
    """10 of 40 steps took 20 s since the phase began, so the other 30 take 60."""
    state = {"phase": "Tactics", "step": 10, "steps": 40}
    line = watch.progress_line("building", 30.0, 512 << 20, state, begun=10.0)
    assert line == "building: 30 s, 512 MiB, Tactics 10 of 40, about 60 s of it left"
    assert watch.progress_line("building", 5.0, 0, {}, 0.0) == "building: 5 s, 0 MiB"
    first = {"phase": "Tactics", "step": 0, "steps": 40}
    assert "left" not in watch.progress_line("building", 5.0, 0, first, 0.0)
