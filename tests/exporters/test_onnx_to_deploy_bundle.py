"""A bundle does on a device what it says: everything of it that needs no GPU runs here, and the rest runs against a
small stand-in for TensorRT and the CUDA driver that computes with onnxruntime on host memory."""

import ast
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from exporters import bundle, golden, onnx_to_deploy_bundle, parity
from exporters.builder import BuildOptions, EngineOptions
from exporters.device import check, files, main, plan, signature
from exporters.device.api import api_of
from exporters.errors import ExportError
from profiles.target import Target

CODE = ("__init__", "api", "check", "engine", "files", "gpu", "identity", "main", "plan", "signature", "watch")
Start = Callable[..., "subprocess.CompletedProcess[str]"]


def options(model, **more: object) -> BuildOptions:
    return BuildOptions(
        golden_inputs={"input": model.inputs.numpy()},
        golden_outputs={"logits": model.onnx_outputs()},
        batches=(1, 2, 4),
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture
def made(int8_model, orin: Target, tmp_path: Path):
    return onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=options(int8_model))


def test_the_folder_holds_all_that_a_device_needs(made) -> None:
    assert made.facts["files"] == [
        "README.md",
        "build_engine.py",
        "bundle.json",
        *[f"device/{name}.py" for name in CODE],
        "golden_inputs.npz",
        "golden_outputs.npz",
        "manifest.json",
        "model.onnx",
        "run.sh",
    ]
    assert os.access(made.path / "run.sh", os.X_OK)
    listed = json.loads((made.path / "manifest.json").read_text())["files"]
    assert set(listed) == set(made.facts["files"]) - {"manifest.json"}
    for name, entry in listed.items():
        assert hashlib.sha256((made.path / name).read_bytes()).hexdigest() == entry["sha256"]


def test_the_same_model_gives_the_same_bytes(made, int8_model, orin: Target, tmp_path: Path) -> None:
    again = onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path / "b", options=options(int8_model))
    for name in made.facts["files"]:
        assert (made.path / name).read_bytes() == (again.path / name).read_bytes(), name
    assert made.facts["manifest_sha256"] == again.facts["manifest_sha256"]


def test_a_bundle_that_is_there_is_replaced_whole(made, float_model, orin: Target, tmp_path: Path) -> None:
    (made.path / "result.json").write_text("{}")
    onnx_to_deploy_bundle.convert(float_model.path, orin, tmp_path, options=options(float_model))
    assert not (made.path / "result.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_refusals(int8_model, float_model, orin: Target, x86: Target, tmp_path: Path) -> None:
    assert onnx_to_deploy_bundle.can_run(orin) is None
    assert "runs onnxruntime" in str(onnx_to_deploy_bundle.can_run(x86))
    with pytest.raises(ExportError, match="needs golden inputs and outputs"):
        onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=BuildOptions())
    wrong = BuildOptions(golden_inputs={"x": np.zeros((1, 3))}, golden_outputs={"logits": np.zeros((1, 3))})
    with pytest.raises(ExportError, match="golden arrays are named"):
        onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=wrong)
    uneven = BuildOptions(golden_inputs={"input": np.zeros((2, 3))}, golden_outputs={"logits": np.zeros((1, 3))})
    with pytest.raises(ExportError, match="different numbers of samples"):
        onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=uneven)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [(3, 8), (3, 10)])
