"""Exporters of other projects beside ours, judged by the compiler."""

import importlib.util
from pathlib import Path

import pytest
import torch

from tools import accept_exporters, networks
from tools.accept_exporters import Verdict


def test_the_table_has_a_line_for_each_exporter_and_says_why() -> None:
    verdicts = [
        Verdict("ours", "resnet", "1.0", heavy=10, int8=10, weighted=10),
        Verdict("ours", "mlp", "1.0", heavy=3, int8=2, weighted=3),
        Verdict("theirs", "resnet", "2.0", refused="zero point"),
        Verdict("theirs", "mlp", failed="no module"),
    ]
    lines = accept_exporters.table(verdicts, ["resnet", "mlp"]).splitlines()
    assert lines[2].split() == ["ours", "10/10", "2/3", "1.0"]
    assert lines[3].split()[:2] == ["theirs", "refused"]
    assert "does not export" in lines[3]
    assert [line.strip() for line in lines[4:]] == ["zero point", "no module"]


def test_without_peers_the_table_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    good = Verdict("compress tensorrt", "mlp", "x", heavy=3, int8=3)
    monkeypatch.setattr(accept_exporters, "ours", lambda network, quantizer, folder: good)
    assert accept_exporters.main(["--networks", "mlp", "--peers", "/nowhere/python"]) == 0
    assert "peers not tried: /nowhere/python is no interpreter here" in capsys.readouterr().out


def test_an_exporter_that_cannot_start_is_a_line_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlp-float.onnx").touch()
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such module >&2\nexit 3\n")
    python.chmod(0o755)
    verdict = accept_exporters.theirs(networks.load("mlp"), "nncf_onnx", python, tmp_path)
    assert verdict.failed == "status 3: no such module"


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
def test_ours_compiles_with_every_layer_in_int8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(networks, "trained", lambda name: networks.load(name).build())
    verdict = accept_exporters.ours(networks.load("mlp"), "tensorrt", tmp_path)
    assert (verdict.text(), verdict.weighted) == ("3/3", 3)
