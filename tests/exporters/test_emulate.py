"""ONNX to an emulated cost, and what happens where that cannot be."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters import onnx_to_emx_c
from exporters.emulate import emulate, reason_against
from exporters.errors import ExportError
from profiles.errors import ProfileError
from profiles.runners import on_cortex_m
from profiles.target import Target, target

needs_board = pytest.mark.skipif(on_cortex_m.available() is not None, reason=str(on_cortex_m.available()))
MISSING = onnx_to_emx_c.can_run(target("hearing_aid"))
needs_emx = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

STEPS, INPUTS, UNITS = 1, 6, 5


@pytest.fixture(scope="module")
def hearing_aid() -> Target:
    return target("hearing_aid")


def save(path: Path, nodes: list[onnx.NodeProto], shape: list[int], stored: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def plain(path: Path) -> Path:
    """A product, which there is C for."""
    weight = np.ones((8, 4), np.float32)
    return save(path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")], [1, 8], {"w": weight})


def recurrent(path: Path) -> Path:
    """One step of a gated recurrent unit with a clip, which there is no kernel for."""
    rng = np.random.default_rng(0)
    stored = {
        "w": rng.normal(0, 0.3, (1, 3 * UNITS, INPUTS)).astype(np.float32),
        "r": rng.normal(0, 0.3, (1, 3 * UNITS, UNITS)).astype(np.float32),
    }
    gru = helper.make_node("GRU", ["x", "w", "r"], ["", "y"], hidden_size=UNITS, clip=4.0, name="gru")
    return save(path, [gru], [STEPS, 1, INPUTS], stored)


@needs_board
def test_a_graph_with_kernels_is_emulated(tmp_path: Path, hearing_aid: Target) -> None:
    assert reason_against(hearing_aid) is None
    cost = emulate(plain(tmp_path / "net.onnx"), hearing_aid)
    assert cost.origin == "emulated"
    assert cost.runtime == "c"
    assert cost.macs == 32
    assert cost == emulate(tmp_path / "net.onnx", hearing_aid)  # counts do not vary


def test_without_the_tools_it_is_predicted(
    tmp_path: Path, hearing_aid: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    cost = emulate(plain(tmp_path / "net.onnx"), hearing_aid)
    assert cost.origin == "predicted"
    assert cost.notes[0].startswith("predicted, not emulated: arm-none-eabi-gcc is not installed: apt-get install")


@needs_board
def test_an_operator_without_a_kernel_is_predicted_and_named(
    tmp_path: Path, hearing_aid: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_to_emx_c, "PROGRAM", "no-such-generator")
    cost = emulate(recurrent(tmp_path / "net.onnx"), hearing_aid)
    assert cost.origin == "predicted"
    assert re.match(r"predicted, not emulated: GRU node 'gru' has a clip, .*; no-such-generator is not", cost.notes[0])


def test_other_families_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="only Cortex-M cores are emulated"):
        emulate(tmp_path / "net.onnx", target("a100"))


def test_what_cannot_be_read_is_refused(tmp_path: Path, hearing_aid: Target) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model")
    with pytest.raises(ProfileError):
        emulate(tmp_path / "net.onnx", hearing_aid)


@needs_emx
@needs_board
def test_the_other_generator_gives_onnxruntimes_numbers(tmp_path: Path, hearing_aid: Target) -> None:
    model = recurrent(tmp_path / "net.onnx")
    artifact = onnx_to_emx_c.convert(model, hearing_aid, tmp_path)
    x = np.random.default_rng(1).normal(0, 1, (3, STEPS * INPUTS)).astype(np.float32)
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"x": row.reshape(STEPS, 1, INPUTS)})[0].reshape(1, -1) for row in x])
    with on_cortex_m.load(artifact.path) as board:
        got = board.run({"x": x})["y"].reshape(3, -1)
    np.testing.assert_allclose(got, expected, atol=1e-6)
    cost = emulate(model, hearing_aid)
    assert cost.origin == "emulated"
    assert cost.runtime == "c by emx-onnx-cgen"
    assert "GRU node 'gru' has a clip" in cost.notes[0]


SOURCE = """
static void node0_first(const float a[2], float b[2]) { b[0] = a[0] + a[1]; b[1] = a[0]; }
static void node1_second(const float a[2], float b[3]) { b[0] = a[0]; b[1] = a[1]; b[2] = 7.0f; }
void model(const float x[restrict 1][2], float y[restrict 1][3]) {
    float tmp0_t[1][2];
    node0_first(x[0], tmp0_t[0]);
    node1_second(tmp0_t[0], y[0]);
}
"""


@needs_board
def test_steps_of_the_other_generators_code(
    tmp_path: Path, hearing_aid: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without that generator: what it writes is given."""
    nodes = [helper.make_node("Relu", ["x"], ["t"], name="a"), helper.make_node("MatMul", ["t", "w"], ["y"], name="b")]
    model = save(tmp_path / "net.onnx", nodes, [1, 2], {"w": np.ones((2, 3), np.float32)})
    monkeypatch.setattr(onnx_to_emx_c, "can_run", lambda target, remote=None: None)
    monkeypatch.setattr(onnx_to_emx_c, "_generate", lambda folder: SOURCE)
    artifact = onnx_to_emx_c.convert(model, hearing_aid, tmp_path)
    facts = json.loads((artifact.path / "model.json").read_text())
    assert [(step["name"], step["ops"]) for step in facts["steps"]] == [
        ("node0_first", ["Relu"]),
        ("node1_second", ["MatMul"]),
    ]
    assert facts["arena_bytes"] == 8
    assert facts["macs"] == 6
    with on_cortex_m.load(artifact.path) as board:
        run = board.emulate({"x": np.array([[1.0, 2.0], [3.0, -5.0]], np.float32)})
    np.testing.assert_array_equal(run.outputs["y"], [[3, 1, 7], [-2, 3, 7]])
    assert run.steps.shape == (2, 2)


def test_the_other_generator_must_be_there(
    tmp_path: Path, hearing_aid: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_to_emx_c, "PROGRAM", "no-such-generator")
    with pytest.raises(ExportError, match="no-such-generator is not installed: pip install"):
        onnx_to_emx_c.convert(plain(tmp_path / "net.onnx"), hearing_aid, tmp_path)
    server = replace(hearing_aid, family="x86-cpu")
    assert "C is generated for Cortex-M cores" in str(onnx_to_emx_c.can_run(server))


@needs_board
def test_separable_convolutions_in_floats_take_few_instructions(tmp_path: Path, hearing_aid: Target) -> None:
    rng = np.random.default_rng(0)
    stored = {
        "deep": rng.normal(0, 0.3, (16, 1, 3, 3)).astype(np.float32),
        "wide": rng.normal(0, 0.3, (16, 16, 1, 1)).astype(np.float32),
    }
    pairs = 6  # so many that the compiler does not make one function for each window
    nodes = []
    for n in range(pairs):
        last = "y" if n == pairs - 1 else f"wide{n}"
        nodes += [
            helper.make_node("Conv", [nodes[-1].output[0] if n else "x", "deep"], [f"deep{n}"], group=16, pads=[1] * 4),
            helper.make_node("Conv", [f"deep{n}", "wide"], [last]),
        ]
    cost = emulate(save(tmp_path / "net.onnx", nodes, [1, 16, 12, 12], stored), hearing_aid)
    found = re.search(r"([0-9.]+) per multiply-accumulate", " ".join(cost.notes))
    assert cost.macs == pairs * 144 * 16 * (9 + 16)
    assert found is not None
    assert float(found[1]) < 12, found[0]  # load, load, multiply-add, and the loop around them
