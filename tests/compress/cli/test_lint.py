"""`compress lint` prints the report, and its exit code says whether the target takes the model."""

import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from compress.cli.main import main
from tests.exporters.lint.graphs import Writer, good, write


@pytest.fixture
def refused(tmp_path: Path) -> str:
    g = Writer()
    return str(write(g.model(g.int8_conv(g.pair("x", 0.0, name="bad"))), tmp_path, "refused.onnx"))


def test_a_good_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(write(good(), tmp_path)), "--target", "a100", "--no-compile"]) == 0
    said = capsys.readouterr().out
    assert "no rule is broken" in said
    assert "not compiled: --no-compile" in said


def test_a_refused_model_is_reported_and_exits_with_1(refused: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", refused, "--target", "a100", "--no-compile"]) == 1
    assert "refused Q3   bad_q" in capsys.readouterr().out


def test_json(refused: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", refused, "--target", "jetson-agx-orin-64gb", "--no-compile", "--dla", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [finding["rule"] for finding in found["findings"] if finding["level"] == "refused"] == ["Q3", "D2"]
    assert {row["operator"] for row in found["dla"]} == {"Conv"}


def test_the_compiler_of_x86_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(good(), tmp_path))
    assert main(["lint", path, "--target", "x86", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    silent = found["compiler"]["silently_float"]
    assert silent
    assert set(silent) <= {finding["node"] for finding in found["findings"]} | set(silent)
    assert found["int8_share"] < 1.0


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["absent.onnx"], "no ONNX file at"),
        (["absent.onnx", "--target", "jetsn"], "jetsn"),
        (["absent.onnx", "--shape", "x"], "INPUT=N,N"),
        (["absent.onnx", "--shape", "x=0"], "INPUT=N,N"),
        (["absent.onnx", "--seconds", "-3"], "--seconds is -3"),
    ],
)
def test_what_cannot_be_used_is_said(arguments: list[str], what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", *arguments]) == 2
    assert what in capsys.readouterr().err


def test_a_shape_for_a_dynamic_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorrt_rtx")
    g = Writer(("batch", 16, "height", 8))
    path = write(g.model(g.int8_conv(g.pair("x"))), tmp_path)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[2].dim_param == "height"
    assert main(["lint", str(path), "--target", "a100", "--shape", "x=16,24,8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["int8_share"] == 1.0
    assert found["compiler"]["notes"] == []


def test_help_needs_no_onnx() -> None:
    code = "import sys; import compress.cli.lint; print([m for m in ('onnx', 'numpy', 'torch') if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_shape_of_no_input_is_refused(refused: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", refused, "--no-compile", "--shape", "tokens=32"]) == 2
    assert "no input is called 'tokens'; there are x" in capsys.readouterr().err
