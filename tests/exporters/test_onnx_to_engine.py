"""The full TensorRT builder: what it says when something is missing, and the whole way against stand-ins.

The stand-ins compute with onnxruntime on host memory (see test_onnx_to_deploy_bundle.py); TensorRT itself and a GPU are
not needed and not tested here.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from exporters import bundle, bundle_run, onnx_to_engine
from exporters.builder import BuildOptions
from exporters.errors import ExportError
from profiles.ssh import Machine
from profiles.target import Target


@pytest.fixture
def stand_ins(
    driver: Path, fakes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> pytest.MonkeyPatch:
    """Children find the stand-ins; this process only believes that TensorRT is there."""
    monkeypatch.setenv("PYTHONPATH", str(fakes))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # where kernel timings are kept
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    return monkeypatch


def options(model, **more: object) -> BuildOptions:
    return BuildOptions(
        golden_inputs={"input": model.inputs.numpy()},
        golden_outputs={"logits": model.onnx_outputs()},
        batches=(1, 1, 4),
        **more,  # type: ignore[arg-type]
    )


def test_what_is_missing_is_said(orin: Target, x86: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "TensorRT is not installed here" in str(onnx_to_engine.can_run(orin))
    assert "runs onnxruntime, not TensorRT" in str(onnx_to_engine.can_run(x86))


def test_a_bad_host_is_refused_before_anything_starts(orin: Target) -> None:
    with pytest.raises(ExportError, match="not a machine's name"):
        onnx_to_engine.can_run(orin, remote="-oProxyCommand=x")


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("FAKE_NO_GPU", "1", "this machine lacks the NVIDIA driver sees no GPU"),
        ("FAKE_TENSORRT", "8.4.1", "TensorRT 8.4.1 is too old"),
        ("FAKE_TENSORRT", "12.0.0", "newer than this script knows"),
        ("FAKE_CAPABILITY", "80", "the GPU of this machine (Fake Orin) is 8.0"),
    ],
)
def test_a_machine_that_does_not_fit(
    stand_ins: pytest.MonkeyPatch, orin: Target, setting: str, value: str, said: str
) -> None:
    stand_ins.setenv(setting, value)
    assert said in str(onnx_to_engine.can_run(orin))


def test_without_a_driver(stand_ins: pytest.MonkeyPatch, orin: Target, tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    stand_ins.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert "no NVIDIA driver here" in str(onnx_to_engine.can_run(orin))


def test_an_engine_is_built_checked_and_described(
    stand_ins: pytest.MonkeyPatch, int8_model, orin: Target, tmp_path: Path
) -> None:
    stand_ins.setattr(bundle_run, "MEASURE", ("--measure-seconds", "0.02"))
    found = onnx_to_engine.convert(int8_model.path, orin, tmp_path, options=options(int8_model))
    assert found.path == tmp_path / "model.engine"
    assert found.facts["passed"] is True
    assert found.facts["reproducible"] is False
    kept = Path(os.environ["HOME"]) / ".cache" / "compress" / "timings"
    assert [path.name for path in kept.iterdir()] == ["timing-10.3.0-Fake-Orin-8.7-12060.cache"]
    assert found.facts["tensorrt"] == "10.3.0"
    assert found.note == "runs with TensorRT 10.3.0 on Fake Orin only"
    assert json.loads((tmp_path / "model.result.json").read_text())["engine_sha256"] == found.facts["engine_sha256"]
    assert "parsing" in (tmp_path / "model.build.log").read_text()
    json.dumps(dict(found.facts))


def test_refusals_and_crashes_become_sentences(
    stand_ins: pytest.MonkeyPatch, int8_model, orin: Target, tmp_path: Path
) -> None:
    with stand_ins.context() as setting:
        setting.setenv("FAKE_REFUSES", "1")
        with pytest.raises(ExportError, match=r"was refused: TensorRT 10\.3\.0 refuses the graph: node 'node_q'"):
            onnx_to_engine.convert(int8_model.path, orin, tmp_path, options=options(int8_model))
    with stand_ins.context() as setting:
        setting.setenv("FAKE_CRASHES", "1")
        with pytest.raises(ExportError, match="the builder crashed"):
            onnx_to_engine.convert(int8_model.path, orin, tmp_path, options=options(int8_model))
    assert list(tmp_path.iterdir()) == []


class Neighbour(Machine):
    """A machine whose ssh is a shell here: the same words, the same quoting, another folder."""

    def command(self, words: list[str]) -> list[str]:
        return ["sh", "-c", super().command(words)[-1]]

    def _copy(self, words: list[str], seconds: float) -> None:
        local = [word.partition(":")[2] if word.startswith(f"{self.host}:") else word for word in words]
        subprocess.run(["cp", *local], check=True)


def test_a_remote_build_takes_the_same_way(
    stand_ins: pytest.MonkeyPatch, fakes: Path, int8_model, orin: Target, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").symlink_to(sys.executable)
    site = [path for path in sys.path if path.endswith("site-packages")]
    stand_ins.setenv("PYTHONPATH", os.pathsep.join([str(fakes), *site]))
    stand_ins.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    stand_ins.setattr("profiles.ssh.Machine", Neighbour)
    stand_ins.setattr(onnx_to_engine, "missing_tools", lambda: None)
    stand_ins.setattr("profiles.ssh.missing_tools", lambda: None)
    stand_ins.setattr(bundle_run, "MEASURE", ("--measure-seconds", "0.02"))
    assert onnx_to_engine.can_run(orin, remote="me@orin") is None
    found = onnx_to_engine.convert(
        int8_model.path, orin, tmp_path / "out", options=options(int8_model, remote="me@orin")
    )
    assert found.facts["remote"] == "me@orin"
    assert found.facts["passed"] is True
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "model.build.log",
        "model.engine",
        "model.engine.json",
        "model.layers.json",
        "model.layers.report.json",
        "model.result.json",
    ]
    plain = BuildOptions(batches=(2, 2, 2), remote="me@orin")  # only to be measured
    assert onnx_to_engine.convert(int8_model.path, orin, tmp_path / "plain", options=plain).facts["passed"] is None


def test_the_module_needs_no_torch_and_old_python() -> None:
    for name in ("onnx_to_engine", "bundle", "bundle_run", "remote", "child", "builder", "engine_request", "dla"):
        text = (Path(bundle.__file__).parent / f"{name}.py").read_text()
        assert "import torch" not in text
        compile(text, name, "exec", dont_inherit=True)