def test_the_script_stands_alone_and_is_old_enough(made, version: tuple[int, int]) -> None:
    """Standard library, numpy and its own files only; JetPack 5 has Python 3.8, JetPack 6 3.10."""
    names = set()
    for path in [made.path / bundle.SCRIPT, *sorted((made.path / "device").glob("*.py"))]:
        tree = ast.parse(path.read_text(), feature_version=version)
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    optional = {"cryptography"}  # imported where it is there and a signature is asked for
    assert {name.split(".")[0] for name in names} - set(sys.stdlib_module_names) - optional == {"numpy", "device"}
    tree = ast.parse((made.path / "device" / "signature.py").read_text())
    assert not any(
        "cryptography" in ast.dump(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
    )


def python_of(version: str) -> str | None:
    """An interpreter of that version, where one is installed."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    return str(found[-1]) if found else shutil.which(f"python{version}")


@pytest.mark.parametrize("version", ["3.8", "3.10"])
def test_the_command_runs_with_the_pythons_of_the_jetpacks(made, version: str, tmp_path: Path) -> None:
    """With stubs for numpy and tensorrt: only that interpreter's own library is needed to find out what lacks."""
    python = python_of(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    (tmp_path / "stubs").mkdir()
    (tmp_path / "stubs" / "numpy.py").write_text("")
    (tmp_path / "stubs" / "tensorrt.py").write_text("__version__ = '8.5.2.2'\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path / "stubs")}
    command = [python, str(made.path / bundle.SCRIPT)]
    found = subprocess.run([*command, "--probe"], env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout)
    assert told["python"].startswith(version)
    assert told["tensorrt"] == "8.5.2.2"
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "this machine lacks no NVIDIA driver here" in found.stderr
    (made.path / "model.onnx").write_bytes(b"another")
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "model.onnx is not the file that was exported" in found.stderr
    assert not list(made.path.rglob("__pycache__"))


def test_an_older_python_is_told(made) -> None:
    python = python_of("3.6")
    if python is None:
        pytest.skip("Python 3.6 is not installed")
    found = subprocess.run([python, str(made.path / bundle.SCRIPT)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (2, "refused: Python 3.8 or later is needed, this is 3.6\n")


def test_the_self_test_needs_no_gpu(made) -> None:
    found = subprocess.run(
        ["sh", str(made.path / "run.sh"), "--self-test", "--manifest-sha256", str(made.facts["manifest_sha256"])],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout)["golden"] == "9 samples"


@pytest.mark.parametrize(
    "name", ["model.onnx", "golden_outputs.npz", "bundle.json", "run.sh", "build_engine.py", "device/plan.py"]
)
def test_a_changed_file_is_refused(made, name: str) -> None:
    path = made.path / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(files.RefusedError, match=f"{name} is not the file that was exported"):
        files.check_manifest(made.path, None)
    assert main.main(["--folder", str(made.path)]) == 2, "and nothing is built"


def test_a_missing_or_linked_file_is_refused(made, tmp_path: Path) -> None:
    shutil.copy(made.path / "model.onnx", tmp_path / "elsewhere.onnx")
    (made.path / "model.onnx").unlink()
    with pytest.raises(files.RefusedError, match=r"model\.onnx is missing"):
        files.check_manifest(made.path, None)
    (made.path / "model.onnx").symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(files.RefusedError, match=r"model\.onnx is missing"):
        files.check_manifest(made.path, None)


def test_a_changed_manifest_is_refused_by_its_own_hash(made) -> None:
    manifest = json.loads((made.path / "manifest.json").read_text())
    (made.path / "model.onnx").write_bytes(b"evil")
    manifest["files"]["model.onnx"]["sha256"] = hashlib.sha256(b"evil").hexdigest()
    (made.path / "manifest.json").write_text(json.dumps(manifest))
    files.check_manifest(made.path, None)
    with pytest.raises(files.RefusedError, match=r"manifest\.json is not the one"):
        files.check_manifest(made.path, str(made.facts["manifest_sha256"]))


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/b", "..", "device/../x", "device/a/b", ".x", "a\\b"]
)
def test_a_manifest_cannot_point_elsewhere(made, name: str) -> None:
    (made.path / "manifest.json").write_text(json.dumps({"files": {name: {"sha256": "0"}}}))
    with pytest.raises(files.RefusedError, match="not a plain file name"):
        files.check_manifest(made.path, None)


LINES = {
    # release: network flags, builder flags, whether a layer names its nodes
    "8.5.2.2": (1, ["INT8"]),
    "8.6.1": (1, ["INT8"]),
    "10.3.0": (2, []),
    "10.16.1": (2, []),
    "11.4.1": (0, []),
}


@pytest.mark.parametrize("tool", ["cryptography", "openssl"])
def test_who_signed_a_bundle_is_checked_on_the_device(
    made, tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if tool == "openssl":
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    keys, public = [Ed25519PrivateKey.generate() for _ in range(2)], [tmp_path / "mine.pem", tmp_path / "other.pem"]
    for key, path in zip(keys, public, strict=True):
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    manifest, written = made.path / "manifest.json", made.path / signature.SIGNATURE
    with pytest.raises(files.RefusedError, match="is not signed"):
        signature.check_signature(made.path, public[0])
    written.write_bytes(keys[0].sign(manifest.read_bytes()))
    assert signature.check_signature(made.path, public[0]) == tool
    with pytest.raises(files.RefusedError, match=r"does not hold for other\.pem"):
        signature.check_signature(made.path, public[1])
    with pytest.raises(files.RefusedError, match="there is no key"):
        signature.check_signature(made.path, tmp_path / "none.pem")
    (tmp_path / "garbled.pem").write_text("-----BEGIN PUBLIC KEY-----")
    with pytest.raises(files.RefusedError, match=r"no public key|cannot check"):
        signature.check_signature(made.path, tmp_path / "garbled.pem")
    whole = written.read_bytes()
    for changed in (whole[:-1], b"", whole + b"0", bytes([whole[5] ^ 4]) + whole[1:]):
        written.write_bytes(changed)
        with pytest.raises(files.RefusedError, match="does not hold"):
            signature.check_signature(made.path, public[0])
    written.write_bytes(whole)
    manifest.write_bytes(manifest.read_bytes().replace(b"model.onnx", b"Model.onnx", 1))
    with pytest.raises(files.RefusedError, match="does not hold"):
        signature.check_signature(made.path, public[0])


def test_a_signature_is_asked_for_on_the_command_line(made, tmp_path: Path) -> None:
    command = ["sh", str(made.path / "run.sh"), "--self-test", "--public-key", str(tmp_path / "none.pem")]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 2
    assert "refused: the bundle is not signed" in found.stderr


@pytest.mark.parametrize("version", LINES)
def test_the_whole_way_on_each_line_of_versions(
    int8_model, orin: Target, tmp_path: Path, start: Start, version: str
) -> None:
    device = replace(orin, runtime_version=version)
    made = onnx_to_deploy_bundle.convert(int8_model.path, device, tmp_path, options=options(int8_model))
    found = start(made.path, "--manifest-sha256", str(made.facts["manifest_sha256"]), FAKE_TENSORRT=version)
    assert found.returncode == 0, found.stderr
    result = json.loads((made.path / "result.json").read_text())
    engine_bytes = (made.path / "model.engine").read_bytes()
    told = json.loads(engine_bytes.partition(b"\n")[0])
    assert (told["flags"], told["set"]) == LINES[version]
    assert told["cleared"] == ["TF32"]
    assert told["pools"] == {"WORKSPACE": 1 << 30}
    assert told["profiles"] == [{"input": [[1, 3, 16, 16], [2, 3, 16, 16], [4, 3, 16, 16]]}]
    assert result["passed"] is True
    assert result["tensorrt"] == version
    assert result["engine_sha256"] == hashlib.sha256(engine_bytes).hexdigest()
    assert result["machine"]["device"] == {"name": "Fake Orin", "capability": "8.7", "driver": 12060}
    assert result["parity"]["logits"]["elements"] == 27
    assert result["parity"]["logits"]["top1_agreement"] == 1.0
    assert set(result["latency"]) == {"1", "2"}
    assert result["latency"]["1"]["origin"] == "measured"
    assert 0.0 < result["latency"]["1"]["median_ms"] <= result["latency"]["1"]["p95_ms"]
    assert result["int8_share"] == 6 / 7, "the stand-in says int8 of convolutions only"
    assert len(result["float_nodes"]) == 1
    assert (made.path / "build.log").read_text() == "VERBOSE parsing\n"
    assert "Layers" in json.loads((made.path / "layers.json").read_text())
    rows = json.loads((made.path / "layers.report.json").read_text())
    assert [row["inputs"] for row in rows] == [["Int8"]] * 6


@pytest.mark.parametrize("version", ["8.4.1", "8.2.1", "12.0.0", "unknown"])
def test_versions_that_are_refused(version: str) -> None:
    with pytest.raises(files.RefusedError):
        api_of(version)


def test_weights_stored_as_int8_are_refused_by_8_and_so_not_sent_there(made, start: Start) -> None:
    """The bundle of a device with TensorRT 10 on one with 8.6: the stand-in refuses as the real parser does."""
    found = start(made.path, FAKE_TENSORRT="8.6.1")
    assert found.returncode == 2
    assert "refuses the graph: node number 3 of the file" in found.stderr
    assert "invalid weights type of Int8" in found.stderr


def test_an_engine_that_fits_is_kept_and_one_that_does_not_is_built_again(made, start: Start) -> None:
    assert "building the engine: there is none" in start(made.path).stderr
    first = (made.path / "result.json").read_bytes()
    again = start(made.path)
    assert (again.returncode, "fits this machine and this model" in again.stderr) == (0, True)
    assert (made.path / "result.json").read_bytes() == first
    assert json.loads(again.stdout)["passed"] is True
    later = start(made.path, FAKE_TENSORRT="10.3.1")
    assert "it was built by tensorrt 10.3.0, here is 10.3.1" in later.stderr
    assert json.loads((made.path / "model.engine.json").read_text())["tensorrt"] == "10.3.1"
    engine_file = made.path / "model.engine"
    content = bytearray(engine_file.read_bytes())
    content[-1] ^= 1
    engine_file.write_bytes(content)
    assert "its SHA-256 differs" in start(made.path, FAKE_TENSORRT="10.3.1").stderr
    assert "asked for with --rebuild" in start(made.path, "--rebuild", FAKE_TENSORRT="10.3.1").stderr


def test_every_choice_reaches_the_builder(int8_model, orin: Target, tmp_path: Path, start: Start) -> None:
    chosen = EngineOptions(
        workspace_mib=64,
        tf32=True,
        hardware="ampere_plus",
        version_compatible=True,
        strip_weights=True,
        optimisation_level=5,
    )
    several = ({"input": ((1, 3, 16, 16), (1, 3, 16, 16), (2, 3, 16, 16))}, {"input": ((3, 3, 16, 16),) * 3})
    made = onnx_to_deploy_bundle.convert(
        int8_model.path, orin, tmp_path, options=replace(options(int8_model), engine=chosen, profiles=several)
    )
    request = json.loads((made.path / "bundle.json").read_text())
    assert (request["largest_batch"], request["one_batch_size"]) == (2, False)
    found = start(made.path)
    assert found.returncode == 0, found.stderr
    told = json.loads((made.path / "model.engine").read_bytes().partition(b"\n")[0])
    assert told["set"] == ["STRIP_PLAN", "TF32", "VERSION_COMPATIBLE"]
    assert told["cleared"] == []
    assert told["hardware_compatibility_level"] == "AMPERE_PLUS"
    assert told["builder_optimization_level"] == 5
    assert told["pools"] == {"WORKSPACE": 64 << 20}
    assert [profile["input"][2][0] for profile in told["profiles"]] == [2, 3]
    record = json.loads((made.path / "model.engine.json").read_text())
    assert record["flags"] == [
        "STRIP_PLAN",
        "TF32",
        "VERSION_COMPATIBLE",
        "hardware:AMPERE_PLUS",
        "optimisation:5",
        "workspace:64MiB",
    ]
    assert record["exported_onnx_sha256"] == hashlib.sha256(int8_model.path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("asked", "version", "said"),
    [
        ({"version_compatible": True}, "8.5.2", "TensorRT 8.5.2 has no version-compatible engines"),
        ({"strip_weights": True}, "8.6.1", "has no engines without weights"),
        ({"hardware": "same_compute_capability"}, "10.7.0", "'same_compute_capability'"),
        ({"hardware": "ampere_plus"}, "8.5.2", "'ampere_plus'"),
        ({"optimisation_level": 3}, "8.5.2", "has no builder optimisation level"),
        ({"only_cached_timings": True, "timing_cache": "x"}, "8.6.1", "refuses to time kernels"),
        ({"only_cached_timings": True}, "10.3.0", "that without a timing cache"),
        ({"dla": {"core": 0}}, "10.9.0", "there is none from 10.8 to 11.4.0"),
        ({"dla": {"core": 0}}, "11.4.0", "there is none from 10.8 to 11.4.0"),
    ],
)
def test_what_a_release_lacks_is_refused_by_name(asked: dict[str, object], version: str, said: str) -> None:
    """Before TensorRT is asked for anything: this stand-in has nothing but a name and a version."""
    library = SimpleNamespace(__name__="tensorrt", __version__=version)
    with pytest.raises(files.RefusedError, match=re.escape(said)):
        plan.build(library, b"", {"profiles": [], **asked}, io.StringIO())


@pytest.mark.parametrize(("version", "calibrated"), [("8.5.2", True), ("10.3.0", True), ("11.4.1", False)])
def test_a_dla_gets_a_calibration_cache_before_11_and_the_quantised_graph_from_11(
    int8_model, orin: Target, tmp_path: Path, start: Start, version: str, calibrated: bool
) -> None:
    given = replace(options(int8_model), engine=EngineOptions(dla_core=1, gpu_fallback=True))
    device = replace(orin, runtime_version=version)
    made = onnx_to_deploy_bundle.convert(int8_model.path, device, tmp_path, options=given)
    found = start(made.path, FAKE_TENSORRT=version, FAKE_DLA_LACKS="Gemm")
    told = json.loads((made.path / "model.engine").read_bytes().partition(b"\n")[0])
    result = json.loads((made.path / "result.json").read_text())
    assert told["default_device_type"] == "DLA"
    assert told["DLA_core"] == 1
    assert told["profiles"] == []
    assert len(result["dla"]["on_gpu"]) == 1
    if not calibrated:
        assert (told["parser"], told["set"], told["calibration"]) == (["ADJUST_FOR_DLA"], ["GPU_FALLBACK"], None)
        assert found.returncode == 0, found.stderr
        assert result["passed"] is True
        return
    number = {"8.5.2": "8502", "10.3.0": "100300"}[version]
    header, *lines = told["calibration"].splitlines()
    assert header == f"TRT-{number}-EntropyCalibration2"
    scales = json.loads((made.path / "bundle.json").read_text())["engine"]["dla"]["scales"]
    assert {name: float(np.frombuffer(bytes.fromhex(code), ">f4")[0]) for name, code in map(split, lines)} == scales
    assert told["set"] == ["FP16", "GPU_FALLBACK", "INT8"]
    assert b"QuantizeLinear" not in (made.path / "model_dla.onnx").read_bytes()
    assert found.returncode in (0, 1), "the stand-in computes in floats: parity may or may not hold"


def split(line: str) -> tuple[str, str]:
    name, _, code = line.rpartition(": ")
    return name, code


def test_a_dla_refuses_what_it_lacks_where_falling_back_was_not_asked_for(
    int8_model, orin: Target, tmp_path: Path, start: Start
) -> None:
    given = replace(options(int8_model), engine=EngineOptions(dla_core=0))
    made = onnx_to_deploy_bundle.convert(int8_model.path, orin, tmp_path, options=given)
    found = start(made.path, FAKE_DLA_LACKS="Gemm")
    assert found.returncode == 2
    assert "cannot run on the DLA" in found.stderr
    assert "--gpu-fallback" in found.stderr


def test_another_gpu_is_refused_unless_asked_for(made, start: Start) -> None:
    found = start(made.path, FAKE_CAPABILITY="86")
    assert found.returncode == 2
    assert "this GPU is Fake Orin (8.6)" in found.stderr
    assert not (made.path / "model.engine").exists()
    assert start(made.path, "--any-device", FAKE_CAPABILITY="86").returncode == 0


def test_an_engine_that_computes_something_else_fails(made, start: Start) -> None:
    found = start(made.path, FAKE_WRONG="1")
    assert found.returncode == 1
    result = json.loads((made.path / "result.json").read_text())
    assert result["passed"] is False
    assert "mean_of_spread" in result["parity"]["logits"]["failed"]


def test_a_refused_graph_names_the_node(made, start: Start) -> None:
    found = start(made.path, FAKE_REFUSES="1")
    assert found.returncode == 2
    assert "node 'node_q' (QuantizeLinear): Non-zero zero point" in found.stderr
    assert not (made.path / "result.json").exists()


def test_a_crash_of_the_builder_is_survived(made, start: Start) -> None:
    found = start(made.path, FAKE_CRASHES="1")
    assert found.returncode == 3
    assert "the builder crashed" in found.stderr
    assert "tactic of node_bad" in (made.path / "build.log").read_text()


def test_a_machine_without_gpu_or_tensorrt_says_what_it_lacks(made, start: Start) -> None:
    found = start(made.path, FAKE_NO_GPU="1")
    assert found.returncode == 2
    assert "sees no GPU" in found.stderr
    told = json.loads(start(made.path, "--probe", PYTHONPATH="").stdout)
    assert any(word.startswith("tensorrt") for word in told["missing"])
    told = json.loads(start(made.path, "--probe", FAKE_TENSORRT="8.4.1").stdout)
    assert "too old" in told["missing"][0]


def test_timings_are_kept_for_each_release_and_gpu(made, start: Start, tmp_path: Path) -> None:
    found = start(made.path, "--timing-cache", str(tmp_path / "kept"))
    assert found.returncode == 0, found.stderr
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["timing-10.3.0-Fake-Orin-8.7-12060.cache"]
    result = json.loads((made.path / "result.json").read_text())
    assert result["timing_cache_sha256"] == hashlib.sha256(b"timings of 87").hexdigest()
    assert result["timings_before"] == "none"
    start(made.path, "--rebuild", "--timing-cache", str(tmp_path / "kept"))
    assert json.loads((made.path / "result.json").read_text())["timings_before"] == "used"
    names = {timing_name("10.3.0", "Orin"), timing_name("11.1.0", "Orin"), timing_name("10.3.0", "Orin NX")}
    assert len(names) == 3
    cache = tmp_path / "kept" / "timing-10.3.0-Fake-Orin-8.7-12060.cache"
    cache.write_bytes(b"timings of 80")  # of another GPU: refused, not used with wrong timings
    start(made.path, "--rebuild", "--timing-cache", str(tmp_path / "kept"))
    assert json.loads((made.path / "result.json").read_text())["timings_before"] == "none"
    assert cache.read_bytes() == b"timings of 87"


def timing_name(version: str, device: str) -> str:
    machine = {"tensorrt": version, "device": {"name": device, "capability": "8.7", "driver": 12060}}
    return main.timing_cache(Path("x"), machine).name


def test_a_build_says_how_far_it_is_and_ends_at_its_limits(made, start: Start) -> None:
    found = start(made.path, "--every", "0.2", FAKE_SLOW="1.6")
    assert found.returncode == 0, found.stderr
    lines = [line for line in found.stderr.splitlines() if "Building 1 of 4" in line]
    assert lines
    assert "MiB" in lines[0]
    assert re.search(r"about \d+ s of it left", lines[-1])
    found = start(made.path, "--rebuild", "--seconds", "1", FAKE_SLOW="30")
    assert (found.returncode, "did not end within 1 s" in found.stderr) == (3, True)
    found = start(made.path, "--memory-mib", "400", FAKE_GREEDY="600")
    assert (found.returncode, "took more than 400 MiB" in found.stderr) == (3, True)
    assert not (made.path / "model.engine").exists()


def test_the_script_judges_as_the_pipeline_does() -> None:
    """The script cannot import exporters.parity, so both are held against each other."""
    rng = np.random.default_rng(0)
    bounds = dict(bundle.BOUNDS)
    for step in (None, 0.05):
        first = rng.standard_normal((6, 5)).astype(np.float32)
        second = first + rng.normal(0, 0.03, (6, 5)).astype(np.float32)
        told, known = check.judge(first, second, step, bounds), parity.compare(first, second, step)
        assert told["max_abs"] == known.max_abs
        assert told["mean_abs"] == known.mean_abs
        assert told["top1_agreement"] == known.top1_agreement
        assert told.get("within_one_step") == known.within_one_step
    assert check.judge(first, first[:3], None, bounds)["passed"] is False
    assert check.judge(first, np.full_like(first, np.nan), None, bounds)["failed"][0] == "not_a_number"


def test_golden_arrays_are_what_was_given(made, int8_model) -> None:
    stored = golden.read(made.path / "golden_outputs.npz")
    np.testing.assert_array_equal(stored["logits"], int8_model.onnx_outputs())
