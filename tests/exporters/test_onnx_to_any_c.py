"""The second C generator takes over where an operator has no kernel, and is named."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from exporters import builder, onnx_to_any_c, onnx_to_emx_c
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles.runners import on_cortex_m
from profiles.runners.cortex_m import toolchain
from profiles.target import Target, target

needs_host = pytest.mark.skipif(toolchain.host_compiler() is None, reason="this machine has no C compiler")

DETERMINANT = """
static void node0_det(const float a[2][2], float b[1]) { b[0] = a[0][0] * a[1][1] - a[0][1] * a[1][0]; }
void model(const float x[restrict 2][2], float y[restrict 1]) { node0_det(x, y); }
"""


@pytest.fixture(scope="module")
def hearing_aid() -> Target:
    return target("hearing_aid")


def save(path: Path, kind: str) -> Path:
    graph = helper.make_graph(
        [helper.make_node(kind, ["x"], ["y"], name="layer")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1] if kind == "Det" else [1, 2, 2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    return path


def test_the_hearing_aid_builds_with_it(hearing_aid: Target) -> None:
    assert [builder.load(name).can_run(hearing_aid) for name in hearing_aid.builders] == [None]
    assert hearing_aid.builders == ("onnx_to_any_c",)


def test_a_graph_with_kernels_needs_no_other_generator(
    tmp_path: Path, hearing_aid: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_to_emx_c, "PROGRAM", "no-such-generator")
    made = onnx_to_any_c.convert(save(tmp_path / "net.onnx", "Relu"), hearing_aid, tmp_path)
    assert "kernels" in made.facts
    assert onnx_to_any_c.GENERATOR not in made.facts


@needs_host
def test_an_operator_without_a_kernel_still_ends_in_c(
    tmp_path: Path, hearing_aid: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the other generator writes is given; the folder has the name and the form of ours."""
    monkeypatch.setattr(onnx_to_emx_c, "can_run", lambda target, remote=None: None)
    monkeypatch.setattr(onnx_to_emx_c, "_generate", lambda folder: DETERMINANT)
    model = save(tmp_path / "net.onnx", "Det")
    made = onnx_to_any_c.convert(model, hearing_aid, tmp_path, options=BuildOptions(purpose="check"))
    assert made.path == tmp_path / "c"
    assert (made.kind, made.purpose) == ("c-library", "check")
    assert made.facts["generator"] == "emx-onnx-cgen"
    assert "Det node 'layer'" in str(made.facts["refused"])
    assert made.note.startswith("Det node 'layer'")
    assert "by emx-onnx-cgen: quantised layers run in floats" in made.note
    found = on_cortex_m.run_on_host(made.path, {"x": np.array([[1, 2, 3, 4], [2, 0, 0, 5]], np.float32)})
    assert found["y"].reshape(-1).tolist() == [-2, 10]


def test_without_the_other_generator_both_reasons_are_told(
    tmp_path: Path, hearing_aid: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_to_emx_c, "PROGRAM", "no-such-generator")
    with pytest.raises(ExportError, match=r"Det node 'layer' .*; no-such-generator is not installed"):
        onnx_to_any_c.convert(save(tmp_path / "net.onnx", "Det"), hearing_aid, tmp_path)


@pytest.mark.skipif(shutil.which(onnx_to_emx_c.PROGRAM) is None, reason="emx-onnx-cgen is not installed")
@needs_host
def test_the_other_generators_own_code_runs(tmp_path: Path, hearing_aid: Target) -> None:
    made = onnx_to_any_c.convert(save(tmp_path / "net.onnx", "Det"), hearing_aid, tmp_path)
    found = on_cortex_m.run_on_host(made.path, {"x": np.array([[1, 2, 3, 4], [2, 0, 0, 5]], np.float32)})
    np.testing.assert_allclose(found["y"].reshape(-1), [-2, 10], rtol=1e-6)


def test_what_both_refuse_is_refused_with_both_reasons(
    tmp_path: Path, hearing_aid: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> str:
        raise ExportError("the other one refuses it", fix="replace the operator")

    monkeypatch.setattr(onnx_to_emx_c, "can_run", lambda target, remote=None: None)
    monkeypatch.setattr(onnx_to_emx_c, "_generate", refuse)
    with pytest.raises(ExportError, match=r"Det node 'layer' .*; the other one refuses it"):
        onnx_to_any_c.convert(save(tmp_path / "net.onnx", "Det"), hearing_aid, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx"]
