"""`compress sensitivity`: the table and what is missing, without torch."""

import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from compress.cli import sensitivity
from compress.errors import RunError
from compress.store import open_store
from tests.compress.page.test_precision import content


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    (tmp_path / "run.json").write_text(json.dumps({"format": 1, "recipe": {}}))
    return tmp_path


def _found() -> dict[str, Any]:
    found: dict[str, Any] = content()["quantize"]["precision"]
    return found | {
        "target": "jetson",
        "float_layers": ["block.0"],
        "float_score": 0.95,
        "quantized": found["layers"][0]["alone"],
        "accuracy_budget": 0.01,
        "accuracy_budget_from": "quantize.accuracy_budget",
        "layers_origin": {"latency_ms": "predicted"},
    }


def _run_on(run_folder: Path, found: dict[str, Any]) -> tuple[dict[str, Any], str]:
    def work(folder: Path) -> tuple[dict[str, Path], dict[str, Any]]:
        (folder / "precision.json").write_text(json.dumps(found))
        return {"precision and why": folder / "precision.json"}, {}

    with open_store(run_folder) as store:
        store.once("quantize", {}, work)
    return sensitivity.run(Namespace(folder=run_folder))


def test_prints_a_row_for_each_layer_and_the_decision(run_folder: Path) -> None:
    result, text = _run_on(run_folder, _found())
    assert result == _found()
    header, first, second, *_ = text.splitlines()
    assert header.split("  ")[0] == "layer"
    assert first.split()[:3] == ["block.0", "conv2d", "fp16"]
    assert second.split()[:3] == ["block.1", "conv2d", "int8"]
    assert "94.00 ± 0.2 %" in first
    assert "0.0123" in first
    assert "mixed ships for jetson." in text
    assert "In float: block.0." in text


def test_a_metric_that_is_no_fraction_has_no_percent_sign(run_folder: Path) -> None:
    _, text = _run_on(run_folder, _found() | {"metric": "concordance", "metric_unit": "", "why": []})
    assert text.splitlines()[0].count("concordance without it") == 1
    assert "0.940 ± 0.002" in text.splitlines()[1]
    assert "concordance in float 0.950, every layer in int8 0.9" in text
    assert "Quantising may cost 0.010 of concordance (quantize.accuracy_budget)." in text
    assert "%" not in text
    assert "accuracy " not in text


def test_says_where_layers_were_not_analysed(run_folder: Path) -> None:
    found = _found() | {"layers": [], "samples": None, "quantized": None, "float_score": None, "float_layers": []}
    _, text = _run_on(run_folder, found)
    assert "The layers were not analysed" in text


@pytest.mark.parametrize("left", [None, "", "{"])
def test_a_run_without_the_stage_is_told_what_to_do(run_folder: Path, left: str | None) -> None:
    if left is not None:
        (run_folder / "3_quantize").mkdir()
        (run_folder / "3_quantize" / "precision.json").write_text(left)
    with pytest.raises(RunError, match="no finished and unchanged quantize stage") as refused:
        sensitivity.run(Namespace(folder=run_folder))
    assert f"compress quantize {run_folder}" in str(refused.value.fix)


def test_an_edited_table_is_not_shown(run_folder: Path) -> None:
    _run_on(run_folder, _found())
    path = run_folder / "3_quantize" / "precision.json"
    path.write_text(path.read_text().replace("0.95", "0.99"))
    with pytest.raises(RunError, match="unchanged"):
        sensitivity.run(Namespace(folder=run_folder))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run"):
        sensitivity.run(Namespace(folder=tmp_path))


def test_loads_no_torch() -> None:
    code = "import compress.cli.sensitivity, sys; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
