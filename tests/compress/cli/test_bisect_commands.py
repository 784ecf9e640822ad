"""`compress bisect` and `compress parity`: what they print, refuse and return."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from compress.cli import parity
from compress.cli.main import main
from compress.store import open_store
from exporters import golden

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
two (float[batch, 4] x) => (float[batch, 3] y)
{
    first = MatMul(x, w1)
    relu = Relu(first)
    y = MatMul(relu, w2)
}
"""


def write(path: Path, extra: float = 0.0) -> Path:
    model = parser.parse_model(TEXT)
    weights = np.ones((5, 3), np.float32)
    weights[1, 2] += extra
    model.graph.initializer.append(numpy_helper.from_array(np.ones((4, 5), np.float32), "w1"))
    model.graph.initializer.append(numpy_helper.from_array(weights, "w2"))
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
        node.metadata_props.add(key="module", value=f"layers.{node.output[0]}")
    onnx.save(model, path)
    return path


def test_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "a.onnx"), write(tmp_path / "b.onnx", 0.5)
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    golden.write(tmp_path / "golden.npz", {"input:x": rows, "output:y": np.zeros((5, 3), np.float32)})
    given = ["--inputs", str(tmp_path / "golden.npz"), "--out", str(tmp_path / "r"), "--json"]
    main(["bisect", str(first), str(second), *given])
    told = json.loads(capsys.readouterr().out)
    assert [one["module"] for one in told["faulty"]] == ["layers.y"]
    assert (tmp_path / "r" / "rerun.py").is_file()
    main(["bisect", str(first), str(second)])
    shown = capsys.readouterr().out
    assert "module 'layers.y', node 'node_y'" in shown
    assert "w2 differs in 1 of 15 numbers, 1 became 1.5 at [1, 2]" in shown
    assert "#" in shown, "a histogram"
    main(["bisect", str(first), str(first)])
    assert "no layer of 3 differs" in capsys.readouterr().out


def test_one_file_alone_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bisect", str(write(tmp_path / "a.onnx"))]) == 2
    assert "two ONNX files" in capsys.readouterr().err


def test_a_run_without_an_export_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"recipe": {"name": "digits"}}))
    assert main(["bisect", str(tmp_path)]) == 2
    assert "no finished select" in capsys.readouterr().err
    assert main(["parity", str(tmp_path)]) == 2
    assert "compress verify" in capsys.readouterr().err


def test_the_ledger_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "reference": "ONNX",
        "artifact": "model.engine",
        "stage": "build",
        "output": "logits",
        "explained_steps": 2.0,
        "max_steps": "inf",
        "mean_steps": 0.25,
        "within_one_step": 0.9995,
        "top1_agreement": None,
        "worst": [{"sample": 7, "element": [2], "reference": 1.0, "candidate": "nan"}],
    }
    found = {"artifact": "model.engine", "sentence": "first layer that differs", "reproducer": "reproducer/x"}
    content = {"examples": 10, "step": 0.5, "step_from": "the output's own", "parity": [row], "bisect": [found]}

    def work(folder: Path) -> tuple[dict[str, Path], dict[str, object]]:
        (folder / parity.LEDGER).write_text(json.dumps(content))
        return {"parity ledger": folder / parity.LEDGER}, {}

    (tmp_path / "run.json").write_text(json.dumps({"recipe": {}}))
    with open_store(tmp_path) as store:
        store.once("verify", {}, work)
    assert main(["parity", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    for text in ("inf", "0.25 steps", "99.950 %", "sample 7, element [2]: 1 became nan", "reproducer/x"):
        assert text in shown
    (tmp_path / "6_verify" / parity.LEDGER).write_text("{}")
    assert main(["parity", str(tmp_path)]) == 2, "a file that was changed since is not believed"
