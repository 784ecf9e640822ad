"""The whole lint on files: own exports, compilers' verdicts, damage, generated graphs."""

import importlib.util
import json
import random
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper

import profiles
from exporters import onnx_to_rtx_engine
from exporters.errors import ExportError
from exporters.lint import lint, on_onnxruntime, on_openvino, on_tensorrt
from exporters.lint.checklist import CHECKLIST
from exporters.lint.view import Device, view
from tests.exporters.lint.graphs import Writer, good, good_for_onnxruntime, unsigned, write

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)
A100 = profiles.target("a100")
ORIN = profiles.target("jetson")
X86 = profiles.target("x86")
M4 = profiles.target("cortex-m4")


def own_notes(report) -> list[tuple[str, str]]:
    """Findings but those that small test networks cannot help: three input channels, no metadata."""
    return [(f.rule, f.node) for f in report.findings if f.rule not in ("C10", "P10")]


@needs_rtx
def test_our_own_export_runs_as_intended(int8_model) -> None:
    report = lint(int8_model.path, A100)
    assert own_notes(report) == []
    assert report.compiler is not None
    assert report.compiler.accepted
    assert report.int8_share == 1.0
    assert report.compiler.intended == len(report.compiler.runs) > 5
    assert report.compiler.silent == ()
    stem = report.compiler.padded[0]
    assert (stem.module, stem.channels, stem.padded) == ("stem", 3, 4)
    assert all(item.state == "held" for item in report.checklist if item.id in ("C1", "C4", "C5", "C6", "C8", "C12"))


def test_our_own_float_export_is_named_by_none(float_model) -> None:
    for target in (A100, X86, M4):
        assert lint(float_model.path, target, compile=False).findings == ()


def test_our_own_export_for_a_core_has_integer_kernels(depthwise_model) -> None:
    report = lint(depthwise_model.path, M4)
    assert own_notes(report) == []
    assert report.int8_share == 1.0


def test_a_node_without_a_c_kernel_is_named_with_its_fallback(tmp_path: Path) -> None:
    g = Writer((1, 16))
    path = write(g.model(g.op("Hardmax", "x", name="odd")), tmp_path)
    verdict = lint(path, M4).compiler
    assert verdict is not None
    assert not verdict.accepted
    assert (verdict.refused_node, verdict.refused_module) == ("odd", "net.odd")
    assert "emx-onnx-cgen" in verdict.notes[0]


def silent(report) -> list[tuple[str, str, str]]:
    assert report.compiler is not None
    return [(run.node, run.module, run.rule) for run in report.compiler.silent]


@needs_rtx
def test_products_that_run_in_float_all_the_same_are_named_with_their_rule(tmp_path: Path) -> None:
    """A wrong axis, a scale per channel and a transposed convolution: quantised in the graph, float when compiled."""
    g = Writer()
    first = g.op("Relu", g.int8_conv(g.pair("x", [0.1] * 16, axis=1, name="channels"), "per_channel"))
    up = g.op("ConvTranspose", g.pair(first), g.weight(16, 16, 2, 2, axis=1), name="up", strides=[2, 2])
    second = g.op("Flatten", g.op("GlobalAveragePool", g.pair(g.op("Relu", g.int8_conv(g.pair(up), "fine")))))
    path = write(g.model(g.op("MatMul", g.pair(second), g.weight(16, 16, axis=0), name="axis")), tmp_path)
    report = lint(path, A100)
    assert silent(report) == [
        ("per_channel", "net.per_channel", "Q5"),
        ("up", "net.up", "P8"),
        ("axis", "net.axis", "Q6"),
    ]
    assert report.int8_share == 1 / 4
    assert report.compiler is not None
    assert report.compiler.intended == 4
    broken = {item.id: item.why for item in report.checklist if item.state == "broken"}
    assert broken["C8"] == "3 quantised products run in float"


@needs_rtx
def test_padded_channels_and_requantise_kernels_are_read_from_the_log(tmp_path: Path) -> None:
    g = Writer()
    pooled = g.pair(g.op("MaxPool", g.body(), kernel_shape=[2, 2]), 0.1)
    left = g.op("Relu", g.conv(pooled, g.weight(16, 1, 3, 3), name="depthwise", group=16))
    right = g.op("Sigmoid", g.int8_conv(g.pair(pooled, 0.3)))
    path = write(g.model(left, right), tmp_path)
    verdict = lint(path, A100).compiler
    assert verdict is not None
    assert [(row.node, row.channels, row.padded) for row in verdict.padded] == [("depthwise", 16, 64)]
    assert verdict.share() == 1.0
    assert len(verdict.requantise) == 1


@needs_rtx
def test_a_refusal_is_named_with_its_node_and_module(tmp_path: Path) -> None:
    g = Writer()
    path = write(g.model(g.op("MaxPool", "x", name="dilated", kernel_shape=[2, 2], dilations=[2, 2])), tmp_path)
    verdict = lint(path, A100).compiler
    assert verdict is not None
    assert (verdict.accepted, verdict.refused_node, verdict.refused_module) == (False, "dilated", "net.dilated")
    assert "dilations" in verdict.refusal


