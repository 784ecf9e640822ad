"""A real ssh to this machine builds an engine in a clean virtual environment without torch and brings it back.

Only the machine is a stand-in (this one, by its loopback address) and its TensorRT, for full TensorRT installs nowhere
offline: TensorRT for RTX builds ahead of time there, and says that nothing was run.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import profiles
from exporters import onnx_to_engine, onnx_to_rtx_engine
from exporters.builder import BuildOptions
from exporters.device import identity
from exporters.errors import ExportError
from exporters.remote import Machine
from profiles import atomic, trust
from tools import remote_loopback

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed"
)


@pytest.fixture(scope="module")
def device(ssh_server: tuple[str, tuple[str, ...]], tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A machine whose Python has numpy, onnx and TensorRT for RTX, and nothing of ours."""
    python = remote_loopback.linked_environment(tmp_path_factory.mktemp("device") / "environment")
    return Machine(*ssh_server, str(python))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return remote_loopback.small_network(tmp_path_factory.mktemp("model") / "model.onnx")


def test_the_device_has_neither_torch_nor_this_package(device: Machine) -> None:
    told = device.run([device.python, "-c", remote_loopback._WITHOUT], seconds=60)
    assert told.stdout.strip().endswith("without torch, compress, exporters, profiles")


def test_an_engine_is_built_there_and_comes_back_with_its_report(device: Machine, model: Path, tmp_path: Path) -> None:
    said: list[str] = []
    rng = np.random.default_rng(0)
    options = BuildOptions(
        remote=device,
        batches=(1, 1, 8),
        golden_inputs={"x": rng.standard_normal((2, 3, 16, 16)).astype(np.float32)},
        golden_outputs={"y": rng.standard_normal((2, 4)).astype(np.float32)},
        progress=said.append,
    )
    found = onnx_to_rtx_engine.convert(model, profiles.target("a100"), tmp_path, options=options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.build.log",
        "model.engine",
        "model.engine.json",
        "model.result.json",
    ]
    assert found.facts["int8_share"] == 1.0
    assert found.facts["remote"] == device.host
    result = json.loads((tmp_path / "model.result.json").read_text())
    assert result["passed"] is None
    assert "no NVIDIA driver" in result["not_run"] or "no GPU" in result["not_run"]
    record = identity.read(found.path)
    assert identity.misfits(record, engine=found.path, onnx=atomic.sha256(model)) == []
    assert record["capabilities"] == ["SM80"]
    assert trust.check(found.path) == record["engine_sha256"]
    assert said[0] == "building the engine: there is none"
    here = onnx_to_rtx_engine.convert(
        model, profiles.target("a100"), tmp_path / "here", options=BuildOptions(batches=(1, 1, 8))
    )
    assert here.facts["profiles"] == record["profiles"]
    assert identity.read(here.path)["settings"] == record["settings"], "asked for in the same words"


def test_a_machine_that_lacks_something_is_asked_first(device: Machine, model: Path, tmp_path: Path) -> None:
    assert "tensorrt (part of JetPack" in str(onnx_to_engine.can_run(profiles.target("jetson"), remote=device))
    bare = Machine(device.host, device.options, "/usr/bin/false")
    assert "cannot unpack what was sent" in str(onnx_to_rtx_engine.can_run(profiles.target("a100"), remote=bare))
    options = BuildOptions(remote=bare)
    with pytest.raises(ExportError, match="cannot unpack"):
        onnx_to_rtx_engine.convert(model, profiles.target("a100"), tmp_path, options=options)
    assert list(tmp_path.iterdir()) == []
