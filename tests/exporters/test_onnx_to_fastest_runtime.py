"""The fastest runtime is chosen from real measurements, and never one that computes something else."""

import importlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporters import onnx_to_fastest_runtime as fastest
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles.measure import Ratio
from profiles.target import Target

BOTH = ("on_onnxruntime", "on_openvino")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastest, "ROUNDS", 10)


def golden(model) -> BuildOptions:
    return BuildOptions(golden_inputs={"input": model.inputs.numpy()}, golden_outputs={"logits": model.onnx_outputs()})


def test_the_file_that_ships_is_the_exported_one(int8_model, x86: Target, tmp_path: Path) -> None:
    found = fastest.convert(int8_model.path, replace(x86, runners=BOTH), tmp_path, options=golden(int8_model))
    assert found.path.read_bytes() == int8_model.path.read_bytes()
    told = json.loads((tmp_path / "choice.json").read_text())
    assert told["runtime"] in ("onnxruntime", "openvino")
    assert told["origin"] == "measured"
    assert set(told["measured"]) | set(told["left_out"]) == set(BOTH)
    chosen = told["measured"][f"on_{told['runtime']}"]
    assert 0 < chosen["p5_ms"] <= chosen["median_ms"] <= chosen["p95_ms"]
    assert (chosen["batch"], chosen["threads"]) == (1, 1)


def test_without_golden_arrays_runtimes_are_compared_with_each_other(float_model, x86: Target, tmp_path: Path) -> None:
    found = fastest.convert(float_model.path, replace(x86, runners=BOTH), tmp_path, options=BuildOptions(threads=1))
    assert found.facts["runtime"] in ("onnxruntime", "openvino")


def test_a_runtime_that_computes_something_else_is_left_out(
    float_model, x86: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module("profiles.runners.on_onnxruntime")
    other = importlib.import_module("profiles.runners.on_openvino")

    class Wrong:
        def __init__(self, loaded) -> None:
            self.inputs = loaded.inputs
            self.loaded = loaded

        def run(self, inputs):
            return {name: -array for name, array in self.loaded.run(inputs).items()}

    monkeypatch.setattr(other, "available", lambda: None)
    monkeypatch.setattr(other, "load", lambda path, threads: Wrong(real.load(path, threads=threads)))
    found = fastest.convert(float_model.path, replace(x86, runners=BOTH), tmp_path, options=golden(float_model))
    assert found.facts["runtime"] == "onnxruntime"
    assert "differs too much" in found.facts["left_out"]["on_openvino"]  # type: ignore[index]


def test_golden_outputs_of_another_model_are_refused(float_model, x86: Target, tmp_path: Path) -> None:
    options = BuildOptions(
        golden_inputs={"input": float_model.inputs.numpy()},
        golden_outputs={"logits": float_model.onnx_outputs() + np.float32(3)},
    )
    with pytest.raises(ExportError, match="no runtime computes the golden outputs"):
        fastest.convert(float_model.path, replace(x86, runners=BOTH), tmp_path, options=options)


@pytest.mark.parametrize(
    ("high", "expected"),
    [(0.5, "on_openvino"), (0.96, "on_openvino"), (0.99, "on_onnxruntime"), (1.5, "on_onnxruntime")],
)
def test_a_tie_keeps_the_first(high: float, expected: str) -> None:
    ratios = {"on_onnxruntime": Ratio(1.0, 1.0, 1.0), "on_openvino": Ratio(high - 0.05, high - 0.1, high)}
    assert fastest._choose(ratios) == expected


def test_refusals(a100: Target, x86: Target, float_model, tmp_path: Path) -> None:
    assert "runs tensorrt" in str(fastest.can_run(a100))
    assert "this machine" in str(fastest.can_run(x86, remote="user@host"))
    assert fastest.can_run(x86) is None
    with pytest.raises(ExportError, match="the target names none"):
        fastest.convert(float_model.path, x86, tmp_path, options=BuildOptions())