@needs_rtx
def test_what_the_builders_rewrite_is_a_note_and_compiles(tmp_path: Path) -> None:
    """An integer bias: the parser refuses the file, the engine builders here write the bias in float."""
    g = Writer()
    bias = g.op("DequantizeLinear", g.const(np.ones(16), np.int32), g.const(np.full(16, 5e-4)), name="bias", axis=0)
    path = write(g.model(g.op("Conv", g.pair("x"), g.weight(16, 16, 1, 1), bias)), tmp_path)
    report = lint(path, A100)
    assert [(f.rule, f.level, f.node) for f in report.findings] == [("Q8", "note", "bias")]
    assert report.compiler is not None
    assert report.compiler.accepted
    assert "refused as the file is" in report.compiler.notes[-1]


@needs_rtx
def test_a_target_that_the_compiler_does_not_know_gets_a_neighbours_kernels(int8_model) -> None:
    verdict = lint(int8_model.path, ORIN).compiler
    assert verdict is not None
    assert verdict.built_for == "compute capability 8.6"
    assert "8.7 is not among those" in verdict.notes[0]


@needs_rtx
def test_a_build_over_its_time_is_told(int8_model) -> None:
    verdict = lint(int8_model.path, A100, seconds=0.05).compiler
    assert verdict is not None
    assert not verdict.accepted
    assert "time limit" in verdict.refusal


def test_the_compilers_capabilities_are_those_of_the_builder() -> None:
    assert on_tensorrt.KNOWN == onnx_to_rtx_engine.CAPABILITIES


def test_a_target_without_a_comparable_compiler_says_why(int8_model) -> None:
    report = lint(int8_model.path, profiles.target("jetson-agx-xavier"))
    assert report.compiler is None
    assert "7.2" in report.not_compiled or "not installed" in report.not_compiled


def test_onnxruntime_computes_the_good_graph_in_integers(tmp_path: Path) -> None:
    report = lint(write(good_for_onnxruntime(), tmp_path), X86)
    assert report.findings == ()
    assert report.int8_share == 1.0


def test_onnxruntime_float_products_have_a_rule(tmp_path: Path) -> None:
    """As its optimiser leaves them: no output pair, a Relu in front of signed codes, a float bias at the end."""
    g = Writer()
    first = g.pair(g.op("Relu", g.int8_conv(g.pair("x"), "signed")))
    second = unsigned(g, g.op("Relu", g.int8_conv(first, "fine")))
    third = unsigned(g, g.op("Sigmoid", g.int8_conv(second, "open")))
    mean = unsigned(g, g.op("Flatten", unsigned(g, g.op("GlobalAveragePool", third))))
    head = g.op("Gemm", mean, g.weight(8, 16), g.const(np.ones(8)), name="head", transB=1)
    report = lint(write(g.model(head, metadata={"recipe": "a", "quantizer": "onnxruntime_x86"}), tmp_path), X86)
    assert silent(report) == [
        ("signed", "net.signed", "P16"),
        ("open", "net.open", "P16"),
        ("head", "net.head", "P16"),
    ]
    assert [f.node for f in report.findings] == ["signed", "open", "head"]
    assert report.int8_share == 1 / 4


def test_names_that_onnxruntime_changes_are_found_again() -> None:
    g = Writer()
    body = g.body()
    model = g.model(g.int8_conv(g.pair(body), "second"))
    seen = view(model, Device("onnxruntime"))
    optimised = ModelProto()
    for kind, name in (("QLinearConv", "second_token_3"), ("Conv", "relu9_out_nchwc"), ("Conv", "stranger")):
        optimised.graph.node.append(helper.make_node(kind, ["a", "b"], ["c"], name=name))
    relu = next(node.output[0] for node in model.graph.node if node.op_type == "Relu")
    optimised.graph.node[1].name = f"{relu}_nchwc"
    verdict = on_onnxruntime.from_graph(optimised, "", "", [], seen)
    assert {run.node: run.type for run in verdict.runs} == {"first": "float", "second": "int8"}


def test_openvino_layers_are_read_by_the_nodes_in_them() -> None:
    """Rows as OpenVINO 2026.4 writes them for a u8s8 residual network; `second` runs in bfloat16."""
    g = Writer()
    middle = g.pair(g.int8_conv(g.pair("x"), "first"))
    model = g.model(g.op("MatMul", g.pair(g.int8_conv(middle, "second")), g.weight(8, 8, axis=1), name="head"))
    layers = [
        on_openvino.Layer("Reorder", "u8", ("",)),
        on_openvino.Layer("Convolution", "u8", ("first", "node_add_70")),
        on_openvino.Layer("Convolution", "bf16", ("second",)),
        on_openvino.Layer("FullyConnected", "u8", ("head/WithoutBiases/DequantizationMultiply", "output")),
    ]
    verdict = on_openvino.from_layers(layers, "", "", [], view(model, Device("onnxruntime")))
    assert {run.node: run.type for run in verdict.runs} == {"first": "int8", "second": "bfloat16", "head": "int8"}
    assert [run.node for run in verdict.silent] == ["second"]
    assert verdict.facts == {"heavy_layers": 3, "heavy_layers_int8": 2}


def test_openvino_answers_beside_onnxruntime(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    report = lint(write(good_for_onnxruntime(), tmp_path), X86)
    assert [verdict.share() for verdict in report.others] == [1.0]


def test_the_report_prints_and_is_json(tmp_path: Path) -> None:
    g = Writer()
    path = write(g.model(g.int8_conv(g.pair("x", 0.0, name="bad"), "conv"), metadata={}), tmp_path)
    report = lint(path, A100, compile=False, dla=True)
    text = report.text()
    assert "refused Q3   bad_q (module net.bad_q): the scale is not positive and finite" in text
    assert "a100 has no DLA" in text
    assert all(len(line) <= 120 for line in text.splitlines()[1:])
    content = json.loads(json.dumps(report.to_json()))
    assert content["counts"]["refused"] == len(report.refused) == 3  # Q3, D1 and D2
    assert [item["id"] for item in content["checklist"]] == [entry.id for entry in CHECKLIST]
    assert content["findings"][0] == {
        "rule": "Q3",
        "level": "refused",
        "node": "bad_q",
        "module": "net.bad_q",
        "what": "the scale is not positive and finite, and one such scale refuses the whole model",
        "fix": content["findings"][0]["fix"],
    }


def test_damaged_files_are_refused_with_a_sentence_or_linted(tmp_path: Path) -> None:
    data = good().SerializeToString()
    rng = random.Random(0)
    for _ in range(30):
        garbled = bytearray(data)
        garbled[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (tmp_path / "m.onnx").write_bytes(garbled if rng.random() < 0.7 else data[: rng.randrange(len(data))])
        for target in (A100, X86):
            try:
                lint(tmp_path / "m.onnx", target, compile=False, dla=True)
            except ExportError:
                continue


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no ONNX file at"):
        lint(tmp_path / "absent.onnx", A100)


KINDS = ("Conv", "Pair", "Relu", "Add", "Concat", "MaxPool", "GlobalAveragePool", "Mul", "If", "Transpose", "Softmax")


@st.composite
def graphs(draw: st.DrawFn) -> ModelProto:
    """Random Q/DQ graphs of 16 channels: any operator on any tensor, any scale, zero point and type."""
    g = Writer()
    there = ["x"]
    for _ in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(KINDS))
        source = draw(st.sampled_from(there))
        other = draw(st.sampled_from(there))
        if kind == "Conv":
            weight = g.weight(16, 16, 3, 3) if draw(st.booleans()) else g.real(16, 16, 3, 3)
            made = g.conv(source, weight)
        elif kind == "Pair":
            channel = draw(st.booleans())
            scale = draw(st.sampled_from([0.1, 1e-40, float("inf"), 0.0]))
            made = g.pair(
                source,
                [scale] * 16 if channel else scale,
                draw(st.sampled_from([0, 3])),
                draw(st.sampled_from([np.int8, np.uint8])),
                **({"axis": 1} if channel else {}),
            )
        elif kind == "Concat":  # back to 16 channels
            made = g.conv(g.op("Concat", source, other, axis=1), g.real(16, 32, 1, 1), size=1)
        elif kind == "MaxPool":
            made = g.op("MaxPool", source, kernel_shape=[1, 1])
        elif kind == "Transpose":
            made = g.op("Transpose", source, perm=[0, 1, 3, 2])
        elif kind == "GlobalAveragePool":
            made = g.op("Add", source, g.op("GlobalAveragePool", source))
        elif kind == "If":
            value = helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)
            body = helper.make_graph([helper.make_node("Identity", [source], ["inner"])], "b", [], [value])
            made = g.op("If", g.const(True, np.bool_), then_branch=body, else_branch=body)
        else:
            made = g.op(kind, *([source, other] if kind in ("Add", "Mul") else [source]))
        there.append(made)
    return g.model(there[-1])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(graphs())
def test_whatever_onnxruntime_loads_is_linted(model: ModelProto) -> None:
    """Never another error than ours, and none at all where onnxruntime opens the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        opens = True
    except Exception:  # of onnxruntime's own kinds
        opens = False

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        onnx.save(model, str(path))
        for target in (A100, X86, M4):
            try:
                report = lint(path, target, compile=target is not A100, dla=target is A100)
            except ExportError:
                assert not opens
                continue
            json.dumps(report.to_json())
            assert report.text()
            if target is X86:
                assert report.compiler is not None
                assert report.compiler.accepted == opens
